"""How motion carries a change of one frame into the next ones: autoregression whose coefficients vary over time.

A coordinate's series x is predicted from its own last values, x[t] = b1(t) x[t-1] (+ b2(t) x[t-2]), with no intercept.
The coefficients at a time are those of a weighted least-squares line through the neighbouring times (local linear
regression; R package tvReg, function tvAR, does the same). Time is scaled to (0, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

KERNELS: dict[str, Callable[[Tensor], Tensor]] = {
    "triweight": lambda u: (1 - u.square()).clamp(min=0) ** 3,
    "epanechnikov": lambda u: (1 - u.square()).clamp(min=0),
    "gaussian": lambda u: torch.exp(-u.square() / 2),
}
WIDEST, TRIED = 20.0, 8  # the widest bandwidth, and how many are tried
FEWEST = 5  # times that the narrowest bandwidth spans
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
        bandwidth: of the kernel, as a share of the clip; None: the best of a grid by leaving one time out at a time.
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


def best_coefficients(series: Tensor, known: Tensor, order: int, bandwidth: float | None, ridge: float) -> Tensor:
    """(B, T-p, p) coefficients with one bandwidth, or of each series with its own best one."""
    rows = series.shape[1] - order
    if bandwidth is not None:
        return coefficients(series, known, order, bandwidth, ridge=ridge)
    tried = [FEWEST / rows * (WIDEST * rows / FEWEST) ** (place / (TRIED - 1)) for place in range(TRIED)]
    errors = left_out_errors(series, known, order, tried, ridge=ridge)
    best = errors.nan_to_num(torch.inf).argmin(dim=0)  # (B,)
    found = torch.zeros(len(series), rows, order, dtype=series.dtype, device=series.device)
    for place in best.unique().tolist():
        own = best == place
        found[own] = coefficients(series[own], known[own], order, tried[place], ridge=ridge)
    return found


def left_out_errors(
    series: Tensor, known: Tensor, order: int, bandwidths: Sequence[float], kernel: str = "triweight",
    ridge: float = 0.0,
) -> Tensor:  # fmt: skip
    """(bandwidths, B) mean squared error of each time, predicted from all the others; NaN where one cannot be."""
    targets, lags, valid = _regression(series, known, order)
    errors = []
    for bandwidth in bandwidths:
        found = coefficients(series, known, order, bandwidth, kernel, ridge, leave_out=True)
        residual = torch.where(valid, targets - (lags * found).sum(dim=-1), 0.0)
        errors.append(residual.square().sum(dim=1) / valid.sum(dim=1).clamp(min=1))
    return torch.stack(errors)


def coefficients(
    series: Tensor, known: Tensor, order: int, bandwidth: float, kernel: str = "triweight", ridge: float = 0.0,
    leave_out: bool = False,
) -> Tensor:  # fmt: skip
    """Local linear coefficients of an autoregression.

    Args:
        series: (B, T) float64.
        known: (B, T) bool; rows that touch an unknown value have no weight.
        order: p.
        bandwidth: h, of the kernel, in units of the whole time.
        kernel: triweight (the default of tvReg), epanechnikov or gaussian.
        ridge: added to the diagonal, relative to its mean.
        leave_out: give each time's own row no weight.

    Returns:
        (B, T-p, p); NaN where the system cannot be solved, zero at rows that touch an unknown value.
    """
    targets, lags, valid = _regression(series, known, order)
    B, rows = targets.shape
    time = torch.arange(1, rows + 1, dtype=series.dtype, device=series.device) / rows
    away = time[None, :] - time[:, None]  # (at, row)
    weights = KERNELS[kernel](away / bandwidth)
    if leave_out:
        weights = weights * (1 - torch.eye(rows, dtype=series.dtype, device=series.device))
    columns = torch.cat([lags, targets[..., None]], dim=-1) * valid[..., None]
    products = (columns[..., :, None] * columns[..., None, :]).permute(1, 0, 2, 3).reshape(rows, -1)
    sums = [((weights * away**power) @ products).view(rows, B, order + 1, order + 1) for power in range(3)]
    left = torch.cat([torch.cat([sums[i + j][..., :order, :order] for j in (0, 1)], dim=-1) for i in (0, 1)], dim=-2)
    right = torch.cat([sums[i][..., :order, order] for i in (0, 1)], dim=-1)
    found = _solved(left, right, ridge)[..., :order]
    return torch.where(valid[..., None], found.transpose(0, 1), 0.0)


def _solved(left: Tensor, right: Tensor, ridge: float) -> Tensor:
    """Solutions of small symmetric systems (…, n, n) and (…, n); NaN where one has none."""
    if ridge:
        size = left.diagonal(dim1=-2, dim2=-1).mean(dim=-1)[..., None, None]
        left = left + ridge * size * torch.eye(left.shape[-1], dtype=left.dtype, device=left.device)
    found, wrong = torch.linalg.solve_ex(left, right)
    found = torch.where((wrong == 0)[..., None], found, torch.nan)
    return torch.where(found.isfinite(), found, torch.nan)


def _regression(series: Tensor, known: Tensor, order: int) -> tuple[Tensor, Tensor, Tensor]:
    """Targets (B, T-p), their lags 1 to p (B, T-p, p), and which rows touch known values alone (B, T-p)."""
    T = series.shape[1]
    lags = torch.stack([series[:, order - lag : T - lag] for lag in range(1, order + 1)], dim=-1)
    seen = torch.stack([known[:, order - lag : T - lag] for lag in range(order + 1)], dim=-1)
    return series[:, order:], lags, seen.all(dim=-1)
