"""Generalised zero-shot: does a clip show a class that was trained, or one known by its text only?

A classifier trained on seen classes answers with one of them whatever it is shown. So a gate looks at how sure both
sides are, and decides who answers: the classifier of the seen classes, or the comparison with unseen classes' texts.
SA-DVAE (ECCV 2024) and SynSE before it: a logistic regression on both sides' sorted probabilities. It is fitted on a
*gate run*, trained without a second set of classes, pseudo-unseen ones; no clip of a really unseen class takes part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mmcl.common.errors import UserError
from mmcl.evaluation.metrics import softmax

TEMPERATURES = tuple(range(1, 10))  # that seen logits are divided by
THRESHOLDS = np.arange(25, 75) / 100  # probability of "unseen" above which the texts answer
FOLDS = 5
# The released two-class multinomial regression with C = 1 shrinks two mirrored rows of weights: a binary one with 2.
REGULARISATION = 2.0


def choices(temperature: float | None, threshold: float | None) -> tuple[tuple[float, ...], np.ndarray]:
    """Temperatures and thresholds that a gate chooses from: a given one alone, or all where None is.

    Raises:
        UserError: out of range.
    """
    if temperature is not None and temperature <= 0:
        raise UserError(f"a gate divides logits by its temperature, which is {temperature}: it must be above 0")
    if threshold is not None and not 0 <= threshold <= 1:
        raise UserError(f"a gate's threshold is a probability, and {threshold} is none")
    return (TEMPERATURES if temperature is None else (temperature,),
            THRESHOLDS if threshold is None else np.array([threshold]))  # fmt: skip


def harmonic_mean(seen: float, unseen: float) -> float:
    """Harmonic mean of two accuracies; 0 where both are. 62.28 and 70.80 -> 66.27."""
    return 2 * seen * unseen / (seen + unseen) if seen + unseen else 0.0


@dataclass(frozen=True)
class Gate:
    """A fitted gate.

    Attributes:
        width: probabilities of each side that it looks at, the highest ones.
        temperature: that seen logits are divided by before their softmax.
        threshold: a clip is taken for unseen where P(unseen) is above it. One rule, for fitting and for use: the
            released code fits "unseen if P(unseen) > t" and applies "seen if P(seen) > t", which agree at 0.5 only.
        model: scikit-learn's logistic regression, class 1 = unseen.
        calibration: seen and unseen accuracy, and their harmonic mean, on the clips it was fitted on, each judged by
            a regression that was fitted without it.
        clips: how many it was fitted on, half of them of unseen classes.
    """

    width: int
    temperature: float
    threshold: float
    model: Any
    calibration: dict[str, float]
    clips: int

    @classmethod
    def fit(
        cls, seen_scores: np.ndarray, unseen_scores: np.ndarray, labels: np.ndarray, seed: int = 0,
        temperatures: tuple[float, ...] = TEMPERATURES, thresholds: np.ndarray = THRESHOLDS,
    ) -> Gate:  # fmt: skip
        """Fit on the calibration clips of a gate run.

        Of the larger side as many clips are drawn as the smaller has. Temperature and threshold are those with the
        highest harmonic mean when each fold is judged by a regression on the others; the nearest to 1 and to 0.5 where
        several are equal.

        Args:
            seen_scores: (n, S) logits of the classifier over the classes that the gate run was trained on.
            unseen_scores: (n, U) cosines with the pseudo-unseen classes' texts, divided by their temperature.
            labels: (n,) positions among all classes, the S seen ones first.
            seed: of the draw and of the folds.
            temperatures: to choose from.
            thresholds: to choose from.

        Raises:
            UserError: fewer than two clips of a side, so that there is nothing to fit on.
        """
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import StratifiedKFold, cross_val_predict

        clips = _balanced(labels >= seen_scores.shape[1], np.random.default_rng(seed))
        seen_scores, unseen_scores, labels = seen_scores[clips], unseen_scores[clips], labels[clips]
        is_unseen = labels >= seen_scores.shape[1]
        right = _right(seen_scores, unseen_scores, labels)
        width = min(seen_scores.shape[1], unseen_scores.shape[1])
        folds = StratifiedKFold(min(FOLDS, int(is_unseen.sum())), shuffle=True, random_state=seed)
        best: tuple[tuple[float, float, float], Gate] | None = None
        for temperature in temperatures:
            features = _features(seen_scores, unseen_scores, width, temperature)
            model = LogisticRegression(C=REGULARISATION, max_iter=10000)
            chances = cross_val_predict(model, features, is_unseen, cv=folds, method="predict_proba")[:, 1]
            for threshold in thresholds:
                sides = _sides(chances > threshold, is_unseen, right)
                rank = (sides["harmonic"], -float(temperature), -abs(threshold - 0.5))
                if best is None or rank > best[0]:
                    best = rank, cls(width, float(temperature), float(threshold), model, sides, len(clips))
        assert best is not None  # the grid is not empty
        gate = best[1]
        gate.model.fit(_features(seen_scores, unseen_scores, width, gate.temperature), is_unseen)
        return gate

    @property
    def facts(self) -> dict[str, float]:
        """What a report says of it."""
        return {
            "fitted_on": self.clips, **self.calibration, "temperature": self.temperature, "threshold": self.threshold
        }  # fmt: skip

    def route(self, seen_scores: np.ndarray, unseen_scores: np.ndarray) -> np.ndarray:
        """Which clips are taken for unseen: (n, S) and (n, U) scores, as :meth:`fit` takes them -> (n,) bool.

        S and U may differ from those of the gate run. The gate looks at as many of the highest probabilities as it was
        fitted on; a class that is not there counts as one with probability 0.
        """
        features = _features(seen_scores, unseen_scores, self.width, self.temperature)
        return self.model.predict_proba(features)[:, 1] > self.threshold


def generalised(
    seen_scores: np.ndarray, unseen_scores: np.ndarray, labels: np.ndarray, gate: Gate | None
) -> dict[str, float]:
    """Judge clips of seen and unseen classes among all classes.

    Args:
        seen_scores: (n, S).
        unseen_scores: (n, U).
        labels: (n,) positions among all classes, the S seen ones first.
        gate: who decides which side answers; None: the highest of all S + U scores wins, which must then be of one
            kind (cosines with texts).

    Returns:
        seen, unseen: accuracy over the clips of seen and of unseen classes; harmonic: their harmonic mean;
        unseen_share: share of all clips that were answered with an unseen class. Fractions of 1.

    Raises:
        UserError: there are no clips of one side.
    """
    is_unseen = labels >= seen_scores.shape[1]
    if is_unseen.all() or not is_unseen.any():
        raise UserError("generalised zero-shot needs clips of seen and of unseen classes: only one kind is here")
    to_unseen = (
        unseen_scores.max(axis=1) > seen_scores.max(axis=1) if gate is None else gate.route(seen_scores, unseen_scores)
    )
    sides = _sides(to_unseen, is_unseen, _right(seen_scores, unseen_scores, labels))
    return {**sides, "unseen_share": float(to_unseen.mean())}


def _features(seen_scores: np.ndarray, unseen_scores: np.ndarray, width: int, temperature: float) -> np.ndarray:
    """(n, 2 width): the highest unseen probabilities, then the highest seen ones, each in falling order."""
    return np.concatenate(
        [_highest(softmax(unseen_scores), width), _highest(softmax(seen_scores / temperature), width)], 1
    )


def _highest(chances: np.ndarray, width: int) -> np.ndarray:
    top = -np.sort(-chances, axis=1)[:, :width]
    return np.pad(top, ((0, 0), (0, width - top.shape[1])))


def _right(seen_scores: np.ndarray, unseen_scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(n,) bool: the side that a clip belongs to would answer it right."""
    seen = seen_scores.shape[1]
    answers = np.where(labels < seen, seen_scores.argmax(axis=1), seen + unseen_scores.argmax(axis=1))
    return answers == labels


def _sides(to_unseen: np.ndarray, is_unseen: np.ndarray, right: np.ndarray) -> dict[str, float]:
    hit = right & (to_unseen == is_unseen)
    seen, unseen = float(hit[~is_unseen].mean()), float(hit[is_unseen].mean())
    return {"seen": seen, "unseen": unseen, "harmonic": harmonic_mean(seen, unseen)}


def _balanced(is_unseen: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Positions of equally many clips of both sides, ascending."""
    sides = [np.flatnonzero(~is_unseen), np.flatnonzero(is_unseen)]
    smaller = min(map(len, sides))
    if smaller < 2:
        raise UserError(
            f"the gate is fitted on clips of both sides, at least two each: the gate run's calibration clips are "
            f"{len(sides[0])} of seen and {len(sides[1])} of pseudo-unseen classes"
        )
    return np.sort(np.concatenate([rng.choice(side, smaller, replace=False) for side in sides]))
