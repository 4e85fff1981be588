"""How many seeds it would take to show a difference: the power of a paired t-test on differences of seeds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmcl.evaluation.compare import ROUNDING
from mmcl.studies.statistics import Row

POINT = 0.01  # the difference that is asked about, a fraction of 1
ALPHA, POWER = 0.05, 0.8  # two-sided
LEAST = 3  # paired seeds that a deviation is taken from
MOST = 100_000  # seeds


def paired_power(effect: float, seeds: int, alpha: float = ALPHA) -> float:
    """The chance that a paired t-test shows a difference.

    The test's statistic follows the noncentral t distribution with n - 1 degrees of freedom and noncentrality
    effect * sqrt(n) (Cohen, Statistical Power Analysis for the Behavioral Sciences, 1988, chapter 2).

    Args:
        effect: the true mean of the differences in standard deviations of the differences (d_z), not negative.
        seeds: n, at least 2.
        alpha: two-sided level.
    """
    from scipy.stats import nct, t

    freedom, centre = seeds - 1, effect * np.sqrt(seeds)
    bound = t.ppf(1 - alpha / 2, freedom)
    return float(nct.sf(bound, freedom, centre) + nct.cdf(-bound, freedom, centre))


def seeds_needed(deviation: float, difference: float = POINT, alpha: float = ALPHA, power: float = POWER) -> int | None:
    """The fewest seeds with which a paired t-test shows a difference with a chance of ``power``.

    Args:
        deviation: standard deviation of the paired differences, above 0.
        difference: their true mean, in the same unit.
        alpha: two-sided level.
        power: wanted chance.

    Returns:
        At least 2; None where it would be more than :data:`MOST`.
    """
    effect, low, high = difference / deviation, 1, 2
    while paired_power(effect, high, alpha) < power:
        low, high = high, 2 * high
        if high > MOST:
            return None
    while high - low > 1:  # enough with `high`, too few with `low`
        middle = (low + high) // 2
        low, high = (low, middle) if paired_power(effect, middle, alpha) >= power else (middle, high)
    return high


def deviation_interval(deviation: float, count: int) -> tuple[float, float]:
    """95 % interval of the deviation that was estimated from ``count`` normal numbers."""
    from scipy.stats import chi2

    low, high = chi2.ppf([0.025, 0.975], count - 1)
    return deviation * float(np.sqrt((count - 1) / high)), deviation * float(np.sqrt((count - 1) / low))


def power_sentences(rows: Sequence[Row]) -> list[str]:
    """For each arm with enough seeds in common with the baseline: how many a difference of one point takes."""
    return [f"{row.arm}: {_sentence(row.paired)}" for row in rows if len(row.paired) >= LEAST]


def _sentence(differences: Sequence[float]) -> str:
    count, deviation = len(differences), float(np.std(differences, ddof=1))
    if deviation < ROUNDING:
        return (
            f"paired differences of {count} seeds are all the same, which does not tell how many seeds a difference of "
            "1 point takes."
        )
    low, high = deviation_interval(deviation, count)
    return (
        f"to show a difference of 1 point takes {_seeds(deviation)} seeds (paired t-test, {ALPHA:.0%} two-sided, power "
        f"{POWER:.0%}). Paired differences of {count} seeds deviate by {100 * deviation:.2f} points, 95 % interval "
        f"{100 * low:.2f} to {100 * high:.2f}, which is {_seeds(low)} to {_seeds(high)} seeds."
    )


def _seeds(deviation: float) -> str:
    found = seeds_needed(deviation)
    return f"more than {MOST:,}" if found is None else f"{found:,}"
