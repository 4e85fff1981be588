"""One clip a file, straight from where people have them: ``.npy``, ``.npz``, ``.json``, ``.csv``."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mmcl.common.errors import BadClip
from mmcl.data.readers.array_order import MOST_PERSONS, arranged
from mmcl.data.readers.arrays import parse_npy, parse_npz
from mmcl.data.readers.files import FILE_LIMIT, read_bytes
from mmcl.data.readers.frame_numbers import frame_remarks
from mmcl.data.readers.json_numbers import array_of, first_object, keys_of, with_holes
from mmcl.data.readers.plain_text import refuse_packed, without_separator
from mmcl.data.readers.table_columns import by_header, coordinates, lines_of_people
from mmcl.data.readers.text_table import parse_table
from mmcl.skeletons.believable import Remark
from mmcl.skeletons.layout import Layout

SUFFIXES = (".npy", ".npz", ".json", ".csv")
NAMES = ("joints", "skeletons", "keypoints")  # what a clip may be called inside a file
Columns = Literal["xyz", "xyzc", "xy", "xyc"]  # what the numbers of a joint may be; c is its confidence
TEXT_LIMIT = 64 << 20  # bytes of JSON or CSV: Python's numbers take twenty times the space of their text


@dataclass(frozen=True)
class ClipNumbers:
    """What a file holds of one clip.

    Attributes:
        values: (M, T, V, C), coordinates and what else belongs to a joint, of any type of number.
        columns: what these C numbers are, one of :data:`Columns`.
        remarks: what is to be said about how they were read.
    """

    values: np.ndarray
    columns: str
    remarks: list[Remark] = field(default_factory=list)

    @property
    def coordinates(self) -> np.ndarray:
        """(M, T, V, 2 or 3)."""
        return self.values[..., :-1] if self.columns.endswith("c") else self.values

    @property
    def confidence(self) -> np.ndarray | None:
        """(M, T, V), or None where the file says none."""
        return self.values[..., -1] if self.columns.endswith("c") else None


def read_clip(path: Path, layout: Layout, columns: str | None = None) -> ClipNumbers:
    """Read one file, in whatever order it holds persons, frames, joints and coordinates.

    Args:
        path: the file; its suffix says what it is.
        layout: which joints it holds.
        columns: what the numbers of a joint are, where somebody says so.

    Raises:
        BadClip: not such a file, damaged, or not that many joints.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise BadClip(f"{path.name}: files of clips end in {', '.join(SUFFIXES)}")
    data = read_bytes(path, FILE_LIMIT if suffix in (".npy", ".npz") else TEXT_LIMIT)
    if suffix in (".csv", ".json"):
        refuse_packed(data)
    if suffix == ".csv":
        return _table(without_separator(data), layout, columns)
    if suffix == ".npy":
        values = parse_npy(data)
    else:
        values = parse_npz(data, NAMES, FILE_LIMIT) if suffix == ".npz" else _parse_json(data, layout.joint_count)
    return recognise(values, layout, columns)


def recognise(values: np.ndarray, layout: Layout, columns: str | None = None) -> ClipNumbers:
    """Numbers of one clip in any order, put into mmcl's; arguments and errors as in :func:`read_clip`."""
    if values.dtype.kind not in "fiu":
        raise BadClip(f"holds {values.dtype} {values.shape}, expected numbers")
    if columns is not None:
        array, remarks = arranged(values, layout, (len(columns),))
        return ClipNumbers(array, columns, remarks)
    array, remarks = arranged(values, layout, (3, 2, 4))
    if array.shape[3] < 4:
        return ClipNumbers(array, "xyz"[: array.shape[3]], remarks)
    fourth = array[..., 3][np.isfinite(array[..., 3])]
    if not len(fourth) or fourth.min() < 0 or fourth.max() > 1.001:
        raise BadClip(f"four numbers a joint (shape {values.shape}), of which the last is no confidence from 0 to 1")
    said = Remark("order", "the fourth number of each joint is taken for its confidence, as --columns xyzc says")
    return ClipNumbers(array, "xyzc", [*remarks, said])


