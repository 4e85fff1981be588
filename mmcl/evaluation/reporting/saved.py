"""Reports read again: their scores by clip id, and whether several of them judged the same clips."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmcl.common.errors import UserError
from mmcl.common.files import absolute
from mmcl.common.printing import one_line
from mmcl.data.store import ClipStore, open_store
from mmcl.evaluation.reporting.saved_files import check_kinds, names_of, read_files

RULE = ("protocol", "split", "data_fingerprint", "evaluation")  # what two reports must share to be of one judgement
CAVEATS = ("warning", "control", "note")  # what must be known of a report before its number is believed
FEW = 3  # names in a message
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
        raise UserError(f"{folder}: {len(twice)} clips are in scores.npz more than once ({_some(twice)})")
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


def check_same_clips(reports: Sequence[SavedReport]) -> None:
    """Make sure that reports judged the same clips by the same rule, so that their rows belong together.

    Raises:
        UserError: naming the first report that does not fit the first one, and the clips.
    """
    first = reports[0]
    for other in reports[1:]:
        pair = f"{first.path} and {other.path}"
        for key in RULE:
            older = key == "evaluation" and not (first.facts.get(key) and other.facts.get(key))  # did not say
            if not older and first.facts.get(key) != other.facts.get(key):
                raise UserError(
                    f"{pair} differ in {key.replace('_', ' ')}: {first.facts.get(key)} and {other.facts.get(key)}"
                )
        if (one := main_attack(first)) != (two := main_attack(other)):
            raise UserError(f"{pair} differ in the main attack: {_unlike(one, two)} and {_unlike(two, one)}")
        if first.class_names != other.class_names:
            raise UserError(f"{pair} differ in their classes: {_difference(first.class_names, other.class_names)}")
        if first.ids != other.ids:
            raise UserError(f"{pair} did not judge the same clips: {_difference(first.ids, other.ids)}")
        if (wrong := np.flatnonzero(first.labels != other.labels)).size:
            raise UserError(f"{pair} differ in the labels of {wrong.size} clips ({_some(first.ids[i] for i in wrong)})")


def main_attack(report: SavedReport) -> dict[str, Any]:
    """What the main number of a report of attacks is by: the attack, its budget and its options; else nothing."""
    rows, options = report.facts.get("attacks"), report.facts.get("attack_options")
    if not (isinstance(rows, list) and rows and isinstance(rows[0], Mapping)):
        return {}
    name = str(rows[0].get("attack"))
    own = options.get(name) if isinstance(options, Mapping) else None
    return {"attack": name, "epsilon": rows[0].get("epsilon"), **(own if isinstance(own, Mapping) else {})}


def _unlike(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """What the first has that the second has not, in words."""
    own = [f"{key} {value}" for key, value in one.items() if key not in other or other[key] != value]
    return ", ".join(own) or "none"


def check_given_once(reports: Iterable[SavedReport]) -> None:
    """Make sure that no report is given twice.

    Raises:
        UserError: naming it.
    """
    seen: set[Path] = set()
    for report in reports:
        if absolute(report.path) in seen:
            raise UserError(f"{report.path} is given twice")
        seen.add(absolute(report.path))


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


def _difference(first: Sequence[str], second: Sequence[str]) -> str:
    only = [sorted(set(first) - set(second)), sorted(set(second) - set(first))]
    if not any(only):
        return "the same names in another order"
    sides = zip(("first", "second"), only, strict=True)
    return ", ".join(f"{len(names)} only in the {side} ({_some(names)})" for side, names in sides if names)


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:FEW]) + (", …" if len(names) > FEW else "")
