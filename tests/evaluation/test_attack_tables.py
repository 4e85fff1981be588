"""Rates and intervals of attacks against plain loops."""

from __future__ import annotations

import numpy as np
import pytest

from mmcl.evaluation.attack_tables import cell_of, interval, rate_of, resampled, summaries
from mmcl.evaluation.reporting.attack_page import draw_curves

NAN = np.nan


def test_rates_count_what_counts() -> None:
    values = np.array([[[1.0, 0.0, NAN, 1.0], [0.0, NAN, NAN, 1.0]], [[NAN, NAN, 1.0, 1.0], [1.0, NAN, NAN, 1.0]]])
    assert rate_of(values) == pytest.approx((3 / 5 + 1.0) / 2)
    looks = {"bone": 0.1, "acceleration": 0.2, "position": 0.3, "largest": 0.4}
    cell = cell_of("a", 0.1, "x", "y", values[0], looks)
    assert (cell.success, cell.clips, cell.runs, cell.bone) == (pytest.approx(3 / 5), 5, 2, 0.1)
    assert cell_of("a", 0.1, "x", "y", np.full((2, 3), NAN), looks).success is None


def test_draws_are_those_of_a_loop_over_runs_and_clips() -> None:
    generator = np.random.default_rng(3)
    values = (generator.random((2, 3, 40)) < 0.4).astype(float)
    values[generator.random(values.shape) < 0.3] = NAN
    found = resampled(values, 4000)
    naive = []
    for _ in range(2000):
        runs, clips = generator.integers(3, size=3), generator.integers(40, size=40)
        naive.append(np.mean([np.nanmean(pair[np.ix_(runs, clips)]) for pair in values]))
    assert found.mean() == pytest.approx(rate_of(values), abs=0.01)
    assert np.std(found) == pytest.approx(np.std(naive), rel=0.1)
    middle, low, high = interval(found, rate_of(values))
    assert low < middle < high and high - low == pytest.approx(3.92 * np.std(naive), rel=0.15)


def test_a_summary_separates_itself_from_others_and_pairs_the_differences() -> None:
    generator = np.random.default_rng(0)
    base = (generator.random((2, 60)) < 0.3).astype(float)
    better = np.maximum(base, (generator.random(base.shape) < 0.3).astype(float))
    arrays = {f"{attack} 0.01 {pair}": values
              for attack, values in (("ifgsm", base), ("tasar", better)) for pair in ("a > b", "b > a")}  # fmt: skip
    arrays |= {f"{attack} 0.01 {name} > {name}": np.ones((2, 60)) for attack in ("ifgsm", "tasar") for name in "ab"}
    arrays |= {"ifgsm 0.015 a > a": np.zeros((2, 60)), "ifgsm 0.015 a > b": np.zeros((2, 60))}
    first, second = summaries(arrays, ("ifgsm", "tasar"), (0.01,))
    smoothed = {key.replace(" > ", ", smoothed 2 > ") + ", smoothed 2": 0 * values for key, values in arrays.items()}
    through = {"ifgsm 0.01 a > a, smoothed 2": np.full((2, 60), NAN), "tasar 0.01 a, smoothed 2 > a": np.ones((2, 60))}
    every = summaries({**smoothed, **through, **arrays}, ("ifgsm", "tasar"), (0.01,))  # no self, and no other model
    assert every[:2] == [first, second] and every[2].itself["rate"] == 0 and every[3].others["rate"] == 0
    assert [one.row["attack"] for one in every[2:]] == ["ifgsm, smoothed 2", "tasar, smoothed 2"]
    assert first.itself == {"rate": 1.0, "low": 1.0, "high": 1.0} and first.gain is None
    assert first.others["rate"] == pytest.approx(base.mean()) and second.others["rate"] == pytest.approx(better.mean())
    assert second.gain["rate"] == pytest.approx(better.mean() - base.mean()) and second.gain["low"] > 0
    apart = np.hypot(*(one.others["high"] - one.others["low"] for one in (first, second)))
    assert second.gain["high"] - second.gain["low"] < 0.9 * apart  # paired: narrower than of two independent rates
    assert second.row["less_first_low"] == second.gain["low"] and first.row["less_first"] is None


def test_pairs_without_a_clip_that_both_know_are_left_out(tmp_path) -> None:
    """Of one pair alone nothing is said; a difference is of pairs that both attacks have."""
    none, some = np.full((1, 4), NAN), np.array([[1.0, 0.0, NAN, 1.0]])
    arrays = {f"ifgsm 0.01 a > {name}": values for name, values in (("a", some), ("b", none))}
    (alone,) = summaries(arrays, ("ifgsm",), (0.01,))
    assert alone.others is None and alone.row["others"] is None and alone.itself["rate"] == pytest.approx(2 / 3)
    arrays |= {"ifgsm 0.01 a > c": some, "mifgsm 0.01 a > a": some, "mifgsm 0.01 a > b": 0 * some,
               "mifgsm 0.01 a > c": np.ones((1, 4)) + 0 * some}  # fmt: skip
    first, second = summaries(arrays, ("ifgsm", "mifgsm"), (0.01,))
    assert first.others["rate"] == pytest.approx(2 / 3) and second.others["rate"] == pytest.approx(0.5)
    assert second.gain["rate"] == pytest.approx(1 / 3)
    draw_curves(tmp_path / "curves.png", [one.row for one in (alone, second)])
    assert (tmp_path / "curves.png").stat().st_size > 2000
