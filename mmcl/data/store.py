"""The clip store: a folder of prepared clips, memory-mapped, shared by all processes of a machine.

``store.json`` is written last, so its presence means complete. ``index.arrow`` holds the short columns of all clips,
which is all that opening reads. The clips lie in ``clips/part-00000.arrow …``, Arrow streams of some 64 MB that
``datasets.Dataset.from_file`` opens too; each is mapped (and, of a store behind a URL, fetched) when a clip of it is
first asked for. When a clip is first read, what was read is compared with the clip's digest, so that a damaged disk or
copy ends a training instead of going into it.
"""

from __future__ import annotations

from bisect import bisect_right
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mmcl.common.documents import parse_json
from mmcl.common.errors import UserError
from mmcl.common.printing import one_line
from mmcl.data.columns import (
    FLAT,
    READABLE,
    WHOLE_NUMBERS,
    check_lists,
    clip_digest,
    content_fingerprint,
    file_digest,
    map_file,
)
from mmcl.data.location import StoreFolder, locate
from mmcl.data.store_facts import check_facts, check_index
from mmcl.skeletons.layout import Layout

INDEX = "index.arrow"
RESIDENT = 64 << 20  # bytes of clips handed out after which all maps are dropped: keeps the process's size bounded


class DamagedClip(UserError):
    """A clip is not what it was when the store was made."""


