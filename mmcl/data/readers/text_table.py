"""Tables of numbers as text: what spreadsheets, data frames and trackers write, one frame a line.

Separators are commas, semicolons, tabs or blanks; decimal commas are understood where something else separates. Cells
that are empty, or say NA, NaN, null, none, a dash, #VALUE! or the like, are missing. What the columns of a header are:
:mod:`mmcl.data.readers.table_columns`.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from mmcl.common.errors import BadClip
from mmcl.data.readers.column_names import PIVOT, aside, one_joint_a_line

NOTHING = {"", "na", "n/a", "n.a.", "n.a", "nan", "null", "none", "nil", "-", "--", "---", ".", "?", "<na>", "missing",
           "#n/a", "#value!", "#ref!", "#div/0!", "#num!", "#name?", "#null!"}  # fmt: skip
_NO_NUMBER = re.compile(r"[-+]?(nan\(\w*\)|1[.,]#(?!inf)[a-z]+\d*)", re.IGNORECASE)  # as Microsoft's C writes NaN
_DECIMAL = re.compile(r"[-+]?\d+,\d+(e[-+]?\d+)?", re.IGNORECASE)


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        rows: (T, columns) float64, NaN where a cell says nothing.
        header: a name for each column; empty where there is none.
        asides: what columns of frames, times and people say, by their plain names; their numbers in ``rows`` are NaN.
    """

    rows: np.ndarray
    header: tuple[str, ...] = ()
    asides: dict[str, tuple[str, ...]] = field(default_factory=dict)


def number(cell: str) -> float:
    """What a cell holds; NaN where it says that nothing is there.

    Raises:
        ValueError: it is no number.
    """
    text = cell.strip()
    if text.lower() in NOTHING or _NO_NUMBER.fullmatch(text):
        return np.nan
    return plain_float(text.replace(",", ".") if _DECIMAL.fullmatch(text) else text)


def plain_float(text: str) -> float:
    """A number as files write it; Python's own ``float`` reads the name ``0_1`` as 1, and digits of other scripts.

    Raises:
        ValueError: it is no number.
    """
    if "_" in text or not text.isascii():
        raise ValueError(f"'{text:.40}' is no number")
    return float(text)


def cells(line: str) -> list[str]:
    """One line of numbers, whatever separates them."""
    try:
        (row,) = _split([line], _separator(line))
    except csv.Error:  # such as a bare carriage return: no cells, and so no numbers
        return [line]
    return row


def numbers(row: Sequence[str], header: Sequence[str] = ()) -> list[float]:
    """What the cells of a line hold; NaN in columns of frames, times and people, whatever stands there.

    Raises:
        ValueError: a cell is no number; the message names its column.
    """
    found = []
    for column, cell in enumerate(row):
        name = header[column] if column < len(header) else ""
        try:
            found.append(np.nan if name and aside(name) else number(cell))
        except ValueError as error:
            where = f"column '{name:.40}'" if name else f"cell {column + 1}"
            raise ValueError(f"{where}: '{cell.strip():.40}' is no number") from error
    return found


def parse_table(data: bytes) -> Table:
    """Read a table.

    Raises:
        BadClip: no text, no lines, or lines of different length or without numbers.
    """
    try:
        text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
        if "\0" in text:
            raise BadClip("no text, or UTF-16 or UTF-32 without its mark: save it as CSV UTF-8")
        lines = {number: line.strip(" \r\n") for number, line in enumerate(io.StringIO(text, newline=None), 1)}
        lines = {number: line for number, line in lines.items() if line and not _is_comment(line)}
        if not lines:
            raise BadClip("no frames")
        rows = _split(list(lines.values()), _separator(list(lines.values())[-1]))
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadClip(f"not a CSV file ({error})") from error
    header = tuple(cell.strip() for cell in rows[0]) if is_header(rows[0]) else ()
    where = list(lines)[bool(header) :]
    rows = rows[bool(header) :]
    if not rows:
        raise BadClip("no frames")
    if header and all(len(row) == len(header) + 1 and not row[-1].strip() for row in rows):
        rows = [row[:-1] for row in rows]  # a separator behind the last cell, and none behind the header
    lengths = sorted({len(row) for row in rows} | ({len(header)} if header else set()))
    if len(lengths) > 1:
        raise BadClip(f"lines of different length ({lengths[0]} and {lengths[-1]} cells)")
    values = np.empty((len(rows), lengths[0]))
    for line, row in enumerate(rows):
        try:
            values[line] = numbers(row, header)
        except ValueError as error:
            if one_joint_a_line(header):
                raise BadClip(PIVOT) from error
            raise BadClip(f"line {where[line]}, {error}; leave columns out that hold no numbers") from error
    said = {aside(name): column for column, name in reversed(list(enumerate(header))) if aside(name)}
    return Table(values, header, {name: tuple(row[column].strip() for row in rows) for name, column in said.items()})


def _is_comment(line: str) -> bool:
    """Whether a line is none of the table. With #N/A, as spreadsheets write what is missing, a line of it may begin."""
    return line.startswith("#") and re.split(r"[\s,;]", line.lower(), maxsplit=1)[0] not in NOTHING


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
    return list(csv.reader(lines, delimiter=separator, skipinitialspace=True))


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
