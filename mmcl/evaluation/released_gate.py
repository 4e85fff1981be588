"""The gate between seen and unseen classes exactly as SA-DVAE released it, for its published numbers.

``gate.py`` has the gate of this package, which judges every clip by a regression that was fitted without it and has one
rule for fitting and for use. The released scripts hold some clips out, anew for each temperature; the first of several
equally good temperatures and thresholds stays; and what was fitted as "unseen if P(unseen) > t" is applied as "seen if
P(seen) > t". Its regression is multinomial and stops early, which scikit-learn offers no longer: so it is written out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from mmcl.common.errors import UserError
from mmcl.evaluation.gate import TEMPERATURES, THRESHOLDS, harmonic_mean
from mmcl.evaluation.metrics import softmax

HELD_OUT, SHARE = 300, 6  # most clips of a side that are held out, and the largest part of it
SEED = 5
TOLERANCE, ITERATIONS = 1e-4, 50000  # largest slope at which the regression is done, and most of its iterations


class Regression(Protocol):
    """What a gate asks."""

    def predict_proba(self, x: np.ndarray) -> np.ndarray:
        """(n, D) features -> (n, 2): P(unseen) and P(seen)."""


@dataclass
class MultinomialRegression:
    """Two-class logistic regression with a row of weights for each class, as scikit-learn 1.3 fitted it with C = 1.

    Both rows are shrunk, so that their difference has the penalty of a binary regression with C = 2. But L-BFGS ends as
    soon as slopes are small, 5e-5 of a probability away from the least loss: from the same start, by the same rule and
    on the same objective, it ends where the released one did, to 2e-7.

    Attributes:
        coef_: (1, D) weights of class 1; those of class 0 are their negative, and P(1) = sigmoid(2 (x w + b)).
        intercept_: (1,), not shrunk.
    """

    coef_: np.ndarray = field(default_factory=lambda: np.zeros((1, 0)))
    intercept_: np.ndarray = field(default_factory=lambda: np.zeros(1))

    def fit(self, x: np.ndarray, y: np.ndarray) -> MultinomialRegression:
        """Fit to (n, D) features and (n,) classes 0 and 1, in float64."""
        from scipy.optimize import minimize
        from scipy.special import log_softmax

        rows, width = np.arange(len(x)), x.shape[1]

        def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
            """Sum of cross-entropies and half the squared weights, and its slope; both (2, D + 1) in columns' order."""
            both = flat.reshape(2, width + 1, order="F")
            weights, bias = both[:, :width], both[:, width]
            logs = log_softmax(x @ weights.T + bias, axis=1)
            errors = np.exp(logs)
            errors[rows, y] -= 1
            slope = np.concatenate([errors.T @ x + weights, errors.sum(0)[:, None]], axis=1)
            return float(-logs[rows, y].sum() + 0.5 * (weights**2).sum()), slope.ravel(order="F")

        options = {"gtol": TOLERANCE, "maxiter": ITERATIONS}
        found = minimize(objective, np.zeros(2 * (width + 1)), jac=True, method="L-BFGS-B", options=options).x
        last = found.reshape(2, width + 1, order="F")[1]
        self.coef_, self.intercept_ = last[None, :width], last[width:]
        return self

    def predict_proba(self, x: np.ndarray) -> np.ndarray:
        """(n, D) features -> (n, 2): P(0) and P(1)."""
        decision = x @ self.coef_[0] + self.intercept_[0]
        return softmax(np.stack([-decision, decision], axis=1))


@dataclass(frozen=True)
class ReleasedGate:
    """A fitted gate.

    Attributes:
        temperature: that seen logits are divided by before their softmax.
        threshold: of the hold-out's highest accuracy.
        model: the regression, class 1 = seen.
        accuracy: on the hold-out.
    """

    temperature: float
    threshold: float
    model: Regression
    accuracy: float

    @property
    def facts(self) -> dict[str, float]:
        """What a report says of it."""
        return {"accuracy": self.accuracy, "temperature": self.temperature, "threshold": self.threshold}

    def chances(self, unseen: np.ndarray, logits: np.ndarray) -> np.ndarray:
        """P(unseen) and P(seen), (n, 2), from (n, U) probabilities of unseen classes and (n, K) logits of all."""
        return self.model.predict_proba(gate_features(unseen, logits, self.temperature))

    def to_seen(self, unseen: np.ndarray, logits: np.ndarray) -> np.ndarray:
        """(n,) bool: whether the classifier of the seen classes answers."""
        return 1 - self.chances(unseen, logits)[:, 0] > self.threshold


