"""What a pickle of PYSKL or MMAction2 holds: annotations of clips, lists of their names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mmcl.common.errors import UserError
from mmcl.common.printing import complain
from mmcl.data.readers.naming import MAX_CLASSES
from mmcl.data.readers.safe_pickle import load_pickle
from mmcl.skeletons.believable import Remark

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
    label = entry.get("label") if isinstance(entry, dict) else None
    return int(label) if isinstance(label, (int, np.integer)) and 0 <= label < MAX_CLASSES else None


def payload_of(entry: Any) -> dict[str, Any] | str:
    """What a worker needs of a clip, or why the clip cannot be used."""
    if not isinstance(entry, dict):
        return f"the annotation is a {type(entry).__name__}, not a dictionary"
    if label_of(entry) is None:
        return "no 'label' that is a class number"
    keypoint, score, remarks = numbers_of(entry)
    if not isinstance(keypoint, np.ndarray):
        return "no array 'keypoint'" + " (it lies in a file of its own, 'raw_file')" * ("raw_file" in entry)
    if score is not None and not (isinstance(score, np.ndarray) and score.dtype.kind in "fiu"):
        return "'keypoint_score' is not an array of numbers"
    total = entry.get("total_frames")
    frames = int(total) if isinstance(total, (int, np.integer)) and total > 0 else 0
    return {"keypoint": keypoint, "score": score, "shape": _shape(entry), "frames": frames, "remarks": remarks}


def numbers_of(entry: dict[str, Any]) -> tuple[Any, Any, list[Remark]]:
    """Coordinates and scores of an annotation. Pixels may have their score as a third number."""
    keypoint, score = entry.get("keypoint"), entry.get("keypoint_score")
    if not isinstance(keypoint, np.ndarray) or score is not None or _shape(entry) is None:
        return keypoint, score, []
    if keypoint.ndim != 4 or keypoint.shape[3] != 3 or keypoint.dtype.kind != "f" or not keypoint.size:
        return keypoint, score, []
    third = keypoint[..., 2]
    sure, pixels = third[np.isfinite(third)], np.abs(keypoint[..., :2])
    if not (len(sure) and sure.min() >= 0 and sure.max() <= 1.001 and np.nanmax(pixels, initial=0) > PIXELS):
        return keypoint, score, []
    return keypoint[..., :2], third, [Remark("order", "the third number of each joint, beside pixels, is its score")]


def _shape(entry: dict[str, Any]) -> tuple[int, int] | None:
    """Height and width of the picture, where the annotation says them."""
    for key in ("img_shape", "original_shape"):
        shape = entry.get(key)
        if isinstance(shape, (tuple, list, np.ndarray)) and len(shape) >= 2:
            sides = list(shape[:2])
            if all(isinstance(side, (int, float, np.number)) and 0 < side < 1 << 16 for side in sides):
                return int(sides[0]), int(sides[1])
    return None
