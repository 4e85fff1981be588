"""A store while it is being made: parts that only grow, and a journal by which a later call goes on after a crash."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout

from mmcl.common.errors import UserError
from mmcl.common.files import room_for, write_text
from mmcl.data.columns import batch_of, clip_digest, schema

GROUP_CLIPS = 64  # written and flushed at once: a crash loses at most this many clips of work
PART_BYTES = 64 << 20  # a part that has grown so large is followed by the next one
LOCK = ".writer.lock"
OWN = {"clips", "features", "check", "progress"}  # folders in a store that mmcl can make again
PROGRESS = "progress"  # folder of what is only needed to go on after an interruption
T = TypeVar("T")


class Parts:
    """Writes groups of clips, in order, to ``clips/part-00000.arrow …``.

    A group is appended to the last part and flushed to disk; then a line of the journal says how long the part is now.
    Whatever lies beyond the last whole line is cut off when the work is taken up again.

    Args:
        folder: the store being made.
        marks: of each group, what tells whether it has to be made again; see :mod:`mmcl.data.preparation.sources`.
        again: whether a clip (its name) that was bad for this reason is to be tried again. Its group and all that
            follow it are made again then, since parts only grow at their end.

    Attributes:
        done: groups that are written already.
        skipped: (id, reason) of the bad clips in them.
        mended: (id, what was done, kind) of what was mended in the good ones.
    """

    def __init__(
        self, folder: Path, marks: Sequence[str], again: Callable[[str, str], bool] = lambda name, reason: False
    ) -> None:
        self.clips, self.journal, self.marks = folder / "clips", folder / PROGRESS / "journal.jsonl", marks
        self.schema = schema()
        self.sizes: dict[str, list[int]] = {}  # part -> clips, bytes
        self.skipped: list[tuple[str, str]] = []
        self.mended: list[tuple[str, str, str]] = []
        self.done = 0
        self._take_up(again)

    @property
    def facts(self) -> list[dict[str, Any]]:
        """The parts, as ``store.json`` lists them."""
        return [{"file": name, "clips": clips, "bytes": size} for name, (clips, size) in self.sizes.items()]

    def append(self, rows: Sequence[Mapping[str, Any]], skipped: Sequence[tuple[str, str]]) -> None:
        """Write the next group: its good clips (none, maybe), and the names of its bad ones with the reasons."""
        name = self._open_part()
        clips, size = self.sizes.get(name, (0, 0))
        if rows:
            batch = batch_of([{**row, "digest": clip_digest(row)} for row in rows], self.schema)
            with room_for(self.clips / name), open(self.clips / name, "ab") as file:
                if file.tell() == 0:
                    file.write(self.schema.serialize())
                file.write(batch.serialize())
                clips, size = clips + len(rows), file.tell()
                _to_disk(file)
        mended = [(row["id"], what, kind) for row in rows for kind, what in row.get("remarks", ())]
        entry = {"mark": self.marks[self.done], "part": name, "clips": clips, "bytes": size, "skipped": skipped}
        entry |= {"mended": mended} if mended else {}
        with room_for(self.journal), open(self.journal, "a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
            _to_disk(file)
        self._note(entry)

    def _note(self, entry: dict[str, Any]) -> None:
        self.done += 1
        self.skipped += [(name, reason) for name, reason in entry["skipped"]]
        self.mended += [(name, what, kind) for name, what, kind in entry.get("mended", ())]
        if entry["bytes"]:
            self.sizes[entry["part"]] = [entry["clips"], entry["bytes"]]

    def _open_part(self) -> str:
        """Name of the part that grows."""
        if not self.sizes:
            return _name(0)
        last = next(reversed(self.sizes))
        return last if self.sizes[last][1] < PART_BYTES else _name(len(self.sizes))

    def _take_up(self, again: Callable[[str, str], bool]) -> None:
        """Believe the journal as far as its lines are whole and their sources and files are as they were."""
        lines = self.journal.read_text(encoding="utf-8").splitlines() if self.journal.is_file() else []
        kept = []
        for line, mark in zip(lines, self.marks, strict=False):
            try:
                entry = json.loads(line)
            except ValueError:  # a killed process did not finish it
                break
            if entry["mark"] != mark or _size(self.clips / entry["part"]) < entry["bytes"]:
                break
            if any(again(name, reason) for name, reason in entry["skipped"]):
                break
            self._note(entry)
            kept.append(line + "\n")
        self.clips.mkdir(parents=True, exist_ok=True)
        self.journal.parent.mkdir(parents=True, exist_ok=True)
        for file in self.clips.iterdir():
            if file.name in self.sizes:
                os.truncate(file, self.sizes[file.name][1])
            else:
                file.unlink()
        write_text(self.journal, "".join(kept))


def groups(items: Sequence[T]) -> list[Sequence[T]]:
    """Clips that are written at once."""
    return [items[start : start + GROUP_CLIPS] for start in range(0, len(items), GROUP_CLIPS)]


def _name(number: int) -> str:
    return f"part-{number:05d}.arrow"


def _size(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0


def _to_disk(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())


@contextlib.contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Make the folder and keep other processes from preparing into it meanwhile. A killed process frees it.

    Raises:
        UserError: another process is at it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / LOCK, timeout=0):
            yield
    except Timeout as error:
        raise UserError(f"{folder}: another `mmcl prepare` is writing there; wait for it, or end it") from error


def check_nothing_else(store: Path) -> None:
    """Whether a store that is to be replaced holds nothing that would be lost with it, such as a trained run.

    Raises:
        UserError: it holds folders that are not a store's own.
    """
    if others := sorted(path.name for path in store.iterdir() if path.is_dir() and path.name not in OWN):
        names = ", ".join(others[:3]) + (", …" if len(others) > 3 else "")
        raise UserError(f"{store} is not replaced, {names} in it would be lost: move that, or choose another --out")


def flush(path: Path) -> None:
    """Make sure that a file or folder has reached the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