def gate_features(unseen: np.ndarray, logits: np.ndarray, temperature: float) -> np.ndarray:
    """(n, 2 U): the unseen classes' probabilities, then the U highest of all classes', each in falling order."""
    width, sides = unseen.shape[1], (unseen.astype(np.float64), softmax(logits.astype(np.float64) / temperature))
    return np.concatenate([-np.sort(-part, axis=1)[:, :width] for part in sides], 1)


def fit_released_gate(
    unseen_clips: tuple[np.ndarray, np.ndarray],
    seen_clips: tuple[np.ndarray, np.ndarray],
    temperatures: tuple[float, ...] = TEMPERATURES,
    thresholds: np.ndarray = THRESHOLDS,
    seed: int = SEED,
) -> ReleasedGate:
    """Fit on clips of pseudo-unseen and of seen classes that nothing was trained on.

    Args:
        unseen_clips: (n, U) probabilities that the unseen classes' classifier gives clips of pseudo-unseen classes,
            and (n, K) logits of the seen classes' classifier.
        seen_clips: both for clips of seen classes; as many are drawn as there are of unseen ones.
        temperatures: to choose from.
        thresholds: to choose from.
        seed: of all draws, one stream.

    Raises:
        UserError: too few clips of a side to hold any out.
    """
    random = np.random.RandomState(seed)
    counts = [len(unseen_clips[0]), len(seen_clips[0])]
    if min(counts) < SHARE:
        raise UserError(
            f"the released gate holds a {SHARE}th of the clips out: {counts[0]} of pseudo-unseen and {counts[1]} of "
            "seen classes are too few; without released=true, the gate is fitted by cross-validation"
        )
    drawn = random.choice(np.arange(counts[1]), min(counts), replace=False)
    sides = [unseen_clips, (seen_clips[0][drawn], seen_clips[1][drawn])]
    best = ReleasedGate(0.0, 0.0, MultinomialRegression(), -1.0)
    for temperature in temperatures:
        features = [gate_features(*side, temperature) for side in sides]
        held = [random.choice(np.arange(len(side)), min(HELD_OUT, len(side) // SHARE), replace=False)
                for side in features]  # fmt: skip
        others = [np.setdiff1d(np.arange(len(side)), some) for side, some in zip(features, held, strict=True)]
        x, y = _joined(features, others)
        order = np.arange(len(x))
        random.shuffle(order)
        model = MultinomialRegression().fit(x[order], y[order])
        x, y = _joined(features, held)
        chances = model.predict_proba(x)[:, 0]
        for threshold in thresholds:
            accuracy = float(np.mean((chances <= threshold) == y))
            if accuracy > best.accuracy:
                best = ReleasedGate(float(temperature), float(threshold), model, accuracy)
    return best


def released_generalised(
    gate: ReleasedGate,
    unseen: np.ndarray,
    logits: np.ndarray,
    labels: np.ndarray,
    unseen_ids: np.ndarray,
    seen_ids: np.ndarray,
) -> tuple[np.ndarray, dict[str, float]]:
    """Answers of the routed classifiers, and the accuracies S, U and H.

    Args:
        gate: who decides.
        unseen: (n, U) probabilities of the unseen classes.
        logits: (n, K) of all classes; only seen ones are answered.
        labels: (n,) class ids.
        unseen_ids: (U,) ids of the unseen classes, in the order of the columns of ``unseen``.
        seen_ids: ids of the seen classes, columns of ``logits``.

    Returns:
        (n,) ids, and seen, unseen, harmonic as fractions.

    Raises:
        UserError: there are no clips of one side.
    """
    answers = np.where(
        gate.to_seen(unseen, logits), seen_ids[logits[:, seen_ids].argmax(1)], unseen_ids[unseen.argmax(1)]
    )
    of_seen = np.isin(labels, seen_ids)
    if of_seen.all() or not of_seen.any():
        raise UserError("generalised zero-shot needs clips of seen and of unseen classes: only one kind is here")
    seen, other = (float((answers == labels)[side].mean()) for side in (of_seen, ~of_seen))
    return answers, {"seen": seen, "unseen": other, "harmonic": harmonic_mean(seen, other)}


def _joined(features: list[np.ndarray], rows: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Rows of both sides, and 0 for those of unseen classes, 1 for those of seen ones."""
    x = np.concatenate([side[some] for side, some in zip(features, rows, strict=True)])
    return x, np.repeat([0, 1], [len(some) for some in rows])
