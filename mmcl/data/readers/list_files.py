"""Reads the lists that people write, clips.csv and classes.txt, as spreadsheets of any country save them."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from mmcl.common.errors import BadClip, UserError
from mmcl.data.readers.files import read_bytes
from mmcl.data.readers.naming import MAX_CLASSES, spelling
from mmcl.data.readers.plain_text import refuse_packed

CLASSES = "classes.txt"
_NUMBERED = re.compile(r"([0-9]{1,6})[\s.,:;)=-]+(\S.*)")


@dataclass(frozen=True)
class Line:
    """One clip of the list.

    Attributes:
        number: of the line in the file, from 1.
        cells: what it says, by column; "" where a column or a cell is empty.
    """

    number: int
    cells: dict[str, str]

    def __getitem__(self, column: str) -> str:
        return self.cells.get(column, "")


def read_list(path: Path) -> tuple[list[str], list[Line]]:
    """The columns of a list in small letters, and its lines, as spreadsheets of any country write them.

    Raises:
        UserError: no text, or a line of more or fewer cells than the header has.
    """
    text = _text(path)
    first = text.partition("\n")[0]
    told = re.fullmatch(r"sep=([,;\t])", first, re.IGNORECASE)  # for Excel, which does not show this line
    # Spreadsheets of half of Europe write semicolons.
    separator = told[1] if told else max(",;\t", key=first.count)
    rows = csv.reader(io.StringIO(text), delimiter=separator)
    lines = []
    try:
        if told:
            next(rows)
        columns = [cell.strip().lower() for cell in next(rows, [])]
        for row in rows:
            cells = [unicodedata.normalize("NFC", cell.strip()) for cell in row]  # macOS writes ü as u and two dots
            where = f"{path}, line {rows.line_num}"
            if len(cells) != len(columns) and any(cells):
                raise UserError(f"{where}: {len(cells)} cells, but the header has {len(columns)}")
            if not all(cell.isprintable() for cell in cells):
                raise UserError(f"{where}: an unprintable character in {','.join(cells)!r:.80}")
            if any(cells):
                lines.append(Line(rows.line_num, dict(zip(columns, cells, strict=False))))
    except csv.Error as error:
        raise UserError(f"{path}, line {rows.line_num}: {error}") from error
    return columns, lines


def read_names(path: Path, labels: set[str]) -> list[str] | None:
    """Lines of ``classes.txt``, numbers before them left out unless a label has its number, too; None without it."""
    if not path.exists():
        return None
    text = unicodedata.normalize("NFC", _text(path))
    names = [line.strip() for line in text.splitlines() if line.strip()]
    if labels.isdisjoint(map(spelling, names)):
        names = _without_numbers(names, path)
    if not names or len(set(names)) != len(names) or len(names) > MAX_CLASSES or not all(map(str.isprintable, names)):
        raise UserError(f"{path}: expected different class names, one a line")
    return names


def _without_numbers(lines: list[str], path: Path) -> list[str]:
    """Lines without the numbers that stand before all of them, where they count from 0.

    Raises:
        UserError: they count otherwise.
    """
    found = [_NUMBERED.fullmatch(line) for line in lines]
    if len(lines) < 2 or not all(found):
        return lines
    numbers = [int(match[1]) for match in found if match]
    if numbers != list(range(len(lines))):
        raise UserError(f"{path}: its lines are numbered, and not from 0 upwards: leave the numbers out, in the order "
                        "of the labels")  # fmt: skip
    return [match[2] for match in found if match]


def _text(path: Path) -> str:
    try:
        data = read_bytes(path)
        refuse_packed(data)
        text = data.decode("utf-8-sig")  # spreadsheets put a mark before the text
        return re.sub(r"\r\n?", "\n", text)  # and older ones of Macs end lines by \r alone
    except (BadClip, UnicodeDecodeError) as error:
        reason = error if isinstance(error, BadClip) else "not UTF-8 text; save it as CSV UTF-8"
        raise UserError(f"{path}: {reason}") from error
