"""Frames as lines of text, from a pipe or from a file that grows.

A line is one frame: a JSON array (joints, 3) or (persons, joints, 3), or the same numbers in a row with commas,
semicolons or white space between them, one person after the other. ``null``, ``nan`` and empty cells are missing
joints, ``[]`` is a frame with nobody in it.
"""

from __future__ import annotations

import io
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from mmcl.common.errors import BadClip, UserError
from mmcl.data.readers.clip_file import NAMES

LONGEST = 1 << 20  # characters of a line; beyond that it is no frame
EVERY = 0.02  # seconds between two looks at a file that grows


def parse_frame(line: str, joint_count: int, metres: float = 1.0) -> np.ndarray:
    """One frame (M, V, 3) float32, metres, missing joints zero.

    Args:
        line: the text.
        joint_count: V.
        metres: what a unit of the coordinates is.

    Raises:
        BadClip: it is no frame of that many joints, or has infinite coordinates.
    """
    try:
        if line.lstrip().startswith(("[", "{")):
            values = np.array(_inside(json.loads(line)), dtype=np.float64)
        else:
            cells = line.replace(";", ",").split(",") if "," in line or ";" in line else line.split()
            values = np.array([float(cell.strip() or "nan") for cell in cells])
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise BadClip(f"neither a JSON array nor a row of numbers ({error})") from error
    if values.shape == (0,) and line.strip():  # nobody: it counts, so that time goes on
        values = values.reshape(0, joint_count, 3)
    elif values.ndim == 1 and values.size and values.size % (joint_count * 3) == 0:
        values = values.reshape(-1, joint_count, 3)
    elif values.ndim == 2:
        values = values[None]
    if values.ndim != 3 or values.shape[1:] != (joint_count, 3):
        raise BadClip(f"numbers of shape {values.shape}, expected (persons, {joint_count}, 3)")
    with np.errstate(over="ignore"):
        joints = np.where(np.isnan(values).any(axis=-1, keepdims=True), 0.0, values * metres).astype(np.float32)
    if not np.isfinite(joints).all():
        raise BadClip("infinite coordinates")
    return joints


def _inside(content: Any) -> Any:
    """What an object holds under one of the names that files use."""
    if not isinstance(content, dict):
        return content
    name = next((name for name in NAMES if name in content), None)
    if name is None:
        raise BadClip(f"no {', '.join(NAMES)} in the JSON object")
    return content[name]


def lines_of(source: Path) -> Iterator[str]:
    """Lines of standard input (``-``) until it ends, or of a file, waiting for what is appended to it.

    Raises:
        UserError: no such file.
    """
    if str(source) == "-":
        if isinstance(sys.stdin, io.TextIOWrapper):
            sys.stdin.reconfigure(encoding="utf-8", errors="replace")  # bytes that are no text cost their own line
        yield from _whole_lines(sys.stdin, waits=False)
        return
    try:
        with open(source, encoding="utf-8", errors="replace") as file:
            yield from _whole_lines(file, waits=True)
    except OSError as error:
        raise UserError(f"{source}: cannot be followed ({error.strerror})") from error


def _whole_lines(file: TextIO, waits: bool) -> Iterator[str]:
    begun = ""
    while True:
        part = file.readline(LONGEST)
        begun = (begun + part)[: LONGEST + 1]  # a line that never ends must not fill the memory
        if part.endswith("\n"):
            yield begun.rstrip("\r\n")
            begun = ""
        elif not part and waits:
            time.sleep(EVERY)
        elif not part:
            if begun:
                yield begun
            return
