"""What a pickle of PYSKL or MMAction2 holds: annotations of clips, lists of their names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mmcl.common.errors import BadClip, UserError
from mmcl.common.printing import complain
from mmcl.data.readers.array_order import arranged_with_score
from mmcl.data.readers.naming import MAX_CLASSES
from mmcl.data.readers.safe_pickle import load_pickle
from mmcl.skeletons.believable import Remark
from mmcl.skeletons.layout import Layout

JUDGED = 50  # annotations in another order than PYSKL's that say how many coordinates a joint has
PIXELS = 20.0  # a coordinate beyond that is no metre


def content_of(source: Path) -> tuple[list[Any], dict[str, list[str]]]:
    """Annotations and split lists of a file, whichever form it has.

    Raises:
        UserError: it is no such pickle, or asks for code.
    """
    content = load_pickle(source)
    lists: dict[str, list[str]] = {}
    if isinstance(content, dict):
        given, content = content.get("split", content.get("splits")), content.get("annotations")
        lists, unread = _lists(given)
        if unread:
            complain("warning", f"{source}: no lists of names, and not read: {', '.join(unread)[:80]} in 'split'")
    if not isinstance(content, list) or not any(isinstance(entry, dict) for entry in content):
        raise UserError(f"{source}: no list of annotations in it; expected PYSKL's or MMAction2's form of skeletons")
    return content, lists


def _lists(given: Any, outer: str = "") -> tuple[dict[str, list[str]], list[str]]:
    """Lists of names, those in a dictionary of their own as ``outer_inner``, and the names of what is no list."""
    if not isinstance(given, Mapping):
        return {}, [] if given is None else [type(given).__name__]
    lists: dict[str, list[str]] = {}
    unread = []
    for key, names in given.items():
        listed = outer + (_called(key) or type(key).__name__)
        if isinstance(names, np.ndarray) and names.ndim == 1:
            names = names.tolist()
        if isinstance(names, (list, tuple, set, frozenset)):
            lists[listed] = [name for name in map(_called, names) if name]
            unread += [listed] * (len(lists[listed]) < len(names))
        elif isinstance(names, Mapping) and not outer:
            inner, rest = _lists(names, f"{listed}_")
            lists |= inner
            unread += rest
        else:
            unread.append(listed)
    return lists, unread


def _called(name: Any) -> str:
    """A name of a clip or a list, which may be text, bytes or a number; "" where it is none of these."""
    if isinstance(name, bytes):
        return name.decode(errors="replace")
    number = isinstance(name, (int, np.integer)) and not isinstance(name, bool)
    return str(name) if number or isinstance(name, str) else ""


def clip_name(entry: Any, row: int) -> str:
    """What the file calls a clip; its place in the file where it has no name."""
    name = entry.get("frame_dir", entry.get("filename")) if isinstance(entry, dict) else None
    return _called(name) or f"annotation_{row:06d}"


def label_of(entry: Any) -> int | None:
    """The class of a clip, from 0; None where the annotation says none."""
    label = _whole(entry.get("label")) if isinstance(entry, dict) else None
    return label if label is not None and 0 <= label < MAX_CLASSES else None


def _whole(value: Any) -> int | None:
    """A whole number in whatever a file keeps it: 3, 3.0, "3", an array or a list of one; None where it is none."""
    if isinstance(value, (np.ndarray, list, tuple)) and np.size(value) == 1:
        value = value.item() if isinstance(value, np.ndarray) else value[0]
    if isinstance(value, (float, np.floating)):
        return int(value) if np.isfinite(value) and value == int(value) else None
    if isinstance(value, (str, bytes)):
        text = _called(value).strip()
        return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else None
    return int(value) if isinstance(value, (int, np.integer)) else None


def payload_of(entry: Any) -> dict[str, Any] | str:
    """What a worker needs of a clip, or why the clip cannot be used."""
    if not isinstance(entry, dict):
        return f"the annotation is a {type(entry).__name__}, not a dictionary"
    if label_of(entry) is None:
        return "no 'label' that is a class number"
    keypoint, score = entry.get("keypoint"), entry.get("keypoint_score")
    if not isinstance(keypoint, np.ndarray):
        return "no array 'keypoint'" + " (it lies in a file of its own, 'raw_file')" * ("raw_file" in entry)
    if score is not None and not (isinstance(score, np.ndarray) and score.dtype.kind in "fiu"):
        return "'keypoint_score' is not an array of numbers"
    frames = max(_whole(entry.get("total_frames")) or 0, 0)
    return {"keypoint": keypoint, "score": score, "shape": _shape(entry), "frames": frames}


def coordinates_of(
    payload: dict[str, Any], layout: Layout, most: int
) -> tuple[np.ndarray, np.ndarray | None, list[Remark]]:
    """Coordinates (M, T, V, C) and scores of an annotation, and what to say; the third number beside pixels is a score.

    Args:
        payload: of the annotation.
        layout: of its joints.
        most: persons in it.

    Raises:
        BadClip: no numbers, or no order makes sense of their shape.
    """
    keypoint, score = payload["keypoint"], payload["score"]
    if keypoint.dtype.kind not in "fiu":
        raise BadClip(f"'keypoint' holds {keypoint.dtype}, not numbers")
    keypoint, score, remarks = arranged_with_score(keypoint, score, layout, most)
    if score is not None or payload["shape"] is None or keypoint.shape[3] != 3 or not keypoint.size:
        return keypoint, score, remarks
    third = keypoint[..., 2]
    sure, pixels = third[np.isfinite(third)], np.abs(keypoint[..., :2])
    if not (len(sure) and sure.min() >= 0 and sure.max() <= 1.001 and np.nanmax(pixels, initial=0) > PIXELS):
        return keypoint, score, remarks
    said = Remark("order", "the third number of each joint, beside pixels, is its score")
    return keypoint[..., :2], third, [*remarks, said]


def most_dimensions(annotations: list[Any], layout: Layout, most: int) -> int:
    """Coordinates of a joint in most annotations; of those in another order than PYSKL's, the first ones speak.

    Arguments as of :func:`coordinates_of`.
    """
    counts: Counter[int] = Counter()
    others = 0
    for payload in map(payload_of, annotations):
        if isinstance(payload, str):
            continue
        shape = payload["keypoint"].shape
        usual = len(shape) == 4 and shape[0] != 3 and shape[2] == layout.joint_count and shape[3] in (2, 3)
        others += not usual
        if usual or others <= JUDGED:
            try:
                counts[coordinates_of(payload, layout, most)[0].shape[3]] += 1
            except BadClip:
                continue
    return 3 if counts and counts.most_common(1)[0][0] == 3 else 2


def _shape(entry: dict[str, Any]) -> tuple[int, int] | None:
    """Height and width of the picture, where the annotation says them."""
    for key in ("img_shape", "original_shape"):
        shape = entry.get(key)
        if isinstance(shape, (tuple, list, np.ndarray)) and len(shape) >= 2:
            sides = list(shape[:2])
            if all(isinstance(side, (int, float, np.number)) and 0 < side < 1 << 16 for side in sides):
                return int(sides[0]), int(sides[1])
    return None
