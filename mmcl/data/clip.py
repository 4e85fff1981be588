"""What a reader hands over: a recorded action before it is read, and after."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from mmcl.common.errors import BadClip
from mmcl.skeletons.believable import Remark, mend
from mmcl.skeletons.layout import Layout

MOST_FPS = 10_000  # frames a second that are believed


@dataclass(frozen=True)
class ClipSource:
    """One recorded action that has not been read yet: cheap, and picklable for the worker processes.

    Attributes:
        id: name of the clip, unique in its dataset.
        label: class index from 0, in the order of ``Reader.class_names``.
        subject: who acts, as the dataset numbers people.
        camera: as the dataset numbers it; 1 where there is only one.
        setup: as the dataset numbers it; 1 where there is only one.
        trial: repetition; 1 where there is only one.
        skeleton: file that holds the joints.
        member: which part of that file, where it holds many clips (a name in an archive, a row of an array).
        video: file that holds the picture (or folder of pictures), or None.
        splits: lists of its dataset's own files that the clip is on ("train", "xsub_val").
        payload: what the reader already holds of the clip, for formats that can only be loaded whole; it travels to
            the worker process with the source, so that workers need not load the file again.
    """

    id: str
    label: int
    subject: int
    camera: int = 1
    setup: int = 1
    trial: int = 1
    skeleton: str = ""
    member: str = ""
    video: str | None = None
    splits: tuple[str, ...] = ()
    payload: Any = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class RawClip:
    """One clip as its files tell it.

    Attributes:
        joints: (M, T, V, 3) float32, metres.
        pixels: (M, T, V, 2) float32, joints in pixels of the clip's own video, where the files say so; else None.
        recorded: (T,) int32, which recorded frame each frame is, where some were left out; None where none was.
        recorded_frames: frames of the recording, with those left out; 0 where none was.
        picture: width and height of the picture that ``pixels`` are for. They are scaled where the video at hand has
            another size (a smaller copy); None: they fit the video as it is.
        confidence: (M, T, V), how sure a pose estimator was of each joint, 0 to 1; None where nobody says it.
        remarks: what is to be said about how the clip was read.
    """

    joints: np.ndarray
    pixels: np.ndarray | None = None
    recorded: np.ndarray | None = None
    recorded_frames: int = 0
    picture: tuple[int, int] | None = None
    confidence: np.ndarray | None = None
    remarks: tuple[Remark, ...] = ()

    def mended(self) -> RawClip:
        """The clip with what is surely wrong put right, see :func:`mmcl.skeletons.believable.mend`.

        Raises:
            BadClip: nobody is left.
        """
        found = mend(self.joints)
        if not found.remarks:
            return self
        if not found.joints.any():
            raise BadClip(f"nobody is in it: {'; '.join(map(str, found.remarks))}")
        recorded, frames = self.recorded, self.joints.shape[1]
        if found.frames != slice(None):
            recorded = (np.arange(frames, dtype=np.int32) if recorded is None else recorded)[found.frames]
        return replace(
            self,
            joints=found.joints,
            pixels=None if self.pixels is None else found.follow(self.pixels, np.nan),
            recorded=recorded,
            recorded_frames=self.recorded_frames or (frames if recorded is not None else 0),
            confidence=None if self.confidence is None else found.follow(self.confidence),
            remarks=(*self.remarks, *found.remarks),
        )


class Reader(Protocol):
    """Reads one dataset from the folder its authors distribute. A new dataset is one such class and one registry line.

    Attributes:
        name: name on the command line ("utd-mhad").
        dataset: name that protocols and prompts use ("utd_mhad").
        title: name for people ("UTD-MHAD").
        fps: skeleton frames per second.
        class_names: K names in label order.

    A reader with options names their dataclass ``options_type`` (see :mod:`mmcl.data.readers.options`: its fields
    become flags of ``mmcl prepare``), takes an instance as its last argument and keeps it as ``options``. One whose
    joints have two coordinates says so by ``dimensions``, 2.
    """

    name: ClassVar[str]
    dataset: str
    title: str
    fps: float
    class_names: list[str]

    @property
    def layout(self) -> str | Layout:
        """The skeleton layout its files use, or the name of one; a plain attribute will do."""

    def __init__(self, source: Path, video: Path | None) -> None:
        """Look at the folder; raise UserError where it is not this dataset."""

    def scan(self) -> list[ClipSource]:
        """All clips, sorted by id, none of them opened; raise UserError where there are none."""

    def read(self, source: ClipSource) -> RawClip:
        """Read one clip; raise BadClip with the reason where its skeleton cannot be used."""

    def pixels(self, joints: np.ndarray, width: int, height: int) -> np.ndarray | None:
        """Project (M, T, V, 3) joints into a video of that size: (M, T, V, 2), or None where no camera is known.

        Asked only for clips whose files do not say it themselves (``RawClip.pixels`` is None).
        """


def dimensions_of(reader: Reader) -> int:
    """Coordinates of a joint that a reader gives: 3 unless it says otherwise."""
    return int(getattr(reader, "dimensions", 3))


def check_joints(joints: np.ndarray, joint_count: int, dimensions: int = 3) -> None:
    """Refuse a clip that nothing can be learned from. One rule for every reader.

    Args:
        joints: what a reader returned; (M, T, V, dimensions) float32 is expected.
        joint_count: V of the dataset's layout.
        dimensions: coordinates of a joint.

    Raises:
        BadClip: wrong shape or joint count, no body, no frame, NaN or infinity, or nothing but zeros.
    """
    if joints.ndim != 4 or joints.shape[3] != dimensions:
        raise BadClip(f"joints have shape {joints.shape}, expected (bodies, frames, joints, {dimensions})")
    bodies, frames, count, _ = joints.shape
    if count != joint_count:
        raise BadClip(f"{count} joints, expected {joint_count}")
    if bodies == 0:
        raise BadClip("no body")
    if frames == 0:
        raise BadClip("no frames")
    if bad := int((~np.isfinite(joints)).any(axis=(0, 2, 3)).sum()):
        kinds = [word for word, has in (("NaN", np.isnan), ("infinite", np.isinf)) if has(joints).any()]
        raise BadClip(f"{' and '.join(kinds)} coordinates in {bad} of {frames} frames")
    if not joints.any():
        raise BadClip("all coordinates are zero or missing")
