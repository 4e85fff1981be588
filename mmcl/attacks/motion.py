"""How motion carries a change of one frame into the next ones, by the autoregression of every coordinate."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mmcl.attacks.autoregression import FEWEST, best_coefficients

RIDGE = 1e-6  # of the mean diagonal: keeps a still joint's coefficients finite


class Carry(NamedTuple):
    """How a change of frame t carries over, both (N, M, T, V, C): to t + 1, and to t + 2 on both ways."""

    one: Tensor
    two: Tensor


def carried(gradient: Tensor, carry: Carry) -> Tensor:
    """What the loss's gradient at later frames says about each frame, through the motion; (N, M, T, V, C) both.

    A change d of x[t] changes x[t+1] by one(t) d and x[t+2] by two(t) d, if the motion goes on as it was fitted.
    """
    return carry.one * _later(gradient, 1) + carry.two * _later(gradient, 2)


def _later(x: Tensor, frames: int) -> Tensor:
    """Along T, what comes so many frames later; zero behind the end."""
    kept = min(frames, x.shape[2])
    return torch.cat([x[:, :, kept:], torch.zeros_like(x[:, :, :kept])], dim=2)


def fit_motion(
    joints: Tensor, lengths: Tensor, mask: Tensor, bandwidth: float | None = None, ridge: float = RIDGE
) -> Carry:
    """The carry of every coordinate of some clips.

    Args:
        joints: (N, M, T, V, C).
        lengths: (N,).
        mask: (N, M, T, V); times at which a joint is missing take no part, and carry nothing.
        bandwidth: of the kernel, as a share of the clip; None: the best of each coordinate, see
            :func:`mmcl.attacks.autoregression.best_bandwidths`.
        ridge: see :data:`RIDGE`.
    """
    one, two = torch.zeros_like(joints), torch.zeros_like(joints)
    there = mask[..., None].expand_as(joints)
    for clip, length in enumerate(lengths.tolist()):
        if not length:  # nobody is in it
            continue
        series = joints[clip, :, :length].movedim(1, -1)  # (M, V, C, T)
        known = there[clip, :, :length].movedim(1, -1)
        rows = series.reshape(-1, length).double()
        first, second = carry_of(rows, known.reshape(-1, length), bandwidth, ridge)
        one[clip, :, :length] = first.view(series.shape).movedim(-1, 1).to(joints.dtype)
        two[clip, :, :length] = second.view(series.shape).movedim(-1, 1).to(joints.dtype)
    return Carry(one, two)


def carry_of(
    series: Tensor, known: Tensor, bandwidth: float | None = None, ridge: float = 0.0
) -> tuple[Tensor, Tensor]:
    """How far a change carries over to one and two frames later, both (B, T), of series (B, T); zero at the end."""
    if series.shape[1] < 2 * FEWEST:
        return torch.zeros_like(series), torch.zeros_like(series)
    single, double = (best_coefficients(series, known, order, bandwidth, ridge) for order in (1, 2))
    return assemble(single, double)


def assemble(single: Tensor, double: Tensor) -> tuple[Tensor, Tensor]:
    """The carry from the coefficients of both orders.

    Args:
        single: (B, T-1, 1) of order 1; its first one stands in where order 2 has none.
        double: (B, T-2, 2) of order 2; row t predicts frame t + 2.

    Returns:
        (B, T) b1'(t), and b1'(t) b1(t) + b2(t), each zero where the clip ends, and where a coefficient in it is none.
    """
    one = torch.cat([single[:, :1, 0], double[..., 0], torch.zeros_like(single[:, :1, 0])], dim=1)
    two = one[:, :-2] * double[..., 0] + double[..., 1]
    return one.nan_to_num(0.0), torch.nn.functional.pad(two.nan_to_num(0.0), (0, 2))
