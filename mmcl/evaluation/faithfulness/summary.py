"""Numbers of damaged clips: gaps to chance with intervals, accuracy, sensitivity and specificity, PGI and PGU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

RESAMPLES = 2000
LEVEL = 0.95


@dataclass(frozen=True)
class Damage:
    """What one kind of damage did to n clips.

    Attributes:
        probability: (n, 2 + draws, k) of the class that was explained; important, unimportant, random draws.
        answer: the same shape, what the model says then.
        whole: (n,) the probability of the class in the clip as it is.
        counts: k numbers of joints.
    """

    probability: np.ndarray
    answer: np.ndarray
    whole: np.ndarray
    counts: tuple[int, ...]

    def curves(self) -> dict[str, np.ndarray]:
        """Name -> (n, k) probability; of random draws the mean."""
        p = self.probability
        return {"important": p[:, 0], "unimportant": p[:, 1], "random": p[:, 2:].mean(axis=1)}

    def metrics(self, labels: np.ndarray, sign: float, seed: int) -> dict[str, Any]:
        """Gap to chance, PGI, PGU, and metrics of answers by the number of joints.

        Args:
            labels: (n,) true classes.
            sign: 1 where damage to what matters lowers the probability, -1 where it raises it.
            seed: of the resampling.
        """
        curves = self.curves()
        found: dict[str, Any] = {
            "gap": interval(sign * (curves["random"] - curves["important"]).mean(axis=1), seed),
            "gap_unimportant": interval(sign * (curves["unimportant"] - curves["random"]).mean(axis=1), seed),
        }
        for name, condition in (("pgi", "important"), ("pgu", "unimportant"), ("pg_random", "random")):
            moved = np.abs(self.whole[:, None] - curves[condition])
            if condition == "random":
                moved = np.abs(self.whole[:, None, None] - self.probability[:, 2:]).mean(axis=1)
            found[name] = interval(moved.mean(axis=1), seed)
        return found | {"by_joints": self._by_joints(labels)}

    def _by_joints(self, labels: np.ndarray) -> dict[str, Any]:
        """Accuracy, and sensitivity and specificity of one class against the others, their means over classes."""
        found: dict[str, Any] = {}
        for place, count in enumerate(self.counts):
            rows = {"important": self.answer[:, :1, place], "unimportant": self.answer[:, 1:2, place],
                    "random": self.answer[:, 2:, place]}  # fmt: skip
            found[str(count)] = {name: one_against_others(answers, labels) for name, answers in rows.items()}
        return found


def one_against_others(answers: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Accuracy, sensitivity and specificity of answers (n, draws), means over draws and over the classes that occur."""
    right = answers == labels[:, None]
    sensitivity, specificity = [], []
    for label in np.unique(labels):
        own = labels == label
        sensitivity.append(right[own].mean())
        if not own.all():
            specificity.append((answers[~own] != label).mean())
    return {
        "accuracy": float(right.mean()), "sensitivity": float(np.mean(sensitivity)),
        "specificity": float(np.mean(specificity)) if specificity else 1.0,
    }  # fmt: skip


def interval(values: np.ndarray, seed: int) -> dict[str, float | None]:
    """Mean over clips with a 95 % interval by the bootstrap; None where nothing was measured."""
    known = values[np.isfinite(values)].astype(np.float64)
    if not len(known):
        return {"mean": None, "low": None, "high": None}
    drawn = np.random.default_rng(seed).integers(len(known), size=(RESAMPLES, len(known)))
    low, high = np.quantile(known[drawn].mean(axis=1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return {"mean": float(known.mean()), "low": float(low), "high": float(high)}
