"""One clip a file, straight from where people have them: ``.npy``, ``.npz``, ``.json``, ``.csv``."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from mmcl.common.errors import BadClip
from mmcl.data.readers.arrays import parse_npy, parse_npz
from mmcl.data.readers.files import FILE_LIMIT, read_bytes

SUFFIXES = (".npy", ".npz", ".json", ".csv")
NAMES = ("joints", "skeletons", "keypoints")  # what a clip may be called inside a file
TEXT_LIMIT = 64 << 20  # bytes of JSON or CSV: Python's numbers take twenty times the space of their text


def read_clip(path: Path, joint_count: int, numbers: tuple[int, ...] = (2, 3)) -> np.ndarray:
    """What a file holds of one clip, coordinates and what else belongs to a joint.

    Args:
        path: the file; its suffix says what it is.
        joint_count: V; a ``.csv`` line does not show where a joint ends.
        numbers: how many a joint may have.

    Returns:
        (M, T, V, C), C one of ``numbers``, of any type of number.

    Raises:
        BadClip: not such a file, damaged, or not that many joints.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise BadClip(f"{path.name}: files of clips end in {', '.join(SUFFIXES)}")
    data = read_bytes(path, FILE_LIMIT if suffix in (".npy", ".npz") else TEXT_LIMIT)
    if suffix == ".npy":
        values = parse_npy(data)
    elif suffix == ".npz":
        values = parse_npz(data, NAMES, FILE_LIMIT)
    else:
        values = _parse_json(data) if suffix == ".json" else _parse_csv(data, joint_count, numbers)
    if values.ndim == 3:
        values = values[None]
    if values.ndim != 4 or values.dtype.kind not in "fiu":
        raise BadClip(
            f"holds {values.dtype} {values.shape}, expected numbers (frames, joints, coordinates) or "
            "(bodies, frames, joints, coordinates)"
        )
    if values.shape[2] != joint_count:
        raise BadClip(f"{values.shape[2]} joints, expected {joint_count} (shape {values.shape})")
    if values.shape[0] > max(2, values.shape[1]):
        raise BadClip(
            f"{values.shape[0]} bodies in {values.shape[1]} frames (shape {values.shape}): expected the order (bodies, "
            "frames, joints, coordinates)"
        )
    if values.shape[3] not in numbers:
        raise BadClip(f"{values.shape[3]} coordinates a joint, expected {_expected(numbers)} (shape {values.shape})")
    return values


def _parse_json(data: bytes) -> np.ndarray:
    try:
        content: Any = json.loads(data)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError, too
        raise BadClip(f"not a JSON file ({type(error).__name__}: {error})") from error
    if isinstance(content, dict):
        name = next((name for name in NAMES if name in content), None)
        if name is None:
            raise BadClip(f"no {', '.join(NAMES)} in the JSON object")
        content = content[name]
    try:
        return np.array(content, dtype=np.float64)  # null becomes NaN
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise BadClip(f"not an array of numbers ({error})") from error


def _expected(numbers: tuple[int, ...]) -> str:
    """How many numbers a joint has, in words."""
    if numbers == (2, 3):
        return "3, or 2 in pixels; --columns xyzc says that a fourth is a confidence"
    return " or ".join(map(str, numbers))


def _parse_csv(data: bytes, joint_count: int, numbers: tuple[int, ...]) -> np.ndarray:
    """(T, V, C) from T lines of V * C numbers, one body."""
    try:
        text = data.decode("utf-8-sig")
        first = text.partition("\n")[0]
        separator = max(",;\t", key=first.count)
        lines = (line.strip(" \r\n") for line in io.StringIO(text))
        reader = csv.reader(lines, delimiter=separator if separator in first else " ", skipinitialspace=True)
        rows = [row for row in reader if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadClip(f"not a CSV file ({error})") from error
    if rows and _is_header(rows[0]):
        del rows[0]
    if not rows:
        raise BadClip("no frames")
    coordinates, rest = divmod(len(rows[0]), joint_count)
    if rest or coordinates not in numbers:
        hint = "; is there a column, or a separator at the end, that is no coordinate?" if rest == 1 else ""
        raise BadClip(f"{len(rows[0])} numbers a line, expected {joint_count} joints x {_expected(numbers)}{hint}")
    try:
        cells = [[float(cell or "nan") for cell in row] for row in rows]
        return np.array(cells, dtype=np.float64).reshape(len(rows), joint_count, coordinates)
    except ValueError as error:
        raise BadClip(f"lines of different length, or no numbers ({error})") from error


def _is_header(row: list[str]) -> bool:
    """Words, or the numbers 0, 1, 2 … with which pandas heads columns that have no names."""
    try:
        float(row[0] or "nan")
    except ValueError:
        return True
    return row == [str(column) for column in range(len(row))]