class ClipStore:
    """Read access to a finished store; joints and crops stay on disk until asked for.

    Pickles as its location: a worker process that is sent one maps the files itself. Arrays are read-only views on the
    maps. Pages that were touched belong to the page cache, which all processes share; so that they are not counted for
    a process for ever, maps are dropped now and then (views that are still in use stay valid) and made anew.

    Attributes:
        path: its folder; of a store behind a URL, the folder of this machine's copies.
        location: what it was opened by.
        info: content of ``store.json``.
        dataset: name of the dataset, as prompts and protocols use it ("utd_mhad").
        title: name for people; says so where the store is but one shard of the dataset.
        layout: joints of its skeletons.
        class_names: K names in label order.
        subject_names: name -> number of the people, where their files name them.
        fps: skeleton frames per second.
        fingerprint: sha256 over content and meaning; see :func:`mmcl.data.columns.content_fingerprint`.
        dimensions: C, coordinates of a joint: 3, or 2 where joints were found in pictures.
        has_confidence: at least one clip says how sure a pose estimator was of its joints.
        has_video: at least one clip has crops.
        shard: (index from 1, count) where the store is one shard of the dataset; None where it is whole.
        ids: names of the clips, unique.
        labels, subjects, cameras, setups, trials, bodies, frames, video_frames: (clips,) int64.
    """

    def __init__(self, folder: StoreFolder, info: dict[str, Any], index: pa.Table) -> None:
        self.folder, self.info, self.index = folder, info, index
        self.path, self.location = folder.path, folder.location
        self.dataset: str = info["dataset"]
        self.layout = Layout.from_dict(info["layout"], where=f"{folder.location}/store.json")
        self.class_names: list[str] = info["class_names"]
        self.subject_names: dict[str, int] = info.get("subject_names", {})
        self.fps: float = info["fps"]
        self.fingerprint: str = info["fingerprint"]
        self.dimensions: int = info.get("dimensions", 3)
        self.has_confidence: bool = info.get("with_confidence", 0) > 0
        self.has_video: bool = info["with_video"] > 0
        shard = info.get("shard")
        self.shard: tuple[int, int] | None = (shard["index"], shard["count"]) if shard else None
        only = f" (shard {self.shard[0]} of {self.shard[1]} only)" if self.shard else ""
        self.title: str = one_line(info["title"]) + only
        self.ids: list[str] = index.column("id").to_pylist()
        self._numbers = {name: self._whole(name) for name in WHOLE_NUMBERS}
        self.labels, self.subjects = self._numbers["label"], self._numbers["subject"]
        self.cameras, self.setups = self._numbers["camera"], self._numbers["setup"]
        self.trials, self.bodies = self._numbers["trial"], self._numbers["bodies"]
        self.frames, self.video_frames = self._numbers["frames"], self._numbers["video_frames"]
        self._starts: list[int] = np.cumsum([0, *(part["clips"] for part in info["parts"])]).tolist()
        self._maps: dict[int, tuple[list[pa.RecordBatch], list[int]]] = {}
        self._handed_out = 0
        self._compared = np.zeros(len(self.ids), dtype=bool)

    def __len__(self) -> int:
        return len(self.ids)

    def __reduce__(self) -> tuple[Any, ...]:
        return open_store, (self.location,)

    @cached_property
    def splits(self) -> list[list[str]]:
        """Of each clip, the lists of its dataset's own files that it is on; equal ones are one object."""
        known: dict[tuple[str, ...], list[str]] = {}
        return [known.setdefault(tuple(names), names) for names in self.index.column("splits").to_pylist()]

    def joints(self, index: int) -> np.ndarray:
        """Joints of one clip: (M, T, V, C) float32, a read-only view on the memory map.

        C is ``dimensions``. In space joints are in metres; planar ones have half the picture's height as their unit.

        Raises:
            DamagedClip: they are not what they were when the store was made.
        """
        self.compare(index)
        return self._shaped("joints", index, *self._shape(index), self.dimensions)

    def joints_in_space(self, index: int) -> np.ndarray:
        """The same with three coordinates, (M, T, V, 3): z is 0 of planar joints."""
        joints = self.joints(index)
        return joints if self.dimensions == 3 else np.pad(joints, [(0, 0)] * 3 + [(0, 1)])

    def confidence(self, index: int) -> np.ndarray | None:
        """How sure a pose estimator was of each joint of one clip: (M, T, V) float32 in [0, 1]; None where unknown."""
        self.compare(index)
        found = self._confidence(index)
        try:
            return found.astype(np.float32).reshape(self._shape(index)) if len(found) else None
        except ValueError as error:
            raise self._damaged(index) from error

    @property
    def channels(self) -> int:
        """Numbers a joint in :meth:`numbers`."""
        return 4 if self.has_confidence else self.dimensions

    def numbers(self, index: int) -> np.ndarray:
        """All that is known of the joints of one clip, as a model takes it: (M, T, V, channels) float32.

        These are its coordinates; or, where the store has confidences, x, y, z (0 where planar) and the confidence. A
        clip without confidences in such a store is sure of every joint that is there.
        """
        if not self.has_confidence:
            return self.joints(index)
        joints, confidence = self.joints_in_space(index), self.confidence(index)
        sure = np.asarray(joints.any(axis=-1)) if confidence is None else confidence
        return np.concatenate([joints, sure[..., None]], axis=-1, dtype=np.float32)

    def crops(self, index: int) -> list[bytes]:
        """The m person crops of one clip, JPEG, in time order; empty where it has no video."""
        self.compare(index)
        crops: list[bytes] = self._cell("crops", index).to_pylist()
        return crops

    def frame_indices(self, index: int) -> np.ndarray:
        """(m,) int32: the skeleton frames that were sampled."""
        found = self._shaped("frame_indices", index, -1)
        if len(found) and not 0 <= found.min() <= found.max() < self.frames[index]:
            raise self._damaged(index)
        return found

    def boxes(self, index: int) -> np.ndarray:
        """(m, 4) float32 x0, y0, x1, y1 of the crops in video pixels; (0, 4) without video."""
        return self._shaped("boxes", index, -1, 4)

    def pixels(self, index: int) -> np.ndarray:
        """(m, M, V, 2) float32 joints of the sampled frames in video pixels; (0, M, V, 2) where nothing is known."""
        found = self._shaped("pixels", index, -1, int(self.bodies[index]), self.layout.joint_count, 2)
        if 0 < len(found) != len(self.boxes(index)) > 0:
            raise self._damaged(index)
        return found

    def compare(self, index: int) -> None:
        """Compare what is read of a clip with its digest, once in a process. Boxes and pixels are not looked at.

        Raises:
            DamagedClip: they differ.
        """
        if 0 <= index < len(self.ids) and self._compared[index]:
            return
        try:
            row: dict[str, Any] = {name: int(values[index]) for name, values in self._numbers.items()}
            row |= {"id": self.ids[index], "splits": self.splits[index], "joints": self._flat("joints", index)}
            row |= {"confidence": self._confidence(index), "crops": self._cell("crops", index).to_pylist()}
            same = clip_digest(row) == self.digest(index)
        except (ValueError, TypeError, pa.ArrowException) as error:  # TypeErrors: of a crop without a value
            raise self._damaged(index) from error
        if not same:
            raise self._damaged(index)
        self._compared[index] = True

    def digest(self, index: int) -> bytes:
        """sha256 over the content of one clip, see :func:`mmcl.data.columns.clip_digest`; no part is read for it."""
        digest: bytes = self.index.column("digest")[index].as_py()
        return digest

    def _damaged(self, index: int) -> DamagedClip:
        return DamagedClip(
            f"{self.location}: clip {self.ids[index]} is not what was prepared (a damaged disk or copy): prepare the "
            "store again with --overwrite, or copy it again"
        )

    def damaged_parts(self) -> list[str]:
        """Names of the files whose content is not what was written; every byte is read. Format 3 has no digests."""
        if self.info["format"] < 4:
            return []
        names = {f"clips/{part['file']}": part for part in self.info["parts"]}
        files = {name: self.folder.file(name, part["bytes"]) for name, part in names.items()}
        return [name for name, part in names.items() if file_digest(files[name]) != part["sha256"]]

    def _lists(self) -> list[str]:
        """The list columns that parts have."""
        return [name for name in (*FLAT, "crops") if name != "confidence" or self.info["format"] >= 4]

    def _shape(self, index: int) -> tuple[int, int, int]:
        return int(self.bodies[index]), int(self.frames[index]), self.layout.joint_count

    def _confidence(self, index: int) -> np.ndarray:
        return self._flat("confidence", index) if self.info["format"] >= 4 else np.zeros(0, dtype=np.float16)

    def _whole(self, column: str) -> np.ndarray:
        return self.index.column(column).to_numpy().astype(np.int64)

    def _cell(self, column: str, index: int) -> pa.Array:
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

    def _flat(self, column: str, index: int) -> np.ndarray:
        return self._cell(column, index).to_numpy(zero_copy_only=True)

    def _shaped(self, column: str, index: int, *shape: int) -> np.ndarray:
        try:
            return self._flat(column, index).reshape(shape)
        except ValueError as error:  # of another length, or a number without a value, which is a ValueError of Arrow's
            raise self._damaged(index) from error

    def _mapped(self, part: int) -> tuple[list[pa.RecordBatch], list[int]]:
        """Record batches of a part, and the row of the part at which each of them starts."""
        if self._handed_out > RESIDENT:
            self._handed_out = 0
            self._maps.clear()
        if part not in self._maps:
            facts = self.info["parts"][part]
            name = f"clips/{facts['file']}"
            try:
                batches = map_file(self.folder.file(name, facts["bytes"]))
                for batch in batches[:1]:  # all have the schema of their stream
                    check_lists(batch.schema, self._lists())
            except ValueError as error:
                raise DamagedClip(f"{self.location}/{name}: damaged ({error}); prepare the store again") from error
            starts = np.cumsum([0, *(batch.num_rows for batch in batches)]).tolist()
            if starts[-1] != facts["clips"]:
                raise DamagedClip(f"{self.location}/{name}: {starts[-1]} clips, not {facts['clips']}; damaged store")
            self._maps[part] = batches, starts
        return self._maps[part]


