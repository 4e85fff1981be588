"""``clips.csv``, the list by which people describe their own clips: what it says of them, of classes and of people."""

from __future__ import annotations

import difflib
from dataclasses import replace
from pathlib import Path

from mmcl.common.errors import UserError
from mmcl.data.readers.list_files import CLASSES, Line, read_list, read_names
from mmcl.data.readers.naming import MAX_CLASSES, numbered, plain_classes, spelling, whole
from mmcl.data.readers.text_table import NOTHING

LIST = "clips.csv"
NEEDED = ("id", "label")
COLUMNS = (*NEEDED, "subject", "split", "camera", "setup", "trial", "file", "video", "width", "height")
LARGEST = 2**31 - 1


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
        if (value := whole(cell)) is None or value > LARGEST:
            raise self.error(line, f"{column} '{cell}' is no whole number from 0")
        return value

    def error(self, line: Line, message: str) -> UserError:
        """An error that names the line."""
        return UserError(f"{self.path}, line {line.number}: {message}")

    def _read(self) -> tuple[list[str], list[Line]]:
        columns, lines = read_list(self.path)
        self._check_columns(columns)
        if not lines:
            raise UserError(f"{self.path}: no clips in it, only a header")
        return columns, [replace(line, cells=_without_nothing(line.cells)) for line in lines]

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
        names = read_names(path, {spelling(line["label"]) for line in self.lines})
        for line in self.lines:
            self._check_label(line, names or [])
        numbers = [whole(line["label"]) for line in self.lines]
        labels = [number for number in numbers if number is not None]
        if 0 < len(labels) < len(numbers):
            first = next(line for line, number in zip(self.lines, numbers, strict=True) if number is not None)
            other = self.lines[numbers.index(None)]
            raise self.error(other, f"label '{other['label']}' is a name, that of line {first.number} is a number")
        if not labels:
            names = names or sorted({line["label"] for line in self.lines})
            return names, [self._label(line, names) for line in self.lines]
        count = len(names) if names else MAX_CLASSES
        for line, label in zip(self.lines, labels, strict=True):
            if label >= count:
                raise self.error(line, f"label {label}, but there are {count} classes, counted from 0")
            if names and str(label) in names and names[label] != str(label):
                raise self.error(line, f"label {label} is a line of {CLASSES} and, counted from 0, the number of "
                                 f"another, '{names[label]}': give the classes names that are no numbers")  # fmt: skip
        return names or plain_classes(max(labels) + 1), labels

    def _check_label(self, line: Line, names: list[str]) -> None:
        label = line["label"]
        if not label:
            raise self.error(line, "no label")
        if label.lower() in NOTHING and not any(spelling(name) == spelling(label) for name in names):
            raise self.error(line, f"label '{label}' means that there is none: leave the clip out, or write the class "
                             f"into {CLASSES}, if it is called so")  # fmt: skip

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
        own = {name: number for name in who if (number := whole(name)) is not None and number < 10**9}
        names = numbered(name for name in who if name and name not in own)
        first = max(own.values(), default=0)
        numbers = {name: first + number for name, number in names.items()}
        return numbers, [own.get(name, numbers.get(name, 0)) for name in who]


def _without_nothing(cells: dict[str, str]) -> dict[str, str]:
    """Cells that say in a word that nothing is there are empty; a label may be one, and NA may be initials."""
    kept = {"id": NOTHING, "label": NOTHING, "subject": {"na", "nil", "missing"}}
    return {name: "" if cell.lower() in NOTHING - kept.get(name, set()) else cell for name, cell in cells.items()}
