"""What to do about clips that are hard to believe: an option that does good to nearly all, else words."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np

from mmcl.data.inspection.findings import Report
from mmcl.data.inspection.measures import Measures
from mmcl.data.readers import READERS
from mmcl.data.readers.joints import UNITS
from mmcl.data.readers.options import options_type
from mmcl.skeletons.believable import Remark
from mmcl.skeletons.believable.axes import UPRIGHT, compose, described, matrix_of
from mmcl.skeletons.believable.looking import EXTENT, MIRRORED

NEARLY = 0.9  # share of the clips that can be judged which an option must set right, since it changes all of them
_OPTION = re.compile(r" ?\(--[^)]*\)")


def advice(report: Report, kind: str, clips: dict[int, Remark]) -> str:
    """What clips (position -> remark of this kind) need; an option is named where nearly all of the store need it."""
    examples = {remark.axes or remark.remedy: remark for remark in clips.values()}
    ways = Counter(remark.axes or remark.remedy for remark in clips.values()).most_common()
    remark = examples[ways[0][0]]
    sides = ", or swap the joints' sides if they are named wrongly" if kind == "mirrored" else ""
    if _for_all(report.measures, remark):
        return (_again(report, remark.axes) if remark.axes else remark.remedy) + sides
    if not (remark.axes or remark.kind == "scale"):
        return _OPTION.sub(" (in these clips alone)", remark.remedy)
    words = [described(example.axes) if (example := examples[way]).axes else _OPTION.sub("", way) for way, _ in ways]
    if len(ways) == 1:
        return f"{words[0]} in these clips alone, before they are prepared{sides}"
    each = [f"{word} in {count} of these clips" for word, (_, count) in zip(words[:2], ways, strict=False)]
    return f"{'; '.join(each)}{'; …' if len(ways) > 2 else ''}: in these clips alone, before they are prepared{sides}"


def _for_all(measures: list[Measures], remark: Remark) -> bool:
    """Whether nearly all clips that can be judged are as they should be once its remedy is used for all of them."""
    good = [found for entry in measures if (found := _good(entry, remark)) is not None]
    return sum(good) >= NEARLY * len(good)


def _good(entry: Measures, remark: Remark) -> bool | None:
    """Whether the remedy of a remark makes a clip right; None where the clip does not tell."""
    up = np.array(entry.posture.up)
    if not np.isfinite(entry.size) or (remark.axes and not np.isfinite(up).all()):
        return None
    if remark.axes:
        matrix = matrix_of(remark.axes)
        mirrored = entry.posture.sure and entry.posture.handedness * np.linalg.det(matrix) < MIRRORED
        return bool((matrix @ up)[1] >= UPRIGHT and not mirrored)
    if remark.unit:
        return bool(EXTENT[0] <= entry.size * UNITS[remark.unit] <= EXTENT[1])
    return any(other.kind == remark.kind for other in entry.remarks)


def _again(report: Report, axes: str) -> str:
    """The verb that prepares with other axes, where the reader takes them."""
    plan = report.store.info.get("plan") or {}
    dataset = str(plan.get("dataset"))  # one of a package that is not installed here is no reason to end
    if dataset not in READERS or "axes" not in getattr(options_type(READERS[dataset]), "__dataclass_fields__", {}):
        return described(axes)
    return f"{described(axes)}: prepare again with --axes={compose(plan.get('axes', 'xyz'), axes)}"
