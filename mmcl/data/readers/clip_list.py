"""``clips.csv``, the list by which people describe their own clips, and ``classes.txt``, their class names."""

from __future__ import annotations

import csv
import difflib
import io
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from mmcl.common.errors import BadClip, UserError
from mmcl.data.readers.files import read_bytes
from mmcl.data.readers.naming import MAX_CLASSES, numbered, plain_classes, spelling

LIST, CLASSES = "clips.csv", "classes.txt"
NEEDED = ("id", "label")
COLUMNS = (*NEEDED, "subject", "split", "camera", "setup", "trial", "file", "video", "width", "height")
LARGEST = 2**31 - 1
_WHOLE = re.compile(r"[0-9]{1,9}(\.0+)?")  # pandas writes 2.0 where a column has empty cells
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


class ClipList:
    """``clips.csv`` and, where there is one, ``classes.txt`` of a folder.

    Attributes:
        lines: one for each clip.
        columns: what the header names, of :data:`COLUMNS`.
        labels: class index of each clip.
        subjects: number of each clip's person; 0 where no column says who it is.
        subject_names: name -> number, where the list names people; empty where it numbers them.
        class_names: K names in label order.

    Raises:
        UserError: no such list, or a line of it cannot be used; the message names it.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LIST
        if not self.path.is_file():
            raise UserError(
                f"{folder}: no clips.csv in it; it lists the clips, one a line, under the header "
                f"{','.join(NEEDED)} and, if wanted, {','.join(COLUMNS[2:])}"
            )
        self._places: dict[str, list[int]] = {}
        self.columns, self.lines = self._read()
        self._check_ids()
        self.class_names, self.labels = self._classes(folder / CLASSES)
        self.subject_names, self.subjects = self._people()

    def number(self, line: Line, column: str, default: int = 1) -> int:
        """A whole number from 0 of a line; ``default`` where the cell is empty.

        Raises:
            UserError: the cell holds something else.
        """
        cell = line[column]
        if not cell:
            return default
        if not re.fullmatch(r"\d{1,10}(\.0+)?", cell, re.ASCII) or int(cell.partition(".")[0]) > LARGEST:
            raise self.error(line, f"{column} '{cell}' is no whole number from 0")
        return int(cell.partition(".")[0])

    def error(self, line: Line, message: str) -> UserError:
        """An error that names the line."""
        return UserError(f"{self.path}, line {line.number}: {message}")

    def _read(self) -> tuple[list[str], list[Line]]:
        columns, lines = read_list(self.path)
        self._check_columns(columns)
        if not lines:
            raise UserError(f"{self.path}: no clips in it, only a header")
        return columns, lines

    def _check_columns(self, columns: list[str]) -> None:
        for column in NEEDED:
            if columns.count(column) != 1:
                raise UserError(f"{self.path}: the first line must name a column '{column}'; it says {columns}")
        for column in columns:
            if column in COLUMNS and columns.count(column) > 1:
                raise UserError(f"{self.path}: two columns '{column}'")
            meant = difflib.get_close_matches(column, COLUMNS, 1, 0.8)
            if column not in COLUMNS and meant:  # ignored as any other column, the slip would show up much later
                raise UserError(f"{self.path}: unknown column '{column}': did you mean '{meant[0]}'?")

    def _check_ids(self) -> None:
        seen: dict[str, int] = {}
        for line in self.lines:
            name = line["id"]
            if not name or len(name) > 200 or "/" in name or "\\" in name:
                raise self.error(line, f"id {name!r:.80} is no name; say where the file lies in a column 'file'")
            if name in seen:
                raise self.error(line, f"id '{name}' is the one of line {seen[name]}, too")
            seen[name] = line.number

    def _classes(self, path: Path) -> tuple[list[str], list[int]]:
        """Class names and the label of each clip, by whichever of numbers and names the list uses."""
        names = _names(path, {spelling(line["label"]) for line in self.lines})
        for line in self.lines:
            if not line["label"]:
                raise self.error(line, "no label")
        whole = [_WHOLE.fullmatch(line["label"]) is not None for line in self.lines]
        if not all(whole) and any(whole):
            first, other = self.lines[whole.index(True)], self.lines[whole.index(False)]
            raise self.error(other, f"label '{other['label']}' is a name, that of line {first.number} is a number")
        if not any(whole):
            names = names or sorted({line["label"] for line in self.lines})
            return names, [self._label(line, names) for line in self.lines]
        labels = [int(line["label"].partition(".")[0]) for line in self.lines]
        count = len(names) if names else MAX_CLASSES
        for line, label in zip(self.lines, labels, strict=True):
            if label >= count:
                raise self.error(line, f"label {label}, but there are {count} classes, counted from 0")
            if names and str(label) in names and names[label] != str(label):
                raise self.error(line, f"label {label} is a line of {CLASSES} and, counted from 0, the number of "
                                 f"another, '{names[label]}': give the classes names that are no numbers")  # fmt: skip
        return names or plain_classes(max(labels) + 1), labels

    def _label(self, line: Line, names: list[str]) -> int:
        """Where a line's class is in a list; where it is spelled otherwise there, and only once, that one."""
        if not self._places:
            for label, name in enumerate(names):
                self._places.setdefault(name, []).append(label)
                if spelling(name) != name:
                    self._places.setdefault(spelling(name), []).append(label)
        for key in (line["label"], spelling(line["label"])):
            if len(found := self._places.get(key, [])) == 1:
                return found[0]
        if line["label"] in names:
            return names.index(line["label"])
        raise self.error(line, f"label '{line['label']}' is none of the {len(names)} lines of {CLASSES}")

    def _people(self) -> tuple[dict[str, int], list[int]]:
        """Names of people with their numbers, and the number of each line's; a cell that is a number keeps it."""
        who = [line["subject"] for line in self.lines]
        own = {name: int(name.partition(".")[0]) for name in who if re.fullmatch(r"\d{1,9}(\.0+)?", name, re.ASCII)}
        names = numbered(name for name in who if name and name not in own)
        first = max(own.values(), default=0)
        numbers = {name: first + number for name, number in names.items()}
        return numbers, [own.get(name, numbers.get(name, 0)) for name in who]


def read_list(path: Path) -> tuple[list[str], list[Line]]:
    """The columns of a list in small letters, and its lines, as spreadsheets of any country write them.

    Raises:
        UserError: no text, or a line of more or fewer cells than the header has.
    """
    text = _text(path)
    header = text.partition("\n")[0]
    separator = max(",;\t", key=header.count)  # spreadsheets of half of Europe write semicolons
    rows = csv.reader(io.StringIO(text), delimiter=separator)
    lines = []
    try:
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


def _names(path: Path, labels: set[str]) -> list[str] | None:
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
        return read_bytes(path).decode("utf-8-sig")  # spreadsheets put a mark before the text
    except (BadClip, UnicodeDecodeError) as error:
        reason = error if isinstance(error, BadClip) else "not UTF-8 text; save it as CSV UTF-8"
        raise UserError(f"{path}: {reason}") from error
