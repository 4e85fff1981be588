"""Frames as lines of text, from a pipe or from a file that grows.

A line is one frame: a JSON array (joints, 3) or (persons, joints, 3), or the same numbers in a row with commas,
semicolons or white space between them, one person after the other. ``null``, ``NA``, ``nan`` and empty cells are
missing joints, ``[]`` is a frame with nobody in it. A header may come first, and says then which number is which.
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
from mmcl.data.readers.joints import UNITS, Axes
from mmcl.data.readers.text_table import Table, by_header, cells, is_header, number, without_asides
from mmcl.deploy.files import AS_IT_IS, Reading
from mmcl.skeletons.layout import Layout

LONGEST = 1 << 20  # characters of a line; beyond that it is no frame
EVERY = 0.02  # seconds between two looks at a file that grows


class Frames:
    """Turns lines into frames.

    Args:
        layout: which joints a line holds.
        reading: what else is known of them.
    """

    def __init__(self, layout: Layout, reading: Reading = AS_IT_IS) -> None:
        self.layout, self.reading = layout, reading
        self.axes, self.metres = Axes(reading.axes), UNITS[reading.unit]
        self.header: tuple[str, ...] = ()

    def takes_header(self, line: str) -> bool:
        """Whether a line is a header; if so, the rows that follow are read by it."""
        names = cells(line)
        if line.lstrip().startswith(("[", "{")) or len(names) < 2 * self.layout.joint_count or not is_header(names):
            return False
        self.header = tuple(names)
        return True

    def parse(self, line: str) -> np.ndarray:
        """One frame (M, V, 3) float32, metres, missing joints zero.

        Raises:
            BadClip: it is no frame of that many joints, or has infinite coordinates.
        """
        try:
            if line.lstrip().startswith(("[", "{")):
                values = np.array(_inside(json.loads(line)), dtype=np.float64)
            else:
                values = self._row([number(cell) for cell in cells(line)]) if line.strip() else np.zeros((1, 0))
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            raise BadClip(f"neither a JSON array nor a row of numbers ({error})") from error
        values = self._shaped(values, line)
        with np.errstate(over="ignore"):
            joints = self.axes.straight(values * self.metres)
            joints = np.where(np.isnan(joints).any(axis=-1, keepdims=True), 0.0, joints).astype(np.float32)
        if not np.isfinite(joints).all():
            raise BadClip("infinite coordinates")
        return joints

    def _row(self, values: list[float]) -> np.ndarray:
        """A row of numbers, by the header where there is one."""
        if not self.header:
            return np.array(values)
        if len(values) != len(self.header):
            raise BadClip(f"{len(values)} numbers, and the header names {len(self.header)}")
        table = Table(np.array([values]), self.header)
        named = by_header(table, self.layout)
        return without_asides(table)[0] if named is None else named[0]

    def _shaped(self, values: np.ndarray, line: str) -> np.ndarray:
        """(M, V, 3): one person or more of three numbers a joint, or four, of which the last is a confidence."""
        V, columns = self.layout.joint_count, self.reading.columns
        if values.shape == (0,) and line.strip():  # nobody: it counts, so that time goes on
            return values.reshape(0, V, 3)
        width = len(columns) if columns else 3 if values.size % (V * 3) == 0 or values.size % (V * 4) else 4
        if values.ndim == 1 and values.size and values.size % (V * width) == 0:
            values = values.reshape(-1, V, width)
        elif values.ndim == 2:
            values = values[None]
        if values.ndim != 3 or values.shape[1] != V or values.shape[2] not in (3, 4):
            raise BadClip(f"numbers of shape {values.shape}, expected (persons, {V}, 3)")
        if values.shape[2] == 4:
            values = np.where(values[..., 3:] > 0, values[..., :3], np.nan)
        return values


def _inside(content: Any) -> Any:
    """What an object holds under one of the names that files use."""
    if not isinstance(content, dict):
        return content
    name = next((name for name in NAMES if name in content), None)
    if name is None:
        raise BadClip(f"no {', '.join(NAMES)} in the JSON object")
    return content[name]


def lines_of(source: Path, tail: bool = False) -> Iterator[str]:
    """Lines of standard input (``-``) or of a file until it ends; with ``tail``, what is appended to a file, for ever.

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
            yield from _whole_lines(file, waits=tail)
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
