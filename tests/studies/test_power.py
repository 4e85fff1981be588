"""How many seeds a difference takes, against published sample sizes and against simulated t-tests."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import chi2, ttest_1samp

from mmcl.studies.power import deviation_interval, paired_power, power_sentences, seeds_needed
from mmcl.studies.statistics import Row

ROW = Row("arm", 3, None, (9, 9), 0.9, 0.01, 0.0, -0.1, 0.1)


@pytest.mark.parametrize(("effect", "pairs"), [(0.2, 199), (0.3, 90), (0.4, 52), (0.5, 34), (0.8, 15)])
def test_numbers_of_pairs_are_the_published_ones(effect, pairs) -> None:
    """Paired t-test, two-sided 5 %, power 80 %: G*Power 3 (Faul et al. 2007); 52 for 0.4 in Brysbaert 2019."""
    assert seeds_needed(1.0, effect) == pairs
    assert paired_power(effect, pairs) >= 0.8 > paired_power(effect, pairs - 1)


def test_power_is_how_often_simulated_t_tests_find_the_difference() -> None:
    rng = np.random.default_rng(0)
    for effect, seeds in ((0.0, 5), (1.0, 8), (2.5, 3)):
        found = ttest_1samp(rng.normal(effect, 1, (20_000, seeds)), 0, axis=1).pvalue < 0.05
        assert found.mean() == pytest.approx(paired_power(effect, seeds), abs=4 * np.sqrt(0.25 / 20_000))


def test_the_deviation_s_interval_holds_it_95_times_in_100() -> None:
    rng = np.random.default_rng(0)
    found = rng.normal(0, 2, (20_000, 3)).std(axis=1, ddof=1)
    low, high = deviation_interval(1.0, 3)
    assert np.mean((found * low < 2) & (found * high > 2)) == pytest.approx(0.95, abs=0.01)
    assert high == pytest.approx(np.sqrt(2 / chi2.ppf(0.025, 2)))


def test_a_study_says_it_of_arms_with_three_seeds_and_of_no_others() -> None:
    rows = [ROW, replace(ROW, arm="two", paired=(0.0, 0.1)), replace(ROW, arm="three", paired=(-0.01, 0.0, 0.01))]
    (line,) = power_sentences(rows)
    assert line.startswith("three: to show a difference of 1 point takes 10 seeds") and "deviate by 1.00 points" in line
    (same,) = power_sentences([replace(ROW, paired=(0.01, 0.01, 0.01))])
    assert "all the same" in same
    assert "more than 100,000" in power_sentences([replace(ROW, paired=(-3.0, 0.0, 3.0))])[0]
