"""The arrays that CTR-GCN's data scripts write, and many others' after them (``NTU60_CS.npz``, ``NTU120_CSet.npz``).

One file, ``np.savez`` of x_train (N, 300, 150) float32, y_train (N, K) one-hot, x_test, y_test. A frame is 2 bodies x
25 joints x 3 metres; clips are padded with frames of zeros at their end, and a second body that is not there is all
zeros. These files take 10-20 GB: they are mapped into memory, and a clip is read where it lies. A folder of
``x_train.npy`` … (the same file after ``unzip``) is read alike, and needed where the file is compressed and large.

The arrays do not say who acts or what was filmed: subject is 0, camera, setup and trial are 1, there is no video.
What they do say is the side of each clip, which is kept as its list, "train" or "test" (protocol ``own/split``).
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np

from mmcl.common.errors import BadClip, UserError
from mmcl.common.printing import complain
from mmcl.data.clip import ClipSource, RawClip
from mmcl.data.prompts import class_names
from mmcl.data.readers.arrays import open_arrays
from mmcl.data.readers.joints import zero_where_missing
from mmcl.data.readers.naming import MAX_CLASSES, plain_classes, safe_name

SIDES = ("train", "test")
# Numbers in a frame -> (bodies, joints, layout).
FRAMES = {
    150: (2, 25, "kinect_v2_25"),
    75: (1, 25, "kinect_v2_25"),
    120: (2, 20, "kinect_v1_20"),
    60: (1, 20, "kinect_v1_20"),
}
NTU = {60: ("ntu60", "NTU RGB+D 60"), 120: ("ntu120", "NTU RGB+D 120")}  # classes of clips with 25 joints -> data set
CHUNK = 8192  # rows of labels that are looked at in one go


class CTRGCNArrays:
    """Reader of one such file.

    Args:
        source: the ``.npz`` file, or a folder of ``.npy`` files.
        video: must be None: rows of an array have no names by which videos could be found.

    Attributes:
        dataset: "ntu60" or "ntu120" where joints and classes say so, else the file's name.

    Raises:
        UserError: no such file, no such arrays in it, or arrays that do not fit together.
    """

    name = "ctrgcn-npz"
    fps = 30.0

    def __init__(self, source: Path, video: Path | None = None) -> None:
        if video is not None:
            raise UserError("ctrgcn-npz: rows of an array have no names to find videos by; leave --video out")
        self.source = source
        if not (source.is_file() or source.is_dir()):
            raise UserError(f"{source}: no such file; --source is the .npz file, or a folder of its .npy files")
        try:
            arrays = _arrays(source)
        except BadClip as error:
            raise UserError(f"{source}: {error}") from error
        self.sides = [side for side in SIDES if f"x_{side}" in arrays]
        if not self.sides:
            raise UserError(f"{source}: holds {', '.join(sorted(arrays)[:5]) or 'no array'}; expected x_train, y_train")
        widths = sorted({_frame_width(source, arrays, side) for side in self.sides})
        if len(widths) != 1 or widths[0] not in FRAMES:
            raise UserError(f"{source}: frames of {widths} numbers; expected {list(FRAMES)} in both x_train and x_test")
        self.bodies, self.joints, self.layout = FRAMES[widths[0]]
        columns = {arrays[f"y_{side}"].shape[1] for side in self.sides if arrays[f"y_{side}"].ndim == 2}
        if unread := sorted(name for name in arrays if name[:2] in ("x_", "y_") and name[2:] not in self.sides):
            complain("warning", f"{source}: {', '.join(unread)[:80]} are not read: clips come from x_train and x_test")
        if len(columns) > 1:
            raise UserError(f"{source}: labels of {sorted(columns)} classes; expected as many in y_train as in y_test")
        self._name_classes(max(_class_count(arrays[f"y_{side}"]) for side in self.sides))

    def _name_classes(self, count: int) -> None:
        if count > MAX_CLASSES:
            raise UserError(f"{self.source}: {count} classes in y_train; expected (clips, classes), one 1 in each row")
        self.dataset, self.title = NTU.get(count, ("", ""))
        if self.joints == 25 and self.dataset:
            self.class_names = class_names(self.dataset)
        else:
            self.dataset = self.title = safe_name(self.source.stem)
            self.class_names = plain_classes(count)

    def scan(self) -> list[ClipSource]:
        """All rows, train before test.

        Raises:
            UserError: there are none.
        """
        arrays = _arrays(self.source)
        clips = [
            ClipSource(
                id=f"{side}_{row:06d}",
                label=max(label, 0),
                subject=0,
                skeleton=str(self.source),
                member=f"{side}/{row}",
                splits=(side,),
                payload=None if label >= 0 else "its row of labels does not say one class",
            )
            for side in self.sides
            for row, label in enumerate(_labels(arrays[f"y_{side}"]))
        ]
        if not clips:
            raise UserError(f"{self.source}: no clips in it")
        return sorted(clips, key=lambda clip: clip.id)

    def read(self, source: ClipSource) -> RawClip:
        """Read one row: joints (M, T, V, 3) float32, without padding and without bodies that are not there.

        A joint with a NaN is missing.

        Raises:
            BadClip: nothing but padding, infinite coordinates, no label, or the file has changed.
        """
        if source.payload is not None:
            raise BadClip(source.payload)
        side, _, row = source.member.partition("/")
        try:
            numbers = np.asarray(_arrays(self.source)[f"x_{side}"][int(row)], dtype=np.float32)
        except (KeyError, IndexError) as error:
            raise BadClip("the row has gone") from error
        frames = zero_where_missing(numbers.reshape(-1, self.bodies, self.joints, 3))
        used = np.flatnonzero(frames.any(axis=(1, 2, 3)))
        if not len(used):
            raise BadClip("nothing but padding")
        joints = frames[: used[-1] + 1].swapaxes(0, 1)
        return RawClip(joints=np.ascontiguousarray(joints[joints.any(axis=(1, 2, 3))]))

    def pixels(self, joints: np.ndarray, width: int, height: int) -> None:
        """None: there is no video."""
        return None


def _arrays(source: Path) -> dict[str, np.ndarray]:
    """Arrays of the file, opened once in each process."""
    try:
        facts = source.stat()
    except OSError as error:
        raise BadClip("the file has gone") from error
    return _opened(source, facts.st_size, facts.st_mtime_ns)


@lru_cache(maxsize=1)
def _opened(source: Path, size: int, changed: int) -> dict[str, np.ndarray]:
    return open_arrays(source)


def _frame_width(source: Path, arrays: dict[str, np.ndarray], side: str) -> int:
    """Numbers in a frame, where shapes of clips and labels are what they should be."""
    clips, labels = arrays[f"x_{side}"], arrays.get(f"y_{side}")
    if clips.ndim != 3 or clips.dtype.kind != "f" or not clips.shape[1]:
        raise UserError(f"{source}: x_{side} is {clips.dtype} {clips.shape}; expected floats (clips, frames, 150)")
    if labels is None or labels.ndim not in (1, 2) or len(labels) != len(clips) or 0 in labels.shape[1:]:
        found = "missing" if labels is None else f"{labels.dtype} {labels.shape}"
        raise UserError(
            f"{source}: y_{side} is {found}; expected (clips, classes) for the {len(clips)} clips of x_{side}"
        )
    return int(clips.shape[2])


def _class_count(labels: np.ndarray) -> int:
    return int(labels.shape[1]) if labels.ndim == 2 and labels.shape[1] > 1 else max(_labels(labels), default=-1) + 1


def _labels(labels: np.ndarray) -> list[int]:
    """Class of each row of (N, K) one-hot, or of (N,) or (N, 1) whole numbers; -1 where it says none."""
    found: list[int] = []
    for start in range(0, len(labels), CHUNK):
        rows = np.asarray(labels[start : start + CHUNK])
        rows = rows[:, 0] if rows.shape[1:] == (1,) else rows
        if rows.ndim == 2:
            one = ((rows == 1).sum(axis=1) == 1) & ((rows != 0).sum(axis=1) == 1)
            found += np.where(one, (rows == 1).argmax(axis=1) if rows.shape[1] else 0, -1).tolist()
        else:
            whole = (rows >= 0) & (rows < MAX_CLASSES) & (rows == np.floor(rows))
            found += [int(value) if good else -1 for value, good in zip(rows, whole, strict=True)]
    return found