def open_store(where: str | Path) -> ClipStore:
    """Open a finished store.

    Args:
        where: its folder, or a URL of any kind that fsspec reads (as text: a Path would swallow a slash).

    Raises:
        UserError: there is no store, a preparation there did not finish, or a file of it is missing or cut off.
    """
    folder = locate(where)
    try:
        facts = folder.facts()
        if facts is None:
            raise UserError(f"{folder.location}: {folder.missing()}")
        info = parse_json(facts, f"{folder.location}/store.json")
        if isinstance(info, dict) and info.get("format") not in READABLE:
            known = " and ".join(map(str, READABLE))
            found = f"{info.get('format')!r:.20}"
            raise UserError(f"{folder.location}: format {found}, this mmcl reads {known}; prepare it again")
        check_facts(info)
        for part in info["parts"]:
            folder.check(f"clips/{part['file']}", part["bytes"])
        index = pa.Table.from_batches(map_file(folder.file(INDEX, info["index_bytes"])))
        check_index(index, info)
        if content_fingerprint(index.column("digest").to_pylist(), info) != info["fingerprint"]:
            raise UserError(
                f"{folder.location}/{INDEX}: not the index of this store; prepare it again with --overwrite"
            )
        return ClipStore(folder, info, index)
    except (ValueError, KeyError, TypeError, OverflowError, pa.ArrowException) as error:
        raise UserError(f"{folder.location}: damaged store ({error}); prepare it again with --overwrite") from error
