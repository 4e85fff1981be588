"""Autoregression whose coefficients vary over time.

A series x is predicted from its own last values, x[t] = b1(t) x[t-1] (+ b2(t) x[t-2]), with no intercept. The
coefficients at a time are those of a weighted least-squares line through the neighbouring times (local linear
regression; R package tvReg, function tvAR, does the same). Time is scaled to (0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

KERNELS: dict[str, Callable[[Tensor], Tensor]] = {
    "triweight": lambda u: (1 - u.square()).clamp(min=0) ** 3,
    "epanechnikov": lambda u: (1 - u.square()).clamp(min=0),
    "gaussian": lambda u: torch.exp(-u.square() / 2),
}
WIDEST, TRIED = 20.0, 16  # the widest bandwidth, and how many are tried before the best one is refined
SECTIONS, GOLDEN = 4, (5**0.5 - 1) / 2  # refinements, each of which leaves so much of the interval
AT_ONCE = 1 << 20  # weights of a pair of times that are held at a time
FEWEST = 5  # times that the narrowest bandwidth spans


def best_coefficients(series: Tensor, known: Tensor, order: int, bandwidth: float | None, ridge: float) -> Tensor:
    """(B, T-p, p) coefficients with one bandwidth, or of each series with its own best one."""
    if bandwidth is not None:
        return coefficients(series, known, order, bandwidth, ridge=ridge)
    parts = _parts(series, known, best_bandwidths(series, known, order, ridge))
    return torch.cat([coefficients(rows, there, order, width, ridge=ridge) for rows, there, width in parts])


def best_bandwidths(series: Tensor, known: Tensor, order: int, ridge: float = 0.0) -> Tensor:
    """(B,) bandwidths of least error where one time is left out: the best of a grid, then golden sections beside it.

    The package tvReg searches the same interval, from :data:`FEWEST` times to :data:`WIDEST`, by Brent's method.
    """
    first, last = math.log(FEWEST / (series.shape[1] - order)), math.log(WIDEST)
    grid = torch.linspace(first, last, TRIED, dtype=series.dtype, device=series.device)
    errors = left_out_errors(series, known, order, grid.exp(), ridge=ridge).nan_to_num(torch.inf)
    least, place = errors.min(dim=0)
    low, high = grid[(place - 1).clamp(min=0)], grid[(place + 1).clamp(max=TRIED - 1)]
    refined = []
    for rows, there, start, end in _parts(series, known, low, high):
        errors_at = partial(left_out_errors, rows, there, order, ridge=ridge)
        refined.append(_refined(errors_at, start, end))
    found, error = (torch.cat(values) for values in zip(*refined, strict=True))
    return torch.where(error < least, found, grid[place]).exp()


def _parts(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Tensors of as many series, the first of them (B, T), in parts whose weights of pairs of times can be held."""
    some = max(1, AT_ONCE // tensors[0].shape[1] ** 2)
    return zip(*(tensor.split(some) for tensor in tensors), strict=True)


def _refined(errors: Callable[[Tensor], Tensor], low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """(B,) logarithm of the bandwidth of least error between two, by golden sections, and (B,) that error."""
    inner = torch.stack([high - GOLDEN * (high - low), low + GOLDEN * (high - low)])
    found = errors(inner.exp()).nan_to_num(torch.inf)
    for _ in range(SECTIONS):
        left = found[0] <= found[1]
        low, high = torch.where(left, low, inner[0]), torch.where(left, inner[1], high)
        new = torch.where(left, high - GOLDEN * (high - low), low + GOLDEN * (high - low))
        error = errors(new[None].exp())[0].nan_to_num(torch.inf)
        inner = torch.where(left, torch.stack([new, inner[0]]), torch.stack([inner[1], new]))
        found = torch.where(left, torch.stack([error, found[0]]), torch.stack([found[1], error]))
    return torch.where(found[0] <= found[1], inner[0], inner[1]), found.min(dim=0).values


def left_out_errors(
    series: Tensor, known: Tensor, order: int, bandwidths: Sequence[float] | Tensor, kernel: str = "triweight",
    ridge: float = 0.0,
) -> Tensor:  # fmt: skip
    """(bandwidths, B) mean squared error of each time, predicted from all the others; NaN where one cannot be.

    Bandwidths are numbers, or a row for each series (bandwidths, B).
    """
    targets, lags, valid = _regression(series, known, order)
    errors = []
    for bandwidth in bandwidths:
        found = coefficients(series, known, order, bandwidth, kernel, ridge, leave_out=True)
        residual = torch.where(valid, targets - (lags * found).sum(dim=-1), 0.0)
        errors.append(residual.square().sum(dim=1) / valid.sum(dim=1).clamp(min=1))
    return torch.stack(errors)


def coefficients(
    series: Tensor, known: Tensor, order: int, bandwidth: float | Tensor, kernel: str = "triweight",
    ridge: float = 0.0, leave_out: bool = False,
) -> Tensor:  # fmt: skip
    """Local linear coefficients of an autoregression.

    Args:
        series: (B, T) float64.
        known: (B, T) bool; rows that touch an unknown value have no weight.
        order: p.
        bandwidth: h, of the kernel, in units of the whole time: of all series, or (B,) of each.
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
    width = torch.as_tensor(bandwidth, dtype=series.dtype, device=series.device)[..., None, None]
    weights = KERNELS[kernel](away / width)  # (at, row), or (B, at, row)
    if leave_out:
        weights = weights * (1 - torch.eye(rows, dtype=series.dtype, device=series.device))
    columns = torch.cat([lags, targets[..., None]], dim=-1) * valid[..., None]
    products = (columns[..., :, None] * columns[..., None, :]).flatten(2)  # (B, row, (p + 1)^2)
    if weights.dim() == 2:  # one product for all series
        products = products.transpose(0, 1).flatten(1)
    sums = []
    for _ in range(3):  # with away to the power 0, 1 and 2
        found = weights @ products
        found = found if weights.dim() == 3 else found.unflatten(1, (B, -1)).transpose(0, 1)
        sums.append(found.unflatten(2, (order + 1, order + 1)))
        weights = weights * away
    left = torch.cat([torch.cat([sums[i + j][..., :order, :order] for j in (0, 1)], dim=-1) for i in (0, 1)], dim=-2)
    right = torch.cat([sums[i][..., :order, order] for i in (0, 1)], dim=-1)
    found = _solved(left, right, ridge)[..., :order]
    return torch.where(valid[..., None], found, 0.0)


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
