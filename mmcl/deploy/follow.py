"""Frames as lines of text, from a pipe or from a file that grows.

A line is one frame: a JSON array (joints, 3) or (persons, joints, 3), or the same numbers in a row with commas,
semicolons or white space between them, one person after the other. A joint has four numbers where the last is its
confidence, and two where it was found in a picture. ``null``, ``NA``, ``nan`` and empty cells are missing joints,
``[]`` or ``null`` is a frame with nobody in it. A header may come first, and says then which number is which.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from mmcl.common.errors import BadClip, UserError
from mmcl.data.readers.clip_file import NAMES
from mmcl.data.readers.column_names import PIVOT, one_joint_a_line
from mmcl.data.readers.joints import UNITS, Axes, as_taken, check_confidence, check_distance, in_picture
from mmcl.data.readers.json_numbers import array_of, first_object, keys_of, with_holes
from mmcl.data.readers.table_columns import by_header, coordinates
from mmcl.data.readers.text_table import Table, cells, is_header, numbers
from mmcl.deploy.files import AS_IT_IS, Reading
from mmcl.deploy.line_order import OneLineAFrame, RowOrder
from mmcl.skeletons.layout import Layout

COLUMNS = {2: "xy", 3: "xyz", 4: "xyzc"}  # what the numbers of a joint are where nobody says it


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
        self.lines, self.order = OneLineAFrame(()), RowOrder(layout)

    def takes_header(self, line: str) -> bool:
        """Whether a line is a header; if so, the rows that follow are read by it.

        Raises:
            UserError: it says that lines are joints.
        """
        names = cells(line)
        if len(names) < 2 * self.layout.joint_count and one_joint_a_line(names):
            raise UserError(PIVOT)
        if line.lstrip().startswith(("[", "{")) or len(names) < 2 * self.layout.joint_count or not is_header(names):
            return False
        self.header, self.lines = tuple(names), OneLineAFrame(names)
        return True

    def parse(self, line: str) -> np.ndarray:
        """One frame (M, V, C) float32, metres, with as many numbers a joint as the model takes; missing ones zero.

        Raises:
            BadClip: it is no frame of that many joints, has coordinates that are infinite or far too large, or has
                confidences that are none.
            UserError: it is not the only line of its frame.
        """
        columns = self.reading.columns
        try:
            if line.lstrip().startswith(("[", "{")):
                values = self._of_json(_inside(json.loads(line)))
            elif line.strip() == "null":
                values = np.zeros(0)
            else:
                values = np.zeros((1, 0))
                if line.strip():
                    row = cells(line)
                    self.lines.check(row)
                    values, columns = self._row(numbers(row, self.header))
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            raise BadClip(f"neither a JSON array nor a row of numbers ({error})") from error
        values = self._shaped(values, columns, line)
        sure = values[..., -1:] if (columns or COLUMNS[values.shape[2]]).endswith("c") else None
        with np.errstate(over="ignore", invalid="ignore"):
            joints = self._placed(values if sure is None else values[..., :-1])
        if not np.isfinite(joints).all():
            raise BadClip("infinite coordinates")
        check_distance(joints, np.asarray(~joints.any(axis=-1)))
        if sure is not None:
            check_confidence(sure)
            joints = np.concatenate([as_taken(joints, 3), np.nan_to_num(sure)], axis=-1)
        return as_taken(joints, self.reading.takes)

    def _of_json(self, content: Any) -> np.ndarray:
        """What a JSON line holds: numbers, whole joints or bodies among them null; all null: nobody."""
        try:
            values = array_of([] if content is None else content)
            nobody = not values.size or (values.ndim == 1 and bool(np.isnan(values).all()))
            return np.zeros(0) if nobody else values
        except (ValueError, TypeError) as error:
            if (found := first_object(content)) is not None:
                raise BadClip(f"objects where lists are expected{keys_of(found)}") from error
            filled = with_holes(content, self.layout.joint_count)
            return np.zeros(0) if filled is None else array_of(filled)

    def _placed(self, values: np.ndarray) -> np.ndarray:
        """Coordinates (M, V, 2 or 3) as the line has them -> metres, or halves of the picture; missing joints zero."""
        missing = np.isnan(values).any(axis=-1, keepdims=True)
        if values.shape[2] == 3:
            return np.where(missing, 0.0, self.axes.straight(values * self.metres)).astype(np.float32)
        if not self.reading.planar:
            raise BadClip("two coordinates a joint, and this model takes three")
        if self.reading.picture is None:
            raise BadClip("two coordinates a joint: say how large the picture was in which they are pixels (--picture)")
        missing |= (values == 0).all(axis=-1, keepdims=True)
        return np.where(missing, 0.0, in_picture(values, self.reading.picture)).astype(np.float32)

    def _row(self, values: list[float]) -> tuple[np.ndarray, str | None]:
        """A row of numbers, by the header where there is one, and what the numbers of a joint are where it says so."""
        if self.header and len(values) != len(self.header):
            raise BadClip(f"{len(values)} numbers, and the header names {len(self.header)}")
        table = Table(np.array([values]), self.header)
        named = by_header(table, self.layout) if self.header else None
        if named is None:
            return coordinates(table, self.layout.joint_count)[0], self.reading.columns
        return named[0], named[1]

    def _width(self, values: np.ndarray) -> int:
        """Numbers of a joint, where nobody says them and all stand in one row."""
        V = self.layout.joint_count
        fitting = [width for width in (3, 4, 2) if values.size % (V * width) == 0] or [3]
        likely = [width for width in fitting if width != 2 or self.reading.planar]
        if values.ndim == 1 and values.size and len(likely) > 1:
            said = " or ".join(f"{values.size // (V * width)} of {width} numbers a joint" for width in likely)
            raise BadClip(f"{values.size} numbers are as many bodies as {said}: say which (--columns xyz, xyzc …)")
        return fitting[0]

    def _shaped(self, values: np.ndarray, columns: str | None, line: str) -> np.ndarray:
        """(M, V, C): one person or more of two to four numbers a joint."""
        V = self.layout.joint_count
        if values.shape == (0,) and line.strip():  # nobody: it counts, so that time goes on
            return values.reshape(0, V, len(columns or "xyz"))
        width = len(columns) if columns else self._width(values)
        if values.ndim == 1 and values.size and values.size % (V * width) == 0:
            values = self.order.bodies(values, width)
        elif values.ndim == 2:
            values = values[None]
        if values.ndim != 3 or values.shape[1] != V or values.shape[2] not in ((len(columns),) if columns else COLUMNS):
            raise BadClip(f"numbers of shape {values.shape}, expected (persons, {V}, {len(columns or 'xyz')})")
        return values


def _inside(content: Any) -> Any:
    """What an object holds under one of the names that files use."""
    if not isinstance(content, dict):
        return content
    name = next((name for name in NAMES if name in content), None)
    if name is None:
        raise BadClip(f"no {', '.join(NAMES)} in the JSON object{keys_of(content)}")
    return content[name]
