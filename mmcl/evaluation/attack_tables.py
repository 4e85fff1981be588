"""Success of attacks as rates with intervals, over seeds and clips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

RESAMPLES = 1000
ARROW = " > "  # between surrogate and target in a key
SMOOTHED = ", smoothed "  # in the name of a model behind input smoothing


@dataclass(frozen=True)
class Cell:
    """One attack from one model to one model; shares of 1.

    Attributes:
        attack: its name.
        epsilon: its budget.
        surrogate: the model that was attacked.
        target: the model that was judged.
        success: share of the clips that both answer right when clean and on which the target errs now.
        low, high: 95 % interval of it.
        clips: how many such clips there were, over all runs.
        runs: seeds of models and attacks together.
        bone, acceleration, position, largest: means, see :func:`mmcl.attacks.measures.measures`.
    """

    attack: str
    epsilon: float
    surrogate: str
    target: str
    success: float | None
    low: float | None
    high: float | None
    clips: int
    runs: int
    bone: float
    acceleration: float
    position: float
    largest: float


@dataclass(frozen=True)
class Summary:
    """One attack at one budget over all pairs of models behind the same defence.

    Attributes:
        attack: its name.
        epsilon: its budget.
        itself: rate on the attacked models themselves, with its interval.
        others: mean rate over all pairs of different models for which a clip counts, with its interval; None where
            there is no such pair.
        gain: the same less the first attack's, over pairs that count for both, with its interval; None for that one,
            and where there is no such pair.
        defence: behind which both models of a pair stand, as names of models end with it; empty for none.
    """

    attack: str
    epsilon: float
    itself: dict[str, float]
    others: dict[str, float] | None
    gain: dict[str, float] | None
    defence: str = ""

    @property
    def row(self) -> dict[str, Any]:
        """For a report's table."""
        row: dict[str, Any] = {"attack": self.attack + self.defence, "epsilon": self.epsilon}
        for name, found in (("itself", self.itself), ("others", self.others), ("less_first", self.gain)):
            row |= {name: None, f"{name}_low": None, f"{name}_high": None}
            if found is not None:
                row |= {name: found["rate"], f"{name}_low": found["low"], f"{name}_high": found["high"]}
        return row


def cell_of(
    attack: str, epsilon: float, surrogate: str, target: str, values: np.ndarray, looks: Mapping[str, float]
) -> Cell:
    """The cell of one pair; ``values`` (runs, n) are 1 for success, 0 for none, NaN where a clip does not count."""
    counted = int((~np.isnan(values)).sum())
    rate, low, high = (None, None, None) if not counted else interval(resampled(values[None]), rate_of(values[None]))
    return Cell(attack, epsilon, surrogate, target, rate, low, high, counted, len(values), **looks)


def summaries(arrays: Mapping[str, np.ndarray], attacks: Sequence[str], epsilons: Sequence[float]) -> list[Summary]:
    """All attacks and budgets, from arrays (runs, n) by ``"ATTACK EPSILON SURROGATE > TARGET"``.

    Models behind a defence have rows of their own: a model and its defended self are no two models.
    """
    found = []
    defences = dict.fromkeys(_defence(key.rpartition(ARROW)[2]) for key in arrays)
    for epsilon, defence in product(epsilons, sorted(defences, key=bool)):
        first: dict[str, np.ndarray] = {}
        for attack in attacks:
            own, others = _pairs(arrays, f"{attack} {epsilon:g} ", defence)
            gain = _gain(others, first)
            first = first or others
            found.append(Summary(attack, epsilon, named(*_estimate(own)),
                                 named(*_estimate(others)) if others else None, gain, defence))  # fmt: skip
    return found


def _estimate(pairs: Mapping[str, np.ndarray]) -> tuple[float, float, float]:
    """Mean rate over pairs, and its interval."""
    whole = np.stack(list(pairs.values()))
    return interval(resampled(whole), rate_of(whole))


def _gain(others: Mapping[str, np.ndarray], first: Mapping[str, np.ndarray]) -> dict[str, float] | None:
    """What an attack has more than the first one, over the pairs that count for both."""
    shared = [pair for pair in others if pair in first]
    if not shared:
        return None
    one, two = (np.stack([each[pair] for pair in shared]) for each in (others, first))
    return named(*interval(resampled(one) - resampled(two), rate_of(one) - rate_of(two)))


def _pairs(
    arrays: Mapping[str, np.ndarray], start: str, defence: str
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Success by pair, on the models themselves and on other ones, where both stand behind a defence.

    Pairs of different models for which no clip counts are left out: the two share no clip that both answer right.
    """
    own: dict[str, np.ndarray] = {}
    others: dict[str, np.ndarray] = {}
    for key, values in arrays.items():
        if key.startswith(start):
            surrogate, target = key[len(start) :].split(ARROW)
            if not _defence(surrogate) == defence == _defence(target):
                continue
            if surrogate == target:
                own[surrogate] = values
            elif not np.isnan(values).all():
                others[key[len(start) :]] = values
    return own, others


def _defence(name: str) -> str:
    """What stands before a model, out of its name."""
    _, word, deviation = name.partition(SMOOTHED)
    return word + deviation


def rate_of(values: np.ndarray) -> float:
    """Mean over pairs of the rate of each, of (pairs, runs, n) with NaN where a clip does not count."""
    return float(np.nanmean([np.nanmean(pair) if not np.isnan(pair).all() else np.nan for pair in values]))


def resampled(values: np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """(resamples,) :func:`rate_of` of runs and clips drawn with replacement, the same ones for all pairs.

    Args:
        values: (pairs, runs, n).
        resamples: how many.
        seed: of the draws; two arrays of one shape are drawn from alike.
    """
    runs, clips = values.shape[1:]
    rng = np.random.default_rng(seed)
    run_weights = rng.multinomial(runs, np.full(runs, 1 / runs), size=resamples)
    clip_weights = rng.multinomial(clips, np.full(clips, 1 / clips), size=resamples)
    counted = ~np.isnan(values)
    hits, all_ = (np.einsum("br,prn,bn->bp", run_weights, x.astype(float), clip_weights, optimize=True)
                  for x in (np.nan_to_num(values), counted))  # fmt: skip
    with np.errstate(invalid="ignore"):
        rates = np.where(all_ > 0, hits / np.maximum(all_, 1), np.nan)
    return np.nanmean(rates, axis=1) if np.isfinite(rates).any(axis=1).all() else _mean_of_known(rates)


def _mean_of_known(rates: np.ndarray) -> np.ndarray:
    """Means over pairs; draws that count no clip of any pair are left out."""
    known = rates[np.isfinite(rates).any(axis=1)]
    return np.nanmean(known, axis=1)


def interval(draws: np.ndarray, middle: float) -> tuple[float, float, float]:
    """Estimate and its 95 % percentile interval."""
    low, high = np.quantile(draws, [0.025, 0.975])
    return middle, float(low), float(high)


def named(middle: float, low: float, high: float) -> dict[str, float]:
    """An interval as a report holds it."""
    return {"rate": middle, "low": low, "high": high}
