"""Nearest neighbours in the space of features: what can be told from them without training anything."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from mmcl.common.errors import UserError
from mmcl.data.selection import Selection
from mmcl.evaluation.base import Apply, Evaluation, Verdict
from mmcl.evaluation.readouts import floors, probe_sides, readouts, rows_of
from mmcl.models.model import Model


@dataclass(frozen=True)
class KNNOptions:
    """Options of :class:`KNN`.

    Attributes:
        k: numbers of neighbours, one result each; the first is the main one.
        weighted: neighbours vote by exp(cosine / temperature), as in training monitors (STARS, after InstDisc); else
            each has one vote, as in the numbers that STARS publishes.
        temperature: of weighted votes.
        centred: subtract the mean row of the training clips first.
        seed: of the random encoder.
    """

    k: tuple[int, ...] = (1, 2, 5, 10)
    weighted: bool = False
    temperature: float = 0.1
    centred: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.k or min(self.k) < 1 or len(set(self.k)) < len(self.k):
            raise UserError(f"knn.k is {list(self.k)}: it must be different numbers, each at least 1")
        if self.temperature <= 0:
            raise UserError(f"knn.temperature is {self.temperature}: it must be positive")


class KNN(Evaluation):
    """Majority of the nearest training clips by cosine; of equal votes, the class that comes first."""

    options_type: ClassVar[type] = KNNOptions
    learns: ClassVar[bool] = True

    def run(self, model: Model, data: Selection, apply: Apply) -> Verdict:
        """``knn_top1`` of the features at the first k; all readouts, floors and k under ``top1_by_readout``."""
        options, sides = self.options, probe_sides(data)
        table: dict[str, dict[str, float]] = {}
        answers: dict[str, np.ndarray] = {}
        for name, bank, queries in rows_of({**readouts(model), **floors(model, options.seed)}, sides, apply):
            if options.centred:
                bank, queries = bank - bank.mean(axis=0), queries - bank.mean(axis=0)
            table[name] = {}
            for k in options.k:
                predicted = votes(bank, sides.bank_labels, queries, k, len(sides.names), _sharpness(options))
                found = predicted.argmax(axis=1)
                answers.setdefault(name, found)
                table[name][f"k={k}"] = float((found == sides.labels).mean())
        correct = answers["features"] == sides.labels
        facts = {"kind": f"{'weighted' if options.weighted else 'unweighted'} k-nearest neighbours by cosine, k "
                 f"{', '.join(map(str, options.k))}, among {len(sides.bank)} training clips"}  # fmt: skip
        metrics: dict[str, Any] = {"knn_top1": float(correct.mean()), "n": len(correct), "top1_by_readout": table}
        arrays = {"labels": sides.labels, "predicted": answers["features"]}
        return Verdict(metrics, "knn_top1", data.ids(sides.queries), correct, arrays, facts)


def _sharpness(options: KNNOptions) -> float | None:
    return 1.0 / options.temperature if options.weighted else None


def votes(
    bank: np.ndarray, labels: np.ndarray, queries: np.ndarray, k: int, classes: int, sharpness: float | None = None
) -> np.ndarray:
    """Shares of the votes that each class gets from the k nearest rows by cosine.

    Args:
        bank: (b, D) rows that are looked up; with fewer than k, all of them vote.
        labels: (b,) their classes.
        queries: (n, D).
        k: neighbours.
        classes: K.
        sharpness: a neighbour votes with exp(sharpness * cosine); None: all alike.

    Returns:
        (n, K).
    """
    from sklearn.neighbors import KNeighborsClassifier

    weights: Any = "uniform"
    if sharpness is not None:
        factor = sharpness  # the nearest one weighs 1: the shares are the same, and nothing overflows
        weights = lambda far: np.exp(factor * (far.min(axis=1, keepdims=True) - far))  # noqa: E731
    near = KNeighborsClassifier(min(k, len(bank)), weights=weights, algorithm="brute", metric="cosine")
    with warnings.catch_warnings():  # one clip a class is what is meant
        warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)
        found = near.fit(bank, labels).predict_proba(queries)
    shares = np.zeros((len(queries), classes))
    shares[:, near.classes_] = found
    return shares