def _table(data: bytes, layout: Layout, columns: str | None) -> ClipNumbers:
    """A table, by its header where that says which column is which, else by its numbers."""
    table = parse_table(data)
    named = by_header(table, layout) if table.header else None
    if named is not None and columns in (None, named[1]):
        held = ClipNumbers(named[0][None], named[1])
    else:
        held = recognise(coordinates(table, layout.joint_count), layout, columns)
    lines = lines_of_people(table)
    held = replace(held, remarks=[*held.remarks, *frame_remarks(table, lines)])
    if lines is None:
        return held
    _check_room((*lines.shape, *held.values.shape[2:]))
    values = np.where((lines >= 0)[..., None, None], held.values[0][lines], np.nan)
    return replace(held, values=values)


def _is_lines(data: bytes) -> bool:
    """Whether the first two lines that are not empty are JSON, each for itself."""
    lines = [line for line in data.split(b"\n", 20) if line.strip()][:2]
    try:
        return len([json.loads(line) for line in lines]) == 2
    except (ValueError, RecursionError):
        return False


def _parse_json(data: bytes, joint_count: int) -> np.ndarray:
    try:
        content: Any = json.loads(data)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError, too
        if isinstance(error, json.JSONDecodeError) and error.msg == "Extra data" and _is_lines(data):
            raise BadClip("one JSON value a line: put the frames into one list, [FRAME, FRAME, …]") from error
        if "integer string conversion" in str(error):  # Python's own words speak of its settings
            raise BadClip("not an array of numbers (a whole number of thousands of digits is in it)") from error
        raise BadClip(f"not a JSON file ({type(error).__name__}: {error})") from error
    if isinstance(content, dict):
        name = next((name for name in NAMES if name in content), None)
        if name is None:
            raise BadClip(f"no {', '.join(NAMES)} in the JSON object{keys_of(content)}")
        content = content[name]
    try:
        return array_of(content)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        if isinstance(content, list) and (clip := _uneven(content, joint_count)) is not None:
            return clip
        if (found := first_object(content)) is not None:
            raise BadClip(
                f"objects where lists are expected{keys_of(found)}: give nested lists, frames of joints of [x, y, z]"
            ) from error
        uneven = "lists of different lengths, and no frames of people" if "inhomogeneous" in str(error) else error
        raise BadClip(f"not an array of numbers ({uneven})") from error


def _uneven(content: list[Any], V: int) -> np.ndarray | None:
    """Lists in which people come and go, or whole joints are null; None where they are something else."""
    if (clip := _frames(content, V)) is not None:
        return clip
    try:
        filled = with_holes(content, V)
        return None if filled is None else array_of(filled)
    except (TypeError, ValueError, OverflowError):
        return _frames(filled, V)
    except RecursionError:
        return None


def _frames(content: list[Any], V: int) -> np.ndarray | None:
    """(M, T, V, C) of a list of frames with as many people each as were there; None where it is no such list."""
    people, nobody = [], np.empty((0, V, 0))
    for frame in content:
        try:
            values = array_of([] if frame is None else frame)
        except (TypeError, ValueError, OverflowError, RecursionError):
            return None
        if values.size and values.ndim in (2, 3) and values.shape[-2] == V:  # one person or several
            people.append(values.reshape(-1, V, values.shape[-1]))
        elif values.ndim in (1, 2) and values.shape[-1] % V == 0:  # the same in rows, or nobody
            people.append(values.reshape(-1, V, values.shape[-1] // V) if values.size else nobody)
        else:
            return None
    widths, most = {found.shape[2] for found in people if len(found)}, max(map(len, people), default=0)
    if len(widths) != 1 or most > MOST_PERSONS:
        return None
    _check_room(shape := (most, len(people), V, widths.pop()))
    clip = np.full(shape, np.nan)
    for frame, found in enumerate(people):
        if len(found):
            clip[: len(found), frame] = found
    return clip


def _check_room(shape: tuple[int, ...]) -> None:
    """Whether a clip can be filled up to as many persons in each frame as one frame has.

    Raises:
        BadClip: it would be larger than any file of a clip that is read.
    """
    if (size := math.prod(shape) * 8) > FILE_LIMIT:
        raise BadClip(f"{shape[0]} persons in {shape[1]} frames take {size >> 20} MB, and {FILE_LIMIT >> 20} are read "
                      "at most: leave out frames without people, or cut it into clips")  # fmt: skip
