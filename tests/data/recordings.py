"""Recordings in UTD-MHAD's form, made up on the spot, and readers that misbehave."""

from __future__ import annotations

import ctypes
import os
import signal
from pathlib import Path

import av
import numpy as np
from scipy.io import savemat

from mmcl.data.clip import ClipSource, RawClip
from mmcl.data.readers.utd_mhad import UTDMHAD

# A person who stands 2.5 m before the camera and faces it: x, y, z in metres, UTD-MHAD's joint order.
STANDING = np.array(
    [
        *[(0.0, 0.6, 2.5), (0.0, 0.4, 2.5), (0.0, 0.1, 2.5), (0.0, 0.0, 2.5)],
        *[(-0.18, 0.38, 2.5), (-0.24, 0.12, 2.5), (-0.26, -0.1, 2.46), (-0.26, -0.18, 2.45)],
        *[(0.18, 0.38, 2.5), (0.24, 0.12, 2.5), (0.26, -0.1, 2.46), (0.26, -0.18, 2.45)],
        *[(-0.09, -0.05, 2.5), (-0.11, -0.45, 2.5), (-0.12, -0.8, 2.52), (-0.13, -0.85, 2.42)],
        *[(0.09, -0.05, 2.5), (0.11, -0.45, 2.5), (0.12, -0.8, 2.52), (0.13, -0.85, 2.42)],
    ]
)
LEFT, RIGHT = [4, 5, 6, 7, 12, 13, 14, 15], [8, 9, 10, 11, 16, 17, 18, 19]


def person(frames: int, seed: int = 0) -> np.ndarray:
    """(20, 3, T): the person with the sensor's jitter, the right hand going up and down."""
    rng = np.random.default_rng(seed)
    joints = STANDING[:, :, None] + rng.normal(0, 0.003, (20, 3, frames))
    joints[10:12, 1] += 0.5 * np.abs(np.sin(np.linspace(0, 3, frames)))
    return joints


def write_take(
    root: Path, action: int, subject: int, trial: int = 1, frames: int = 20, video: int | None = None
) -> str:
    """Write one take and, if asked, its video of that many frames; returns its id."""
    name = f"a{action}_s{subject}_t{trial}"
    write_skeleton(root, name, person(frames, seed=1000 * action + 10 * subject + trial))
    if video is not None:
        write_video(root / "Video" / f"{name}_color.mp4", video)
    return name


def write_skeleton(root: Path, name: str, joints: np.ndarray, variable: str = "d_skel") -> Path:
    path = root / "Skeleton" / f"{name}_skeleton.mat"
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {variable: joints})
    return path


def write_video(
    path: Path, frames: int, size: tuple[int, int] = (320, 240), codec: str = "libx264", index_first: bool = False
) -> Path:
    """A video in which every frame is told from the others by its brightness."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options={"movflags": "faststart"} if index_first else {}) as container:
        stream = container.add_stream(codec, rate=30)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for number in range(frames):
            picture = np.full((size[1], size[0], 3), 10 + 200 * number // frames, dtype=np.uint8)
            picture[:, :20] = np.random.default_rng(number).integers(0, 255, (size[1], 20, 3))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


class HangingReader(UTDMHAD):
    """One clip never returns from native code and keeps the interpreter lock, as decord does on some files."""

    victim = ""

    def read(self, source: ClipSource) -> RawClip:
        if source.id == self.victim:
            ctypes.PyDLL(None).sleep(1000)  # PyDLL calls without releasing the lock
        return super().read(source)


class CrashingReader(UTDMHAD):
    """One clip takes its whole process down."""

    victim = ""

    def read(self, source: ClipSource) -> RawClip:
        if source.id == self.victim:
            os.kill(os.getpid(), signal.SIGSEGV)
        return super().read(source)


class TamperingReader(UTDMHAD):
    """Some clips are changed after they were read.

    Attributes:
        tampered: id -> name of the change.
    """

    tampered: dict[str, str]

    def read(self, source: ClipSource) -> RawClip:
        joints = super().read(source).joints
        change = self.tampered.get(source.id, self.tampered.get("all"))
        return RawClip(joints=joints if change is None else tamper(joints, change))


def tamper(joints: np.ndarray, change: str) -> np.ndarray:
    joints = joints.copy()
    if change == "millimetres":
        return joints * 1000
    if change == "swapped":
        joints[:, :, LEFT + RIGHT] = joints[:, :, RIGHT + LEFT]
    elif change == "legs swapped":
        joints[:, :, LEFT[4:] + RIGHT[4:]] = joints[:, :, RIGHT[4:] + LEFT[4:]]
    elif change == "frozen":
        joints[:, :, 7] = joints[:, :1, 7]
    elif change == "dead":
        joints[:, :, 7] = 0
    elif change == "upside down":
        joints[..., 1] *= -1
    elif change == "lost":
        joints[:, 5:8] = 0
    elif change == "short":
        joints = joints[:, :3]
    else:
        raise ValueError(change)
    return joints
