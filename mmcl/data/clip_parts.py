"""The files that hold a store's clips: each is mapped when a clip of it is first asked for.

Of a store behind a URL, a file is fetched then, too.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from mmcl.common.errors import UserError
from mmcl.data.columns import FLAT, check_lists, file_digest, map_file
from mmcl.data.location import StoreFolder

RESIDENT = 64 << 20  # bytes of clips handed out after which all maps are dropped: keeps the process's size bounded


class DamagedClip(UserError):
    """A clip is not what it was when the store was made."""


class ClipParts:
    """List columns of a store's clips, by their positions.

    Arrays are read-only views on the maps. Pages that were touched belong to the page cache, which all processes share;
    so that they are not counted for a process for ever, maps are dropped now and then (views that are still in use stay
    valid) and made anew.

    Args:
        folder: of the store.
        info: content of ``store.json``.
        ids: names of the clips.

    Attributes:
        maps: part -> its record batches, and the row of the part at which each of them starts.
    """

    def __init__(self, folder: StoreFolder, info: dict[str, Any], ids: Sequence[str]) -> None:
        self.folder, self.info, self.ids = folder, info, ids
        self.maps: dict[int, tuple[list[pa.RecordBatch], list[int]]] = {}
        self._starts: list[int] = np.cumsum([0, *(part["clips"] for part in info["parts"])]).tolist()
        self._handed_out = 0

    def cell(self, column: str, index: int) -> pa.Array:
        """One row of a list column."""
        if not 0 <= index < len(self.ids):
            raise IndexError(f"clip {index} of {len(self.ids)}")
        part = bisect_right(self._starts, index) - 1
        batches, starts = self._mapped(part)
        row = index - self._starts[part]
        batch = bisect_right(starts, row) - 1
        values = batches[batch].column(column)[row - starts[batch]].values
        self._handed_out += values.nbytes
        return values

    def flat(self, column: str, index: int) -> np.ndarray:
        """The numbers of one row, one after the other."""
        return self.cell(column, index).to_numpy(zero_copy_only=True)

    def shaped(self, column: str, index: int, *shape: int) -> np.ndarray:
        """The numbers of one row as an array of that shape.

        Raises:
            DamagedClip: they are more or fewer.
        """
        try:
            return self.flat(column, index).reshape(shape)
        except ValueError as error:  # of another length, or a number without a value, which is a ValueError of Arrow's
            raise self.damaged(index) from error

    def confidence(self, index: int) -> np.ndarray:
        """Confidences of one clip, one after the other; none where it has none, or the store is of format 3."""
        return self.flat("confidence", index) if self.info["format"] >= 4 else np.zeros(0, dtype=np.float16)

    def damaged(self, index: int) -> DamagedClip:
        """The error that a clip is not what it was."""
        return DamagedClip(
            f"{self.folder.location}: clip {self.ids[index]} is not what was prepared (a damaged disk or copy): "
            "prepare the store again with --overwrite, or copy it again"
        )

    def damaged_files(self) -> list[str]:
        """Names of the files whose content is not what was written; every byte is read. Format 3 has no digests."""
        if self.info["format"] < 4:
            return []
        names = {f"clips/{part['file']}": part for part in self.info["parts"]}
        files = {name: self.folder.file(name, part["bytes"]) for name, part in names.items()}
        return [name for name, part in names.items() if file_digest(files[name]) != part["sha256"]]

    def _lists(self) -> list[str]:
        """The list columns that parts have."""
        return [name for name in (*FLAT, "crops") if name != "confidence" or self.info["format"] >= 4]

    def _mapped(self, part: int) -> tuple[list[pa.RecordBatch], list[int]]:
        """Record batches of a part, and the row of the part at which each of them starts."""
        if self._handed_out > RESIDENT:
            self._handed_out = 0
            self.maps.clear()
        if part not in self.maps:
            facts = self.info["parts"][part]
            name, location = f"clips/{facts['file']}", self.folder.location
            try:
                batches = map_file(self.folder.file(name, facts["bytes"]))
                for batch in batches[:1]:  # all have the schema of their stream
                    check_lists(batch.schema, self._lists())
            except ValueError as error:
                raise DamagedClip(f"{location}/{name}: damaged ({error}); prepare the store again") from error
            starts = np.cumsum([0, *(batch.num_rows for batch in batches)]).tolist()
            if starts[-1] != facts["clips"]:
                raise DamagedClip(f"{location}/{name}: {starts[-1]} clips, not {facts['clips']}; damaged store")
            self.maps[part] = batches, starts
        return self.maps[part]
