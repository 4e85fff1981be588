"""Adaptation without labels: an encoder's batch-norm statistics re-estimated on another data set's clips.

AdaBN: Li, Wang, Shi, Hou, Liu, "Adaptive Batch Normalization for practical domain adaptation", Pattern Recognition 80,
2018 (first as arXiv 1603.04779). No weight is touched.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from mmcl.common.errors import UserError


class _Moments:
    """Count, mean and squared deviations of a layer's input, by channel, over all batches (Chan et al. 1979)."""

    def __init__(self, norm: nn.Module) -> None:
        self.count = 0
        self.mean = self.squares = torch.zeros(0)
        self.handle = norm.register_forward_pre_hook(lambda _, inputs: self.add(inputs[0]))

    def add(self, x: Tensor) -> None:
        rows = x.detach().double().transpose(0, 1).flatten(1)  # (C, values)
        mean = rows.mean(dim=1)
        squares = (rows - mean[:, None]).square().sum(dim=1)
        size, before = rows.shape[1], self.count
        self.count = before + size
        if not before:
            self.mean, self.squares = mean, squares
            return
        gap = mean - self.mean
        self.mean = self.mean + gap * (size / self.count)
        self.squares = self.squares + squares + gap.square() * (before * size / self.count)


@torch.no_grad()
def reestimate_batchnorm(encoder: nn.Module, batches: Iterable[Tensor]) -> int:
    """Replace the running mean and variance of every batch norm by those of its input over all batches.

    While they are measured, each layer normalises by the batch at hand, as in training. Every clip has the same say,
    however the clips fall into batches; the variance is the unbiased one, as batch norm keeps it.

    Args:
        encoder: changed in place, and left in evaluation mode; nothing but running statistics changes.
        batches: encoder inputs (N, M, T, V, C), N of at least 2.

    Returns:
        How many layers there were.

    Raises:
        UserError: the encoder has no batch norm that keeps statistics, or there is no batch.
    """
    kinds = nn.modules.batchnorm._BatchNorm
    norms = [module for module in encoder.modules() if isinstance(module, kinds) and module.track_running_stats]
    if not norms:
        raise UserError("this encoder has no batch norm: there are no statistics to adapt")
    encoder.eval()
    moments = [_Moments(norm) for norm in norms]
    try:
        for norm in norms:
            norm.train()
            norm.track_running_stats = False  # the running values stay as they are until all is measured
        for batch in batches:
            encoder(batch)
    finally:
        for norm, found in zip(norms, moments, strict=True):
            found.handle.remove()
            norm.track_running_stats = True
            norm.eval()
    if not moments[0].count:
        raise UserError("there are no clips to adapt to")
    for norm, found in zip(norms, moments, strict=True):
        assert norm.running_mean is not None and norm.running_var is not None
        norm.running_mean.copy_(found.mean)
        norm.running_var.copy_(found.squares / max(1, found.count - 1))
    return len(norms)
