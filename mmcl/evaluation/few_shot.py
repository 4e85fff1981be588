"""Few-shot recognition: n classes that are told apart by k clips of each, over many random choices of both.

Beside it stands what STARS publishes as k "shots": k nearest neighbours among all training clips of the classes, which
sees far more than k clips of a class.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from mmcl.common.draws import named_seed
from mmcl.common.errors import UserError
from mmcl.data.selection import Selection
from mmcl.evaluation.base import Apply, Evaluation, Verdict
from mmcl.evaluation.knn import votes
from mmcl.evaluation.readouts import Sides, floors, probe_sides, readouts, rows_of
from mmcl.models.model import Model


@dataclass(frozen=True)
class FewShotOptions:
    """Options of :class:`FewShot`.

    Attributes:
        ways: classes of an episode, n.
        shots: clips of each that are shown, k; one result each, the first is the main one.
        queries: clips of each class that are to be told, in an episode; a class with fewer gives all.
        episodes: random choices of classes and clips.
        neighbours: k of the published nearest-neighbour variant.
        seed: of the episodes and the random encoder.
    """

    ways: int = 5
    shots: tuple[int, ...] = (1, 5)
    queries: int = 15
    episodes: int = 1000
    neighbours: tuple[int, ...] = (1, 2, 5)
    seed: int = 0

    def __post_init__(self) -> None:
        checks = (("ways", self.ways >= 2, "at least 2"), ("queries", self.queries >= 1, "at least 1"),
                  ("shots", bool(self.shots) and min(self.shots) >= 1, "numbers of at least 1"),
                  ("episodes", self.episodes >= 2, "at least 2"),
                  ("neighbours", all(k >= 1 for k in self.neighbours), "numbers of at least 1"))  # fmt: skip
        for key, good, wanted in checks:
            if not good:
                raise UserError(f"few_shot.{key} is {getattr(self, key)}: it must be {wanted}")


@dataclass(frozen=True)
class Episode:
    """One choice. Classes are numbered 0 … n - 1 within it.

    Attributes:
        support: (n, k) rows of the bank.
        queries: (q,) rows of the queries.
        labels: (q,) which of the n classes each is of.
    """

    support: np.ndarray
    queries: np.ndarray
    labels: np.ndarray


class FewShot(Evaluation):
    """Episodes by the nearest mean: a query is of the class whose k rows, each of length 1, have the nearest mean.

    The k clips come from the training side of the protocol, the queries from the side that is judged, so that in a
    cross-subject protocol they show other people.
    """

    options_type: ClassVar[type] = FewShotOptions
    learns: ClassVar[bool] = True
    tiny: ClassVar[Mapping[str, Any]] = MappingProxyType({"ways": 2, "shots": [1], "episodes": 5, "neighbours": [1]})

    def run(self, model: Model, data: Selection, apply: Apply) -> Verdict:
        """``few_shot_top1`` of the features at the first k, with a 95 % interval over episodes.

        Raises:
            UserError: fewer classes than ``ways`` have a clip to be told and ``shots`` to be shown.
        """
        options, sides = self.options, probe_sides(data)
        drawn = {k: draw_episodes(sides, k, options) for k in options.shots}
        table: dict[str, dict[str, Any]] = {}
        for name, bank, queries in rows_of({**readouts(model), **floors(model, options.seed)}, sides, apply):
            table[name] = {
                f"{options.ways}-way {k}-shot": _mean(accuracies(bank, queries, episodes))
                for k, episodes in drawn.items()
            }
            for k in options.neighbours:
                found = votes(bank, sides.bank_labels, queries, k, len(sides.names)).argmax(axis=1)
                table[name][f"{k} nearest of all"] = {"top1": float((found == sides.labels).mean())}
        first = table["features"][f"{options.ways}-way {options.shots[0]}-shot"]
        metrics = {"few_shot_top1": first["top1"], "low": first["low"], "high": first["high"],
                   "top1_by_readout": table}  # fmt: skip
        kind = (
            f"{options.episodes} episodes of {options.ways} classes of {len(sides.names)}, shots from the training "
            "side, nearest mean by cosine; intervals are over episodes, which share clips. 'k nearest of all' looks k "
            f"clips up among all {len(sides.bank)} training clips, which is published as k-shot (STARS)"
        )
        ids, arrays = data.ids(sides.queries), {"labels": sides.labels}
        return Verdict(metrics, "few_shot_top1", ids, None, arrays, {"kind": kind})


def draw_episodes(sides: Sides, shots: int, options: FewShotOptions) -> list[Episode]:
    """Random episodes, by the seed.

    Raises:
        UserError: too few classes have clips enough.
    """
    draws = np.random.default_rng(named_seed(options.seed, f"episodes {shots}"))
    bank = [np.flatnonzero(sides.bank_labels == label) for label in range(len(sides.names))]
    queries = [np.flatnonzero(sides.labels == label) for label in range(len(sides.names))]
    able = [label for label in range(len(sides.names)) if len(bank[label]) >= shots and len(queries[label])]
    if len(able) < options.ways:
        instead = f"--option few_shot.ways={len(able)}" if len(able) > 1 else "more clips or fewer few_shot.shots"
        raise UserError(
            f"few_shot.ways is {options.ways}, but {len(able)} classes have {shots} training clips to be shown and a "
            f"test clip to be told: ask for {instead}"
        )
    episodes = []
    for _ in range(options.episodes):
        chosen = draws.choice(able, options.ways, replace=False)
        support = np.stack([draws.choice(bank[label], shots, replace=False) for label in chosen])
        told = [draws.permutation(queries[label])[: options.queries] for label in chosen]
        labels = np.repeat(np.arange(options.ways), [len(each) for each in told])
        episodes.append(Episode(support, np.concatenate(told), labels))
    return episodes


def accuracies(bank: np.ndarray, queries: np.ndarray, episodes: list[Episode]) -> np.ndarray:
    """(episodes,) share of queries whose nearest mean is their class's."""
    bank, queries = _directions(bank), _directions(queries)
    found = []
    for episode in episodes:
        means = _directions(bank[episode.support].mean(axis=1))
        found.append(((queries[episode.queries] @ means.T).argmax(axis=1) == episode.labels).mean())
    return np.array(found)


def _directions(rows: np.ndarray) -> np.ndarray:
    """(…, D) -> rows of length 1; a row of zeros stays."""
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)


def _mean(values: np.ndarray) -> dict[str, float]:
    mean, error = float(values.mean()), float(values.std(ddof=1) / len(values) ** 0.5)
    return {"top1": mean, "low": mean - 1.96 * error, "high": mean + 1.96 * error}
