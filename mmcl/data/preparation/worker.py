"""What a worker process of ``mmcl prepare`` does: read one clip, sample its frames, cut out the person.

Workers import neither torch nor datasets, so that many of them start quickly and fit into little memory.
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mmcl.common.errors import BadClip
from mmcl.data.clip import ClipSource, RawClip, Reader, check_joints, dimensions_of
from mmcl.data.crops import crop, person_box, sample_frames, video_frames
from mmcl.data.video import read_frames
from mmcl.skeletons.believable import BAD, look
from mmcl.skeletons.layout import Layout

NO_PICTURES = "video"  # kind of the remark on a clip whose video cannot be used: it is kept, as one without video
GRACE = 10.0  # seconds beyond the limit after which a worker ends itself, should nobody be left to do it


@dataclass(frozen=True)
class Job:
    """What every clip of a preparation has in common; sent once to each worker.

    Attributes:
        reader: of the dataset.
        joint_count: V of its layout.
        frames_per_clip: m.
        crop_size: side of a crop, pixels.
        timeout: wall-clock limit for a clip, seconds.
        layout: of the reader's joints, where clips that are hard to believe are to be refused; else None.
    """

    reader: Reader
    joint_count: int
    frames_per_clip: int
    crop_size: int
    timeout: float
    layout: Layout | None = None


_job: Job | None = None


def start(job: Job) -> None:
    """Initialise a worker process."""
    global _job
    _job = job
    # Native video code writes to stderr behind Python's back, whole pages for a bad file. What matters is a BadClip.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def process(source: ClipSource, decord: bool = True) -> dict[str, Any] | str:
    """Make one row of the store, or say in words why the clip cannot be used. Never raises.

    Args:
        source: the clip.
        decord: see :func:`mmcl.data.video.read_frames`.
    """
    assert _job is not None, "start() has not run in this process"
    _arm(_job.timeout + GRACE)
    try:
        return make_row(source, _job, decord)
    except BadClip as error:
        return str(error)
    except Exception as error:  # a file that no test thought of costs its own clip, not the whole job
        return f"unexpected {type(error).__name__}: {error}"
    finally:
        _arm(0)


def _arm(seconds: float) -> None:
    """Let the kernel end this process after so long, whatever native code does or holds by then; 0 takes it back.

    The parent enforces the limit; this is for the worker whose parent was killed while a clip hung.
    """
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def make_row(source: ClipSource, job: Job, decord: bool = True) -> dict[str, Any]:
    """Read one clip and its video: one value for each column of the store, and ``remarks`` on what was mended.

    Raises:
        BadClip: skeleton or video cannot be used.
    """
    raw = job.reader.read(source)
    joints = np.ascontiguousarray(raw.joints, dtype=np.float32)
    check_joints(joints, job.joint_count, dimensions_of(job.reader))
    raw = replace(raw, joints=joints).mended()
    joints = np.ascontiguousarray(raw.joints)
    if job.layout is not None:
        for remark in look(joints, job.layout, job.reader.fps):
            if remark.level == BAD:
                raise BadClip(str(remark))
    bodies, frames = joints.shape[:2]
    indices = sample_frames(frames, job.frames_per_clip)
    row: dict[str, Any] = {
        "id": source.id,
        "label": source.label,
        "subject": source.subject,
        "camera": source.camera,
        "setup": source.setup,
        "trial": source.trial,
        "splits": list(source.splits),
        "bodies": bodies,
        "frames": frames,
        "video_frames": 0,
        "joints": joints.reshape(-1),
        "confidence": _confidence(raw, joints),
        "frame_indices": indices,
        "crops": [],
        "boxes": np.zeros(0, dtype=np.float32),
        "pixels": np.zeros(0, dtype=np.float32),
        "remarks": [(remark.kind, str(remark)) for remark in raw.remarks],
    }
    if source.video is not None:
        try:
            row |= _pictures(source.video, joints, raw, indices, job, decord)
        except BadClip as error:
            if job.layout is not None:  # --strict
                raise
            row["remarks"].append((NO_PICTURES, str(error)))
    return row


def _pictures(
    video: str, joints: np.ndarray, raw: RawClip, indices: np.ndarray, job: Job, decord: bool
) -> dict[str, Any]:  # fmt: skip
    """What a clip's video adds to its row.

    Raises:
        BadClip: it cannot be used.
    """
    frames = joints.shape[1]
    at = indices if raw.recorded is None else raw.recorded[indices]
    recorded = frames if raw.recorded is None else raw.recorded_frames
    pictures, total = read_frames(
        video, lambda count: video_frames(at, recorded, count), expected=recorded, decord=decord
    )
    return {"video_frames": total, **_crops(pictures, joints, raw, indices, job)}


def _confidence(raw: RawClip, joints: np.ndarray) -> np.ndarray:
    """Flat confidence of a clip's joints, limited to [0, 1], 0 where it is no number; none where nobody says it."""
    if raw.confidence is None:
        return np.zeros(0, dtype=np.float16)
    if raw.confidence.shape != joints.shape[:3]:
        raise BadClip(f"confidence of shape {raw.confidence.shape} for joints of shape {joints.shape}")
    return np.nan_to_num(raw.confidence, nan=0.0).clip(0, 1).astype(np.float16).reshape(-1)


def _crops(pictures: np.ndarray, joints: np.ndarray, raw: RawClip, indices: np.ndarray, job: Job) -> dict[str, Any]:
    """Crops, boxes and pixel joints of the sampled frames.

    Args:
        pictures: (m, H, W, 3) uint8.
        joints: (M, T, V, C) of the whole clip.
        raw: what the files say of their joints in pixels.
        indices: (m,) sampled skeleton frames.
        job: crop size and the reader's camera.
    """
    height, width = pictures.shape[1:3]
    points = _in_pixels(joints[:, indices], raw, indices, job.reader, width, height)
    boxes = [person_box(None if points is None else points[i], width, height) for i in range(len(pictures))]
    return {
        "crops": [crop(picture, box, job.crop_size) for picture, box in zip(pictures, boxes, strict=True)],
        "boxes": np.concatenate(boxes),
        "pixels": np.zeros(0, dtype=np.float32) if points is None else np.ascontiguousarray(points).reshape(-1),
    }


def _in_pixels(
    joints: np.ndarray, raw: RawClip, indices: np.ndarray, reader: Reader, width: int, height: int
) -> np.ndarray | None:
    """Joints (M, m, V, C) of the sampled frames in pixels of a picture of that size: (m, M, V, 2) float32.

    They come from the clip's files, else from the reader's camera, else there are none. Missing joints are NaN: a
    body that is not there must not pull the box towards a corner of the picture.
    """
    if raw.pixels is None:
        points = reader.pixels(joints, width, height)
        if points is None:
            return None
    else:
        points = raw.pixels[:, indices]
        if raw.picture is not None:
            points = points * (np.array([width, height]) / raw.picture)
    known = joints.any(axis=-1, keepdims=True)
    return np.where(known, points, np.nan).astype(np.float32).swapaxes(0, 1)
