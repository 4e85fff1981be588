"""Collective operations that carry gradients, for any backend and device (gloo on CPU, nccl on GPU).

``accelerator.gather`` returns tensors without a gradient, and a contrastive loss or a batch statistic over the global
batch needs one. With these, averaging gradients over processes (what DistributedDataParallel does) gives exactly the
gradient that one process would get from the whole batch.

Whatever is exchanged happens under a :func:`purpose`, so that a count can say what it was for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from mmcl.common.precision import widen

_purposes = ["other"]


@contextmanager
def purpose(name: str) -> Iterator[None]:
    """Say what the collectives in this block are for: gradients, contrastive, batch norm, metrics, stop, …."""
    _purposes.append(name)
    try:
        yield
    finally:
        _purposes.pop()


def current_purpose() -> str:
    """What the collective that is under way is for."""
    return _purposes[-1]


def world_size() -> int:
    """Number of processes that train together; 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Index of this process."""
    return dist.get_rank() if world_size() > 1 else 0


def _all_gather(x: Tensor) -> Tensor:
    """(n, …) of every process -> (n * processes, …)."""
    rows = x.new_empty(world_size() * len(x), *x.shape[1:])
    dist.all_gather_into_tensor(rows, x.contiguous())
    return rows


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, name: str) -> Tensor:
        ctx.name = name
        with purpose(name):
            return _all_gather(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        # Every process used my rows in its own loss: the gradients of all of them add up, and nobody needs more than
        # the sum for its own rows. (gloo all-reduces inside its reduce-scatter, nccl sends half of that.)
        mine = gradient.new_empty(len(gradient) // world_size(), *gradient.shape[1:])
        with purpose(ctx.name):
            dist.reduce_scatter_tensor(mine, gradient.contiguous())
        return mine, None


def gather_rows(x: Tensor, name: str = "contrastive") -> Tensor:
    """(n, …) rows of every process -> (n * processes, …), in order of rank, with gradients. Equal n everywhere.

    Args:
        x: this process's rows.
        name: what for, see :func:`purpose`.
    """
    return _Gather.apply(x, name) if world_size() > 1 else x


def _along(vector: Tensor, x: Tensor) -> Tensor:
    """(C,) so that it broadcasts over (N, C, …)."""
    return vector.view(1, -1, *[1] * (x.dim() - 2))


class _Normalise(torch.autograd.Function):
    """Batch normalisation over all processes: one collective forward, one backward, one tensor kept in between."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
        wide, axes = widen(x), [axis for axis in range(x.dim()) if axis != 1]
        width, count = x.shape[1], x.numel() / x.shape[1]
        variance, mean = torch.var_mean(wide, axes, correction=0) if count else wide.new_zeros(2, width)
        own = torch.cat([mean, variance * count, mean.new_tensor([count])])
        with purpose("batch norm"):
            every = _all_gather(own.unsqueeze(0))
        # Means and squared deviations of parts, joined (Chan et al. 1979): as exact as two passes over everything.
        means, squares, counts = every[:, :width], every[:, width:-1], every[:, -1:]
        size = counts.sum()
        mean = (counts * means).sum(0) / size
        variance = (squares + counts * (means - mean).square()).sum(0) / size
        scale = torch.rsqrt(variance + eps)
        ctx.save_for_backward(x, weight, mean, scale, size)
        y = (wide - _along(mean, x)) * _along(scale * weight, x) + _along(bias, x)
        ctx.mark_non_differentiable(mean, variance, size)
        return y.to(x.dtype), mean, variance, size

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, mean, scale, size = ctx.saved_tensors
        axes = [axis for axis in range(x.dim()) if axis != 1]
        gradient = widen(gradient)
        normal = (widen(x) - _along(mean, x)) * _along(scale, x)
        sums = torch.stack([gradient.sum(axes), (gradient * normal).sum(axes)])
        bias, slope = sums.clone()  # of this process alone: gradients of parameters are averaged with all others
        with purpose("batch norm"):
            dist.all_reduce(sums)
        sums /= size
        inward = (gradient - _along(sums[0], x) - normal * _along(sums[1], x)) * _along(scale * weight, x)
        return inward.to(x.dtype), slope.to(weight.dtype), bias.to(weight.dtype), None


class GlobalBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch normalisation over the batch of all processes, so that training does not depend on their number.

    ``torch.nn.SyncBatchNorm`` does the same but refuses CPU tensors. Normalises (N, C, …) over all axes but C; running
    statistics use the unbiased variance of the global batch, as ``nn.BatchNorm`` does on one process. Processes may
    hold differently many rows, and some of them none.
    """

    def _check_input_dim(self, x: Tensor) -> None:
        if x.dim() < 2:
            raise ValueError(f"expected at least (N, C), got {tuple(x.shape)}")

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, …) -> the same shape."""
        if not self.training or world_size() == 1:
            return super().forward(x)
        weight = self.weight if self.affine else x.new_ones(self.num_features)
        bias = self.bias if self.affine else x.new_zeros(self.num_features)
        y, mean, variance, size = _Normalise.apply(x, weight, bias, self.eps)
        if self.track_running_stats:
            self._track(mean, variance, size)
        return y

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor, size: Tensor) -> None:
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        momentum = self.momentum if self.momentum is not None else 1.0 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean.to(self.running_mean), momentum)
        self.running_var.lerp_((variance * size / (size - 1.0)).to(self.running_var), momentum)


def globalise_batchnorm(module: nn.Module) -> nn.Module:
    """Replace every BatchNorm below ``module`` by :class:`GlobalBatchNorm` with the same tensors, in place.

    Classes derived from them stay as they are where they compute something of their own: see :func:`local_norms`.
    """
    for name, child in module.named_children():
        if isinstance(child, nn.modules.batchnorm._BatchNorm) and _only_normalises(child):
            twin = GlobalBatchNorm(
                child.num_features, child.eps, child.momentum, child.affine, child.track_running_stats
            )
            twin.weight, twin.bias = child.weight, child.bias
            twin.running_mean, twin.running_var = child.running_mean, child.running_var
            twin.num_batches_tracked = child.num_batches_tracked
            twin.train(child.training)
            setattr(module, name, twin)
        else:
            globalise_batchnorm(child)
    return module


def _only_normalises(norm: nn.modules.batchnorm._BatchNorm) -> bool:
    return type(norm).forward is nn.modules.batchnorm._BatchNorm.forward


def local_norms(module: nn.Module) -> dict[str, nn.modules.batchnorm._BatchNorm]:
    """The batch norms that :func:`globalise_batchnorm` left, by name: what else they compute cannot be known."""
    norms = {name: m for name, m in module.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)}
    return {name: norm for name, norm in norms.items() if not isinstance(norm, GlobalBatchNorm | nn.SyncBatchNorm)}


@torch.no_grad()
def share_statistics(module: nn.Module) -> None:
    """Give all processes the running statistics of process 0, where batch norms are each process's own; collective."""
    if world_size() > 1:
        with purpose("batch norm"):
            for norm in local_norms(module).values():
                for statistic in norm.buffers(recurse=False):
                    dist.broadcast(statistic, src=0)
