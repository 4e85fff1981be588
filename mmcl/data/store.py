"""The clip store: a folder of prepared clips, memory-mapped, shared by all processes of a machine.

``store.json`` is written last, so its presence means complete. ``index.arrow`` holds the short columns of all clips,
which is all that opening reads. The clips lie in ``clips/part-00000.arrow …``, Arrow streams of some 64 MB that
``datasets.Dataset.from_file`` opens too. When a clip is first read, what was read is compared with the clip's digest,
so that a damaged disk or copy ends a training instead of going into it.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mmcl.common.errors import UserError
from mmcl.common.printing import one_line
from mmcl.data.clip_parts import ClipParts
from mmcl.data.columns import WHOLE_NUMBERS, clip_digest, content_fingerprint, map_file
from mmcl.data.location import StoreFolder, locate
from mmcl.data.store_facts import check_index, read_facts
from mmcl.skeletons.layout import Layout

INDEX = "index.arrow"


class ClipStore:
    """Read access to a finished store; joints and crops stay on disk until asked for.

    Pickles as its location: a worker process that is sent one maps the files itself. Arrays are read-only views on the
    maps of its parts.

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
        parts: the files of the clips, see :class:`mmcl.data.clip_parts.ClipParts`.
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
        self._numbers = {name: index.column(name).to_numpy().astype(np.int64) for name in WHOLE_NUMBERS}
        self.labels, self.subjects = self._numbers["label"], self._numbers["subject"]
        self.cameras, self.setups = self._numbers["camera"], self._numbers["setup"]
        self.trials, self.bodies = self._numbers["trial"], self._numbers["bodies"]
        self.frames, self.video_frames = self._numbers["frames"], self._numbers["video_frames"]
        self.parts = ClipParts(folder, info, self.ids)
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
        return self.parts.shaped("joints", index, *self._shape(index), self.dimensions)

    def joints_in_space(self, index: int) -> np.ndarray:
        """The same with three coordinates, (M, T, V, 3): z is 0 of planar joints."""
        joints = self.joints(index)
        return joints if self.dimensions == 3 else np.pad(joints, [(0, 0)] * 3 + [(0, 1)])

    def confidence(self, index: int) -> np.ndarray | None:
        """How sure a pose estimator was of each joint of one clip: (M, T, V) float32 in [0, 1]; None where unknown."""
        self.compare(index)
        found = self.parts.confidence(index)
        try:
            return found.astype(np.float32).reshape(self._shape(index)) if len(found) else None
        except ValueError as error:
            raise self.parts.damaged(index) from error

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
        crops: list[bytes] = self.parts.cell("crops", index).to_pylist()
        return crops

    def frame_indices(self, index: int) -> np.ndarray:
        """(m,) int32: the skeleton frames that were sampled."""
        found = self.parts.shaped("frame_indices", index, -1)
        if len(found) and not 0 <= found.min() <= found.max() < self.frames[index]:
            raise self.parts.damaged(index)
        return found

    def boxes(self, index: int) -> np.ndarray:
        """(m, 4) float32 x0, y0, x1, y1 of the crops in video pixels; (0, 4) without video."""
        return self.parts.shaped("boxes", index, -1, 4)

    def pixels(self, index: int) -> np.ndarray:
        """(m, M, V, 2) float32 joints of the sampled frames in video pixels; (0, M, V, 2) where nothing is known."""
        found = self.parts.shaped("pixels", index, -1, int(self.bodies[index]), self.layout.joint_count, 2)
        if 0 < len(found) != len(self.boxes(index)) > 0:
            raise self.parts.damaged(index)
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
            row |= {"id": self.ids[index], "splits": self.splits[index], "joints": self.parts.flat("joints", index)}
            row |= {"confidence": self.parts.confidence(index), "crops": self.parts.cell("crops", index).to_pylist()}
            same = clip_digest(row) == self.digest(index)
        except (ValueError, TypeError, pa.ArrowException) as error:  # TypeErrors: of a crop without a value
            raise self.parts.damaged(index) from error
        if not same:
            raise self.parts.damaged(index)
        self._compared[index] = True

    def digest(self, index: int) -> bytes:
        """sha256 over the content of one clip, see :func:`mmcl.data.columns.clip_digest`; no part is read for it."""
        digest: bytes = self.index.column("digest")[index].as_py()
        return digest

    def _shape(self, index: int) -> tuple[int, int, int]:
        return int(self.bodies[index]), int(self.frames[index]), self.layout.joint_count


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
        info = read_facts(facts, folder.location)
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
