"""Collective operations that carry gradients, for any backend and device (gloo on CPU, nccl on GPU).

``accelerator.gather`` returns tensors without a gradient, and a contrastive loss or a batch statistic over the global
batch needs one. With these, averaging gradients over processes (what DistributedDataParallel does) gives exactly the
gradient that one process would get from the whole batch.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


def world_size() -> int:
    """Number of processes that train together; 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Index of this process."""
    return dist.get_rank() if world_size() > 1 else 0


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, ...]:
        parts = [torch.empty_like(x) for _ in range(world_size())]
        dist.all_gather(parts, x.contiguous())
        return tuple(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        # Every process used my rows in its own loss: the gradients of all of them add up.
        stacked = torch.stack(gradients)
        dist.all_reduce(stacked)
        return stacked[rank()]


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.clone()
        dist.all_reduce(gradient)
        return gradient


def gather_rows(x: Tensor) -> Tensor:
    """(n, …) rows of every process -> (n * processes, …), in order of rank, with gradients. Equal n everywhere."""
    return torch.cat(_Gather.apply(x)) if world_size() > 1 else x


def sum_over_processes(x: Tensor) -> Tensor:
    """Elementwise sum over processes, with gradients."""
    return _Sum.apply(x) if world_size() > 1 else x


class GlobalBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch normalisation over the batch of all processes, so that training does not depend on their number.

    ``torch.nn.SyncBatchNorm`` does the same but refuses CPU tensors. Normalises (N, C, …) over all axes but C; running
    statistics use the unbiased variance of the global batch, as ``nn.BatchNorm`` does on one process.
    """

    def _check_input_dim(self, x: Tensor) -> None:
        if x.dim() < 2:
            raise ValueError(f"expected at least (N, C), got {tuple(x.shape)}")

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, …) -> the same shape."""
        if not self.training:
            return super().forward(x)
        axes = [axis for axis in range(x.dim()) if axis != 1]
        wide = x.float()
        count = wide.new_tensor([x.numel() / x.shape[1]])
        # Two passes: subtracting the mean first keeps float32 variances exact to the last digits.
        total = sum_over_processes(torch.cat([wide.sum(axes), count]))
        size = total[-1].detach()
        mean = total[:-1] / size
        shape = [1, -1] + [1] * (x.dim() - 2)
        centred = wide - mean.view(shape)
        variance = sum_over_processes(centred.square().sum(axes)) / size
        self._track(mean.detach(), variance.detach(), size)
        normal = centred * torch.rsqrt(variance + self.eps).view(shape)
        return (normal * self.weight.view(shape) + self.bias.view(shape)).to(x.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor, size: Tensor) -> None:
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        momentum = self.momentum if self.momentum is not None else 1.0 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean.to(self.running_mean), momentum)
        self.running_var.lerp_((variance * size / (size - 1.0)).to(self.running_var), momentum)


def globalise_batchnorm(module: nn.Module) -> nn.Module:
    """Replace every affine BatchNorm below ``module`` by :class:`GlobalBatchNorm` with the same tensors, in place."""
    for name, child in module.named_children():
        if isinstance(child, nn.modules.batchnorm._BatchNorm) and not isinstance(child, GlobalBatchNorm):
            twin = GlobalBatchNorm(child.num_features, child.eps, child.momentum, affine=True)
            twin.weight, twin.bias = child.weight, child.bias
            twin.running_mean, twin.running_var = child.running_mean, child.running_var
            twin.num_batches_tracked = child.num_batches_tracked
            twin.train(child.training)
            setattr(module, name, twin)
        else:
            globalise_batchnorm(child)
    return module
