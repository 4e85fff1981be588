"""Rows of bytes by key: several processes fill a folder together, and a kill loses nothing that was written.

Each writer has two files of its own. ``NAME.rows`` holds the bytes, one row after the other. ``NAME.index`` has an
entry of fixed size for each row and is written after the bytes have reached the disk, so that what it names is there;
half an entry at its end does not count. Written by hand because maps of these files are ten times as fast to read as
SQLite (0.8 ms against 8 ms for two megabytes, the hidden states of one clip).
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np

KEY = 16  # bytes of a row's key, and of the digest of the clip that it belongs to
ENTRY = np.dtype([("key", f"V{KEY}"), ("clip", f"V{KEY}"), ("start", "<u8"), ("size", "<u8")])


class Place(NamedTuple):
    """Where a row lies: name of the writer, first byte, number of bytes."""

    writer: str
    start: int
    size: int


class RowFolder:
    """Read access to a folder of rows. Pickles as its path, and each process maps the files for itself.

    Args:
        path: the folder; it need not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._maps: dict[str, np.ndarray] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return RowFolder, (self.path,)

    def entries(self) -> dict[str, np.ndarray]:
        """Writer -> its entries (see ENTRY), as far as their bytes are there."""
        found = {}
        for file in sorted(self.path.glob("*.index")):
            data = file.read_bytes()
            entries = np.frombuffer(data, ENTRY, len(data) // ENTRY.itemsize)
            rows = file.with_suffix(".rows")
            size = rows.stat().st_size if rows.is_file() else 0
            found[file.stem] = entries[entries["start"] + entries["size"] <= size]
        return found

    def find(self, keys: Iterable[bytes]) -> dict[bytes, Place]:
        """Where the rows under these keys lie, of those that there are."""
        wanted, found = set(keys), dict[bytes, Place]()
        beginnings = _beginnings(np.frombuffer(b"".join(wanted), ENTRY["key"]))
        for writer, entries in self.entries().items():
            for entry in entries[np.isin(_beginnings(entries["key"]), beginnings)]:
                if (name := bytes(entry["key"])) in wanted:
                    found[name] = Place(writer, int(entry["start"]), int(entry["size"]))
        return found

    def read(self, place: Place) -> np.ndarray:
        """The bytes of a row: (size,) uint8, a view on the map."""
        if place.writer not in self._maps or len(self._maps[place.writer]) < place.start + place.size:
            mapped = np.memmap(self.path / f"{place.writer}.rows", np.uint8, "r")
            self._maps[place.writer] = np.asarray(mapped)  # a slice of a plain array takes a fraction of the time
        return self._maps[place.writer][place.start : place.start + place.size]


def _beginnings(keys: np.ndarray) -> np.ndarray:
    """(n,) uint64: the first half of n keys, by which they are found quickly."""
    return np.ascontiguousarray(keys).view("<u8").reshape(-1, KEY // 8)[:, 0]


class RowWriter:
    """Adds rows to a folder, in files of its own, which are made with the first row.

    Args:
        path: the folder; it is there.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, secrets.token_hex(8)
        self._rows: Any = None
        self._index: Any = None

    def __enter__(self) -> RowWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for file in (self._rows, self._index):
            if file is not None:
                file.close()

    def add(self, keys: Sequence[bytes], clips: Sequence[bytes], rows: Sequence[bytes]) -> None:
        """Write rows; once this returns, they are there for everybody, and for ever.

        Args:
            keys: of the rows, KEY bytes each.
            clips: digests of the clips that they belong to, KEY bytes each.
            rows: their bytes.
        """
        if self._rows is None:
            self._rows = (self.path / f"{self.name}.rows").open("ab")
            self._index = (self.path / f"{self.name}.index").open("ab")
        entries = np.zeros(len(rows), ENTRY)
        for entry, key, clip, row in zip(entries, keys, clips, rows, strict=True):
            entry["key"], entry["clip"] = np.void(key), np.void(clip)
            entry["start"], entry["size"] = self._rows.tell(), len(row)
            self._rows.write(row)
        for file, data in ((self._rows, b""), (self._index, entries.tobytes())):
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
