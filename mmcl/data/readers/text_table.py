"""Tables of numbers as text: what spreadsheets, data frames and trackers write, one frame a line.

Separators are commas, semicolons, tabs or blanks; decimal commas are understood where something else separates. Cells
that are empty, or say NA, NaN, null or none, are missing. A header tells which column is which coordinate of which
joint: ``left_hip_x``, ``x0``, ``Head.Z``, ``3_y``, ``visibility_5``; columns of frame numbers and times are left out.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mmcl.common.errors import BadClip
from mmcl.skeletons.believable.names import meaning
from mmcl.skeletons.layout import Layout

NOTHING = {"", "na", "n/a", "nan", "null", "none", "nil", "-", "?", "#n/a", "<na>", "missing"}
_DECIMAL = re.compile(r"[-+]?\d+,\d+(e[-+]?\d+)?", re.IGNORECASE)
_WORDS = re.compile(r"[A-Za-z]+|\d+")
_SCORES = {"c", "s", "v", "w", "conf", "confidence", "score", "visibility", "vis", "likelihood", "prob", "p"}
_ASIDE = {"frame", "frames", "frameid", "framenumber", "frameno", "time", "timestamp", "timestampms", "t", "index",
          "idx", "unnamed", "id", "row", "seconds", "ms"}  # fmt: skip


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        rows: (T, columns) float64, NaN where a cell says nothing.
        header: a name for each column; empty where there is none.
    """

    rows: np.ndarray
    header: tuple[str, ...] = ()


def number(cell: str) -> float:
    """What a cell holds; NaN where it says that nothing is there.

    Raises:
        ValueError: it is no number.
    """
    text = cell.strip()
    if text.lower() in NOTHING:
        return np.nan
    return float(text.replace(",", ".") if _DECIMAL.fullmatch(text) else text)


def cells(line: str) -> list[str]:
    """One line of numbers, whatever separates them."""
    try:
        (row,) = _split([line], _separator(line))
    except csv.Error:  # such as a bare carriage return: no cells, and so no numbers
        return [line]
    return row


def parse_table(data: bytes) -> Table:
    """Read a table.

    Raises:
        BadClip: no text, no lines, or lines of different length or without numbers.
    """
    try:
        text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
        lines = [line.strip(" \r\n") for line in io.StringIO(text)]
        lines = [line for line in lines if line and not line.startswith("#")]
        if not lines:
            raise BadClip("no frames")
        rows = _split(lines, _separator(lines[-1]))
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadClip(f"not a CSV file ({error})") from error
    header = tuple(cell.strip() for cell in rows[0]) if is_header(rows[0]) else ()
    rows = rows[bool(header) :]
    if not rows:
        raise BadClip("no frames")
    lengths = sorted({len(row) for row in rows} | ({len(header)} if header else set()))
    if len(lengths) > 1:
        raise BadClip(f"lines of different length ({lengths[0]} and {lengths[-1]} cells)")
    try:
        return Table(np.array([[number(cell) for cell in row] for row in rows], dtype=np.float64), header)
    except ValueError as error:
        raise BadClip(f"no numbers in it ({error})") from error


def _separator(line: str) -> str:
    """What separates the cells of a line."""
    for mark in (";", "\t"):
        if mark in line:
            return mark
    words = line.split()
    if len(words) > 1 and all(_DECIMAL.fullmatch(word) or word.lstrip("+-").isdigit() for word in words):
        return " "  # decimal commas between blanks
    return "," if "," in line else " "


def _split(lines: Sequence[str], separator: str) -> list[list[str]]:
    if separator == " ":
        return [line.split() for line in lines]
    rows = list(csv.reader(lines, delimiter=separator, skipinitialspace=True))
    ragged = len({len(row) for row in rows}) == 1 and len(rows[0]) > 1 and all(not row[-1].strip() for row in rows)
    return [row[:-1] for row in rows] if ragged and len(rows) > 1 else rows  # a separator behind the last cell


def is_header(row: list[str]) -> bool:
    """Words, or the numbers 0, 1, 2 … with which pandas heads columns that have no names."""
    for names in (row, row[1:] if not row[0].strip() else []):  # the second: behind a column for the index
        if len(names) > 1 and names == [str(column) for column in range(len(names))]:
            return True
    words = 0
    for cell in row:
        try:
            number(cell)
        except ValueError:
            words += 1
    return words > len(row) / 2


def by_header(table: Table, layout: Layout) -> tuple[np.ndarray, str] | None:
    """The table as (T, V, C) and what these C numbers are ("xyzc"); None where its header does not say which is which.

    Joints come in the order of their numbers; where they are named as the layout's are, in the layout's order.

    Raises:
        BadClip: the names say something that does not fit the layout.
    """
    places: dict[tuple[str, str], int] = {}
    for column, name in enumerate(table.header):
        place = _place(name)
        if place is None or place in places:
            return None
        if place != ("", ""):
            places[place] = column
    joints = list(dict.fromkeys(joint for joint, _ in places))
    letters = [letter for letter in "xyzc" if any((joint, letter) in places for joint in joints)]
    if letters[:2] != ["x", "y"]:
        return None
    if len(joints) != layout.joint_count:
        raise BadClip(f"its header names {len(joints)} joints, expected {layout.joint_count}")
    if lacking := [f"{joint} {letter}" for joint in joints for letter in letters if (joint, letter) not in places]:
        raise BadClip(f"its header lacks columns ({', '.join(lacking[:3])})")
    order = _in_layout(joints, layout)
    values = [table.rows[:, [places[joint, letter] for joint in order]] for letter in letters]
    return np.stack(values, axis=-1), "".join(letters)


def without_asides(table: Table) -> np.ndarray:
    """The rows without columns whose header says that they are frame numbers or times."""
    keep = [column for column, name in enumerate(table.header) if _place(name) != ("", "")]
    return table.rows[:, keep] if table.header and len(keep) < len(table.header) else table.rows


def _place(name: str) -> tuple[str, str] | None:
    """(joint, coordinate) of a column; ("", "") for one that belongs to no joint; None where its name does not say."""
    words = [word.lower() for word in _WORDS.findall(re.sub(r"([a-z])([A-Z])", r"\1 \2", name))]
    plain = "".join(word for word in words if not word.isdigit())
    if not words or plain in _ASIDE and not (plain == "t" and len(words) > 1):
        return "", ""
    for at in (-1, 0):
        letter = words[at] if words else ""
        letter = "c" if letter in _SCORES else letter
        if letter in ("x", "y", "z", "c") and len(words) > 1:
            return "_".join(words[:-1] if at else words[1:]), letter
    return None


def _in_layout(joints: list[str], layout: Layout) -> list[str]:
    """Names or numbers of joints in the order of the layout."""
    if all(re.search(r"\d+$", joint) for joint in joints) and len({_stem(joint) for joint in joints}) == 1:
        return sorted(joints, key=lambda joint: int(re.findall(r"\d+", joint)[-1]))
    for key in (_plain, meaning):
        known = {key(joint): joint for joint in joints}
        wanted = [key(joint) for joint in layout.joints]
        if None not in wanted and len(set(wanted)) == len(wanted) and set(wanted) == set(known):
            return [known[joint] for joint in wanted]
    return joints


def _stem(joint: str) -> str:
    return re.sub(r"\d+$", "", joint)


def _plain(joint: str) -> str:
    return "".join(_WORDS.findall(joint)).lower()
