"""The clip store: a folder of prepared clips, memory-mapped, shared by all processes of a machine.

``store.json`` is written last, so its presence means complete. The clips lie in ``clips/part-00000.arrow …``, Arrow
streams that ``datasets.Dataset.from_file`` opens too. Ragged arrays are flat lists: joints is M*T*V*3 float32 numbers.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mmcl.errors import UserError
from mmcl.skeletons.layout import Layout

FORMAT = 2
WHOLE_NUMBERS = ("label", "subject", "camera", "setup", "trial", "bodies", "frames", "video_frames")


def schema() -> pa.Schema:
    """Columns of a store, with the metadata by which `datasets` recognises them.

    id; splits, the lists of its dataset's own files that a clip is on; label, subject, camera, setup, trial; bodies
    M; frames T; video_frames (0 without video); joints M*T*V*3 metres; frame_indices, the m sampled skeleton
    frames; crops, a JPEG for each of them (none without video); boxes m*4, x0 y0 x1 y1 of the crops in video
    pixels; pixels m*M*V*2, the sampled frames' joints in video pixels (NaN where unknown).
    """
    from datasets import Features, List, Value

    columns: dict[str, Any] = {"id": Value("string")}
    columns |= {name: Value("int32") for name in WHOLE_NUMBERS}
    columns |= {"splits": List(Value("string"))}
    columns |= {"joints": List(Value("float32")), "frame_indices": List(Value("int32"))}
    columns |= {"crops": List(Value("binary")), "boxes": List(Value("float32")), "pixels": List(Value("float32"))}
    return Features(columns).arrow_schema


class ClipStore:
    """Read access to a finished store. Opening reads the short columns; joints and crops stay on disk until asked for.

    Pickles as its path: a worker process that is sent one maps the files itself.

    Attributes:
        path: its folder.
        info: content of ``store.json``.
        dataset: name of the dataset, as prompts and protocols use it ("utd_mhad").
        layout: joints of its skeletons.
        class_names: K names in label order.
        fps: skeleton frames per second.
        fingerprint: sha256 over the content; see :func:`content_fingerprint`.
        has_video: at least one clip has crops.
        ids: names of the clips, unique.
        splits: of each clip, the lists of its dataset's own files that it is on.
        labels, subjects, cameras, setups, trials, bodies, frames, video_frames: (clips,) int64.
    """

    def __init__(self, path: Path, info: dict[str, Any]) -> None:
        self.path, self.info = path, info
        self.dataset: str = info["dataset"]
        self.layout = Layout.from_dict(info["layout"], where=str(path / "store.json"))
        self.class_names: list[str] = info["class_names"]
        self.fps: float = info["fps"]
        self.fingerprint: str = info["fingerprint"]
        self.has_video: bool = info["with_video"] > 0
        self._batches = [batch for part in info["parts"] for batch in _map(path / "clips" / part["file"])]
        self._starts = np.cumsum([0, *(batch.num_rows for batch in self._batches)]).tolist()
        self.ids: list[str] = [name for batch in self._batches for name in batch.column("id").to_pylist()]
        self.labels = self._whole("label")
        self.subjects = self._whole("subject")
        self.cameras = self._whole("camera")
        self.setups = self._whole("setup")
        self.trials = self._whole("trial")
        self.bodies = self._whole("bodies")
        self.frames = self._whole("frames")
        self.video_frames = self._whole("video_frames")
        self.splits: list[list[str]] = [
            names for batch in self._batches for names in batch.column("splits").to_pylist()
        ]

    def __len__(self) -> int:
        return len(self.ids)

    def __reduce__(self) -> tuple[Any, ...]:
        return open_store, (self.path,)

    def joints(self, index: int) -> np.ndarray:
        """Joints of one clip: (M, T, V, 3) float32 metres, a read-only view on the memory map."""
        return self._flat("joints", index).reshape(self.bodies[index], self.frames[index], self.layout.joint_count, 3)

    def crops(self, index: int) -> list[bytes]:
        """The m person crops of one clip, JPEG, in time order; empty where it has no video."""
        return self._cell("crops", index).to_pylist()

    def frame_indices(self, index: int) -> np.ndarray:
        """(m,) int32: the skeleton frames that were sampled."""
        return self._flat("frame_indices", index)

    def boxes(self, index: int) -> np.ndarray:
        """(m, 4) float32 x0, y0, x1, y1 of the crops in video pixels; (0, 4) without video."""
        return self._flat("boxes", index).reshape(-1, 4)

    def pixels(self, index: int) -> np.ndarray:
        """(m, M, V, 2) float32 joints of the sampled frames in video pixels; (0, M, V, 2) where nothing is known."""
        return self._flat("pixels", index).reshape(-1, self.bodies[index], self.layout.joint_count, 2)

    def _whole(self, column: str) -> np.ndarray:
        parts = [batch.column(column).to_numpy() for batch in self._batches]
        return np.concatenate([np.zeros(0, dtype=np.int64), *parts]).astype(np.int64)

    def _cell(self, column: str, index: int) -> pa.Array:
        """One row of a list column."""
        if not 0 <= index < len(self.ids):
            raise IndexError(f"clip {index} of {len(self.ids)}")
        batch = bisect_right(self._starts, index) - 1
        lists, row = self._batches[batch].column(column), index - self._starts[batch]
        start, stop = lists.offsets[row].as_py(), lists.offsets[row + 1].as_py()
        return lists.values[start:stop]

    def _flat(self, column: str, index: int) -> np.ndarray:
        return self._cell(column, index).to_numpy(zero_copy_only=True)


def open_store(path: str | Path) -> ClipStore:
    """Open a finished store.

    Raises:
        UserError: the folder is no store, a preparation there did not finish, or a file of it is missing or cut off.
    """
    path = Path(path).absolute()
    facts = path / "store.json"
    if not facts.is_file():
        if path.with_name(path.name + ".partial").is_dir() or path.name.endswith(".partial"):
            raise UserError(f"{path}: `mmcl prepare` has not finished this store; run the same command again to go on")
        found = "it is empty or something else" if path.exists() else "it does not exist"
        raise UserError(f"{path}: not a clip store ({found}); make one with `mmcl prepare DATASET --out {path}`")
    try:
        info = json.loads(facts.read_text(encoding="utf-8"))
        if info["format"] != FORMAT:
            raise UserError(f"{path}: store format {info['format']}, this mmcl reads {FORMAT}; prepare it again")
        for part in info["parts"]:
            file = path / "clips" / part["file"]
            if not file.is_file() or file.stat().st_size != part["bytes"]:
                raise UserError(f"{file}: missing or cut off; prepare the store again with --overwrite")
        return ClipStore(path, info)
    except (ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise UserError(f"{path}: damaged store ({error}); prepare it again with --overwrite") from error


def _map(file: Path) -> list[pa.RecordBatch]:
    """Record batches of one part; their buffers are views on the memory-mapped file."""
    with pa.memory_map(str(file)) as mapped, pa.ipc.open_stream(mapped) as reader:
        return list(reader)


def count_clips(files: Iterable[Path]) -> tuple[int, int]:
    """Clips in these parts, and how many of them have video."""
    counts = [batch.column("video_frames").to_numpy() for file in files for batch in _map(file)]
    return sum(len(count) for count in counts), sum(int((count > 0).sum()) for count in counts)


def content_fingerprint(files: Iterable[Path]) -> str:
    """sha256 over what training can see of the clips, in clip order: ids, labels, people, cameras, joints, crops.

    It does not depend on how clips are spread over files, nor on where or by how many processes they were made.
    """
    total = hashlib.sha256()
    for file in files:
        for batch in _map(file):
            facts = batch.select(["id", "splits", *WHOLE_NUMBERS]).to_pylist()
            for row, fact in enumerate(facts):
                total.update(json.dumps(fact, sort_keys=True).encode())
                total.update(batch.column("joints")[row].values.to_numpy(zero_copy_only=True).astype("<f4").tobytes())
                for jpeg in batch.column("crops")[row].as_py():
                    total.update(hashlib.sha256(jpeg).digest())
    return total.hexdigest()
