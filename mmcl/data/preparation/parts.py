"""Parts of a store while it is being made: written whole or not at all, found again after a crash."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa

from mmcl.data.clip import ClipSource
from mmcl.data.store import schema
from mmcl.errors import UserError
from mmcl.files import atomic_file, write_text

PART_CLIPS = 64  # a crash loses at most this many clips of work
PROGRESS = "progress"  # folder of what is only needed to go on after an interruption


@dataclass(frozen=True)
class Part:
    """A run of consecutive clips that share one Arrow file.

    Attributes:
        folder: the store being made.
        number: from 0.
        sources: its clips.
    """

    folder: Path
    number: int
    sources: Sequence[ClipSource]

    @property
    def file(self) -> Path:
        """The Arrow file."""
        return self.folder / "clips" / f"part-{self.number:05d}.arrow"

    @property
    def notes(self) -> Path:
        """What else is to be remembered of the part: its sources' digest and its bad clips."""
        return self.folder / PROGRESS / f"part-{self.number:05d}.json"

    def done(self) -> bool:
        """Written completely, from the same source files as they are now."""
        if not (self.file.is_file() and self.notes.is_file()):
            return False
        notes = json.loads(self.notes.read_text(encoding="utf-8"))
        return bool(notes["sources"] == digest(self.sources) and notes["bytes"] == self.file.stat().st_size)

    def skipped(self) -> list[tuple[str, str]]:
        """(id, reason) of the bad clips of a part that is done."""
        return [(name, reason) for name, reason in json.loads(self.notes.read_text(encoding="utf-8"))["skipped"]]

    def write(self, rows: list[dict[str, Any]], skipped: list[tuple[str, str]]) -> None:
        """Write the part: a temporary file, flushed to disk, then renamed; the notes go first."""
        from datasets.arrow_writer import ArrowWriter

        columns = schema()
        table = pa.table({column.name: pa.array([row[column.name] for row in rows], column.type) for column in columns})
        with atomic_file(self.file) as temporary:
            with ArrowWriter(schema=columns, path=str(temporary)) as writer:
                writer.write_table(table)
                writer.finalize()
            flush(temporary)
            facts = {"sources": digest(self.sources), "skipped": skipped, "bytes": temporary.stat().st_size}
            write_text(self.notes, json.dumps(facts))


def parts_of(folder: Path, sources: Sequence[ClipSource]) -> list[Part]:
    """Spread the clips of a dataset over parts, in order."""
    return [
        Part(folder, number, sources[start : start + PART_CLIPS])
        for number, start in enumerate(range(0, len(sources), PART_CLIPS))
    ]


def digest(sources: Sequence[ClipSource]) -> str:
    """sha256 over what the clips are said to be and how large their files are: tells when a part must be made again."""
    names = [entry.name for entry in fields(ClipSource) if entry.compare]
    facts = [
        [[getattr(source, name) for name in names], _size(source.skeleton), _size(source.video)] for source in sources
    ]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _size(path: str | None) -> int:
    with contextlib.suppress(OSError):
        return os.stat(path).st_size if path else 0
    return -1


@contextlib.contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Make the folder and keep other processes from preparing into it meanwhile. A killed process frees it.

    Raises:
        UserError: another process is at it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise UserError(f"{folder}: another `mmcl prepare` is writing there; wait for it, or end it") from error
    finally:
        os.close(handle)


def flush(path: Path) -> None:
    """Make sure that a file or folder has reached the disk."""
    with contextlib.suppress(PermissionError):  # Windows does not open folders
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
