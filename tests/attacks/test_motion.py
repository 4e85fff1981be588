"""Time-varying autoregression against plain least squares, one window at a time, and the golden folder's own fits."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from attacks.stand_in import clips
from golden import check_double, load_doubles
from torch import Tensor

from mmcl.attacks.autoregression import FEWEST, WIDEST, best_bandwidths, coefficients, left_out_errors
from mmcl.attacks.motion import Carry, assemble, carried, fit_motion


def naive_coefficients(
    series: np.ndarray, order: int, at: int, bandwidth: float, skip: int | None = None
) -> np.ndarray:
    """A weighted least-squares line at one time: rows as NumPy solves them, (p,)."""
    rows = len(series) - order
    system, targets = [], []
    for row in range(rows):
        away = (row - at) / rows
        weight = max(0.0, 1 - (away / bandwidth) ** 2) ** 3
        if row == skip or not weight:
            continue
        lags = [series[order + row - lag] for lag in range(1, order + 1)]
        system.append([np.sqrt(weight) * value for value in [*lags, *[lag * away for lag in lags]]])
        targets.append(np.sqrt(weight) * series[order + row])
    return np.linalg.lstsq(np.array(system), np.array(targets), rcond=None)[0][:order]


@pytest.mark.parametrize("order", [1, 2])
def test_coefficients_are_those_of_weighted_least_squares(order: int) -> None:
    series = torch.randn(3, 25, dtype=torch.float64, generator=torch.Generator().manual_seed(order)).cumsum(dim=1)
    known = torch.ones(3, 25, dtype=torch.bool)
    found = coefficients(series, known, order, 0.4)
    for row in range(3):
        naive = [naive_coefficients(series[row].numpy(), order, at, 0.4) for at in range(25 - order)]
        np.testing.assert_allclose(found[row].numpy(), np.stack(naive), rtol=1e-6, atol=1e-8)
    left = left_out_errors(series, known, order, [0.4])[0]
    for row in range(3):
        errors = []
        for at in range(25 - order):
            own = naive_coefficients(series[row].numpy(), order, at, 0.4, skip=at)
            lags = [float(series[row, order + at - lag]) for lag in range(1, order + 1)]
            errors.append((float(series[row, order + at]) - float(own @ lags)) ** 2)
        assert float(left[row]) == pytest.approx(np.mean(errors), rel=1e-6)


def test_unknown_times_take_no_part() -> None:
    """A gap filled with nonsense changes nothing elsewhere, and carries nothing itself."""
    series = torch.randn(1, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(5)).cumsum(dim=1)
    known = torch.ones(1, 30, dtype=torch.bool)
    known[0, 12:15] = False
    nonsense = series.clone()
    nonsense[0, 12:15] = 1e3
    one, two = (coefficients(x, known, 2, 0.5, ridge=1e-9) for x in (series, nonsense))
    torch.testing.assert_close(one, two)
    assert not one[0, 10:15].any() and one[0, :10].all() and one[0, 15:].all()


def test_the_motions_share_is_the_gradient_through_a_roll_out() -> None:
    """L(x[t], x[t+1](x[t]), x[t+2](x[t])) with both later frames written as what the autoregression makes of them."""
    generator = torch.Generator().manual_seed(1)
    T, cotangent = 6, torch.randn(1, 1, 6, 2, 3, dtype=torch.float64, generator=generator)
    single = torch.randn(6, T - 1, 1, dtype=torch.float64, generator=generator)
    double = torch.randn(6, T - 2, 2, dtype=torch.float64, generator=generator)
    one, two = (part.view(1, 1, 2, 3, T).movedim(-1, 2) for part in assemble(single, double))
    found = carried(cotangent, Carry(one, two))
    for t in range(T):
        x = torch.zeros(6, dtype=torch.float64, requires_grad=True)
        later = x * (single[:, 0, 0] if t == 0 else double[:, t - 1, 0]) if t + 1 < T else None
        total = torch.zeros((), dtype=torch.float64)
        if later is not None:
            total = total + (later * cotangent[0, 0, t + 1].flatten()).sum()
        if t + 2 < T:
            after = double[:, t, 0] * later + double[:, t, 1] * x
            total = total + (after * cotangent[0, 0, t + 2].flatten()).sum()
        expected = torch.autograd.grad(total, x)[0] if total.requires_grad else torch.zeros(6, dtype=torch.float64)
        torch.testing.assert_close(found[0, 0, t].flatten(), expected)


def test_a_motion_that_follows_a_rule_is_recognised_and_padding_carries_nothing() -> None:
    """x[t] = 1.6 x[t-1] - 0.8 x[t-2]: a change carries over by 1.6, then by 1.6 * 1.6 - 0.8."""
    rows = [1.0, 1.5]
    for _ in range(38):
        rows.append(1.6 * rows[-1] - 0.8 * rows[-2])
    joints = torch.zeros(1, 1, 50, 2, 3, dtype=torch.float64)
    joints[0, 0, :40] = torch.tensor(rows, dtype=torch.float64)[:, None, None] * torch.tensor([1.0, 2.0, -1.5])
    mask = joints.abs().sum(dim=-1) > 0
    mask[0, 0, :, 1] = False
    carry = fit_motion(joints, torch.tensor([40]), mask)
    for part, expected in ((carry.one, 1.6), (carry.two, 1.76)):
        found = part[0, 0, 1:38, 0]
        torch.testing.assert_close(found, torch.full_like(found, expected), rtol=0, atol=3e-3)
    assert not carry.one[0, 0, 40:].any() and not carry.one[0, 0, :, 1].any() and not carry.two[0, 0, :, 1].any()


def test_fits_of_the_golden_folder() -> None:
    arrays = load_doubles("tasar", "tvar_own_derivation")
    series, widths = arrays["in/series"], arrays["in/bandwidths"].tolist()
    known = torch.ones(series.shape, dtype=torch.bool)
    cases = [found for key in arrays if (found := re.fullmatch(r"(own_derivation/(\w+)/p(\d+))/coefficients", key))]
    assert cases and any(f"{case[1]}/cv_curve" in arrays for case in cases)
    for key, kernel, order in ((case[1], case[2], int(case[3])) for case in cases):
        found = torch.stack([coefficients(series, known, order, width, kernel) for width in widths], dim=1)
        check_double(found, arrays[f"{key}/coefficients"], key, 1e-8)
        errors = left_out_errors(series, known, order, widths, kernel).T
        check_double(errors, arrays[f"{key}/leave_one_out_mse"], key, 1e-8)
        if f"{key}/cv_curve" in arrays:
            grid = arrays[f"{key}/cv_grid"]
            curve = left_out_errors(series, known, order, grid[::6].tolist(), kernel).T
            expected = arrays[f"{key}/cv_curve"][:, ::6]
            defined = expected != -1
            assert bool(defined.any(dim=1).all()) and bool((expected[defined] > 0).all())
            torch.testing.assert_close(curve[defined], expected[defined], rtol=1e-5, atol=0)
        if kernel == "triweight" and f"{key}/bandwidth_at_grid_minimum" in arrays:
            compare_bandwidths(series, order, arrays[f"{key}/cv_grid"], arrays[f"{key}/bandwidth_at_grid_minimum"])


def compare_bandwidths(series: Tensor, order: int, grid: Tensor, least: Tensor) -> None:
    """Ours predict what is left out as well as the best of a fine grid; the interval's ends are the grid's.

    Where two bandwidths far apart are almost as good, ours may be the other one.
    """
    known = torch.ones(series.shape, dtype=torch.bool)
    ends = torch.tensor([FEWEST / (series.shape[1] - order), WIDEST], dtype=torch.float64)
    torch.testing.assert_close(grid[[0, -1]], ends)
    found = best_bandwidths(series, known, order)
    assert bool((found >= ends[0] * (1 - 1e-9)).all()) and bool((found <= ends[1] * (1 + 1e-9)).all())
    ours, best = left_out_errors(series, known, order, torch.stack([found, least]))
    assert bool((ours <= 1.02 * best).all()), (ours / best).tolist()
    assert bool((ours <= 1.0005 * best).double().mean() > 0.5)


def test_bandwidths_are_refined_beyond_the_grid_for_each_series_alone() -> None:
    """The least of a curve of 2000 bandwidths, within what is left of the interval; whatever the other series are."""
    series = torch.randn(7, 60, dtype=torch.float64, generator=torch.Generator().manual_seed(3)).cumsum(dim=1)
    known = torch.ones(series.shape, dtype=torch.bool)
    found = best_bandwidths(series, known, 2)
    fine = torch.logspace(*torch.tensor([FEWEST / 58, WIDEST]).log10().tolist(), 2000, dtype=torch.float64)
    curve = left_out_errors(series, known, 2, fine).nan_to_num(torch.inf)
    ours = left_out_errors(series, known, 2, found[None])[0]
    assert bool((ours <= 1.0005 * curve.min(dim=0).values).all())
    torch.testing.assert_close(found[:2], best_bandwidths(series[:2], known[:2], 2))
    one, two = (coefficients(series, known, 2, width) for width in (0.4, torch.full((7,), 0.4).double()))
    torch.testing.assert_close(one, two)


def test_the_carry_is_assembled_as_released() -> None:
    arrays = load_doubles("tasar", "ar_assembly")
    (name,) = [key.removeprefix("in/") for key in arrays if key.startswith("in/clips_")]
    series = clips(arrays[f"in/{name}"]).movedim(2, -1)  # (N, M, V, C, T)
    known = torch.ones(series.shape[-1], dtype=torch.bool)
    width = float(arrays["in/bandwidth_used_for_the_given_coefficients"])

    def both(rows: Tensor) -> tuple[Tensor, Tensor]:
        seen = known.expand(rows.shape)
        return assemble(coefficients(rows, seen, 1, width), coefficients(rows, seen, 2, width))

    rows = series.reshape(-1, series.shape[-1])
    for key, part in zip(("AR1_aligned_first_lag", "AR2_two_step"), both(rows), strict=True):
        expected = clips(arrays[f"out/{key}_{name}"])
        # Released clips have 60 frames: coefficients of shorter ones begin again behind their end, longer ones are cut.
        frames = torch.arange(expected.shape[2]) % series.shape[-1]
        check_double(part.view(series.shape).movedim(-1, 2)[:, :, frames], expected, key, 1e-8)
    given = [key for key in arrays if key.startswith("given/")]
    assert len(given) == 2 * series.shape[3]  # of every axis, for one lag and for two
    for key in given:  # the coefficients of the first series themselves
        axis, order = (int(number) for number in re.fullmatch(r"given/coord(\d+)/p(\d+)", key).groups())
        found = coefficients(series[0, 0, 0, axis][None], known[None], order, width)[0]
        check_double(found, arrays[key], key, 1e-8)


def test_what_has_no_coefficient_carries_nothing() -> None:
    """As in the released code, the sum of both ways is zero where a part of it is NaN, and not the other part."""
    generator = torch.Generator().manual_seed(4)
    single, double = (torch.randn(1, 12 - p, p, dtype=torch.float64, generator=generator) for p in (1, 2))
    whole = assemble(single, double)
    double[0, 4] = torch.nan
    found = assemble(single, double)
    for expected, part, empty in zip(whole, found, ([5], [4, 5]), strict=True):  # frame 5 needs b1 of row 4, too
        kept = [t for t in range(12) if t not in empty]
        assert torch.equal(part[0, kept], expected[0, kept]) and not part[0, empty].any()
    assert double[0, 5].all() and whole[1][0, [4, 5]].all()
