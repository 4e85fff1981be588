"""Refuses to compare reports that judged other clips, or the same ones by another rule."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmcl.common.errors import UserError
from mmcl.common.files import absolute
from mmcl.evaluation.reporting.saved import SavedReport
from mmcl.evaluation.reporting.saved_files import some

RULE = ("protocol", "split", "data_fingerprint", "evaluation")  # what two reports must share to be of one judgement


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
            raise UserError(f"{pair} differ in the labels of {wrong.size} clips ({some(first.ids[i] for i in wrong)})")


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


def _difference(first: Sequence[str], second: Sequence[str]) -> str:
    only = [sorted(set(first) - set(second)), sorted(set(second) - set(first))]
    if not any(only):
        return "the same names in another order"
    sides = zip(("first", "second"), only, strict=True)
    return ", ".join(f"{len(names)} only in the {side} ({some(names)})" for side, names in sides if names)
