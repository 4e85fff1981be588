"""Joints averaged over neighbouring frames: what is faster than a body moves is no part of an action."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

REACH = 3.0  # deviations of the Gaussian to either side


def smooth(x: Tensor, mask: Tensor, deviation: float) -> Tensor:
    """Weighted means over frames, of the frames that show a joint.

    Args:
        x: (N, M, C, T, V) joints, zero where missing.
        mask: (N, M, T, V) bool.
        deviation: of the Gaussian weights, in frames; 0 changes nothing.

    Returns:
        Joints of the same shape; what is missing stays so.
    """
    if not deviation:
        return x
    reach = math.ceil(REACH * deviation)
    frames = torch.arange(-reach, reach + 1, dtype=x.dtype, device=x.device)
    weights = torch.exp(-0.5 * (frames / deviation).square())
    there = mask[:, :, None].to(x.dtype)
    sums = _weighted(torch.cat([x * there, there], dim=2), weights)
    return torch.where(mask[:, :, None], sums[:, :, :-1] / sums[:, :, -1:].clamp(min=torch.finfo(x.dtype).tiny), x)


def _weighted(x: Tensor, weights: Tensor) -> Tensor:
    """Sums along T, frames outside the clip being zero."""
    N, M, C, T, V = x.shape
    rows = x.reshape(N * M * C, 1, T, V)
    return F.conv2d(rows, weights.view(1, 1, -1, 1), padding=(len(weights) // 2, 0)).view(N, M, C, T, V)
