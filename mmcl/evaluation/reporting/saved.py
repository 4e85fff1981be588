"""Reads reports again: their scores by clip id, what they warn of, and the store that they judged."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmcl.common.errors import UserError
from mmcl.common.printing import one_line
from mmcl.data.store import ClipStore, open_store
from mmcl.evaluation.reporting.saved_files import check_kinds, names_of, read_files, some

CAVEATS = ("warning", "control", "note")  # what must be known of a report before its number is believed
NEAR = 1e-3  # between a metric and the share of clips that are right
LONGEST_CAVEAT = 1000  # characters


@dataclass(frozen=True)
class SavedReport:
    """A report folder as it was read; rows are in the order of the clips' ids, whatever order they were saved in.

    Attributes:
        path: its folder.
        facts: content of ``report.json``.
        ids: n clip names, unique, ascending.
        correct: (n,) bool, clips that were answered right; None where the evaluation knows no such thing.
        scores: (n, K) float64; no column where the evaluation scored no classes.
        labels: (n,) int64; -1 where there are no scores.
        class_names: K names.
    """

    path: Path
    facts: dict[str, Any]
    ids: list[str]
    correct: np.ndarray | None
    scores: np.ndarray
    labels: np.ndarray
    class_names: list[str]

    @property
    def main(self) -> str:
        """Name of the metric that it is compared by."""
        return str(self.facts.get("main", "top1"))

    @property
    def value(self) -> float:
        """That metric."""
        return float(self.facts[self.main])

    @property
    def answers(self) -> np.ndarray | None:
        """``correct``, where the main metric is the share of clips that are right, to a tenth of a point.

        An AUROC is no such share, and clips that are right say nothing of its difference. An average over parts of a
        stream is one, but for parts that differ by a few clips.
        """
        near = self.correct is not None and abs(float(self.correct.mean()) - self.value) < NEAR
        return self.correct if near else None

    def number(self, name: str) -> float | None:
        """A number of ``report.json`` by its keys with points between them; None where the report has it as null.

        Raises:
            UserError: it has no such number; naming the keys that are there.
        """
        found: Any = self.facts
        for key in name.split("."):
            if not isinstance(found, dict) or key not in found:
                there = ", ".join(sorted(map(str, found))) if isinstance(found, dict) else "no keys"
                raise UserError(f"{self.path / 'report.json'} has no number '{name}': at '{key}' it has {there}")
            found = found[key]
        if found is not None and (isinstance(found, bool) or not isinstance(found, int | float)):
            raise UserError(f"{self.path / 'report.json'}: '{name}' is no number")
        return None if found is None else float(found)

    @property
    def classified(self) -> bool:
        """Whether it holds scores of classes."""
        return bool(self.class_names)


def caveats(reports: Iterable[SavedReport]) -> dict[str, str]:
    """What some of these reports warn of, each sentence once; of :data:`CAVEATS`, those that there are."""
    reports = list(reports)
    said = {
        key: dict.fromkeys(
            one_line(str(report.facts[key]), LONGEST_CAVEAT) for report in reports if report.facts.get(key)
        )
        for key in CAVEATS
    }
    return {key: "; ".join(sentences) for key, sentences in said.items() if sentences}


def read_report(where: Path, split: str = "test") -> SavedReport:
    """Read a report folder, or the one that a run folder holds of a split.

    Raises:
        UserError: there is none, it is damaged, too large or too old, a clip is in it twice, or its scores are not
            finite.
    """
    folder = where if (where / "report.json").is_file() else where / f"report-{split}"
    if not (folder / "report.json").is_file():
        hint = "give a folder that `mmcl evaluate` wrote, or a run folder that holds one"
        if (where / "config.yaml").is_file():
            hint = f"run `mmcl evaluate --checkpoint {where} --split {split}` first"
        raise UserError(f"{where} holds no report.json and no report-{split}: {hint}")
    facts, arrays = read_files(folder)
    try:
        ids, count = names_of(arrays["ids"], "ids"), len(arrays["ids"])
        names = names_of(arrays["class_names"], "class_names") if "class_names" in arrays else []
        if "scores" in arrays and not names:
            raise UserError(f"{folder} was written by an older mmcl, without class names: evaluate the model again")
        check_kinds(arrays)
        scores = arrays["scores"].astype(np.float64) if names else np.zeros((count, 0))
        labels = arrays["labels"].astype(np.int64) if names else np.full(count, -1)
        correct = arrays["correct"].astype(bool) if "correct" in arrays else None
        if correct is None and names:
            correct = scores.argmax(axis=1) == labels
        _check_main(facts)
        shapes = [scores.shape == (count, len(names)), labels.shape == (count,)]
        if not all(shapes) or (correct is not None and correct.shape != (count,)):
            raise ValueError(f"{count} ids, scores {scores.shape}, {len(labels)} labels, {len(names)} classes")
        if count == 0 or (names and (labels.min() < 0 or labels.max() >= len(names))):
            raise ValueError("no clip, or labels beyond the classes")
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise UserError(f"{folder}: damaged report ({error}); evaluate the model again") from error
    order = np.argsort(arrays["ids"], kind="stable")
    ids = [ids[i] for i in order]
    if twice := sorted({a for a, b in zip(ids, ids[1:], strict=False) if a == b}):
        raise UserError(f"{folder}: {len(twice)} clips are in scores.npz more than once ({some(twice)})")
    if not np.isfinite(scores).all():
        raise UserError(f"{folder}: scores.npz holds scores that are not finite")
    right = None if correct is None else correct[order]
    return SavedReport(folder, facts, ids, right, scores[order], labels[order], names)


def _check_main(facts: Mapping[str, Any]) -> None:
    """There is no report without a main number.

    Raises:
        ValueError: it is none, or no share where it is one. KeyError: it is not there.
    """
    main = facts.get("main", "top1")
    value = facts[main]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{main} is {value!r:.40}")
    if main == "top1" and not 0 <= value <= 1:
        raise ValueError(f"top1 is {value:g}, which is no share")


def clips_of(report: SavedReport) -> ClipStore | None:
    """The store that a report judged, where it is still at hand and still the same."""
    try:
        data = report.facts["data"]
        if not isinstance(data, str) or "://" in data:  # nothing is fetched because a report says so
            return None
        store = open_store(data)
    except (UserError, OSError, KeyError):
        return None
    return store if store.fingerprint == report.facts.get("data_fingerprint") else None
