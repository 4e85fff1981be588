"""Numbers about each clip of a store that tell good recordings from broken ones."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from mmcl.data.clip_parts import DamagedClip
from mmcl.data.store import ClipStore
from mmcl.skeletons.believable import Remark, look
from mmcl.skeletons.believable.boxes import boxes, present
from mmcl.skeletons.believable.posture import Posture, posture

STILL = 1e-6  # metres: a sensor's joint always jitters more than this
MOVING = 1e-3  # metres: a body whose median joint travels this far does move


@dataclass(frozen=True)
class Measures:
    """One clip. Numbers that its layout or files do not allow are NaN.

    Attributes:
        nan_frames: frames with a NaN or infinite coordinate.
        zero_frames: frames in which every coordinate of every body is zero.
        missing: share of joints of zeros in the frames in which their body is there.
        dead: joints that are zero throughout while their body is not.
        frozen: joints that never move while their body does; none of planar clips, where a joint may well rest on a
            pixel.
        size: longest side of the box around a body, in the median.
        posture: how its bodies stand.
        remarks: what is hard to believe about it.
        inside: share of the known joints that lie in the crop made of their frame.
        content: digest of the joints; equal for copies.
    """

    nan_frames: int
    zero_frames: int
    missing: float
    dead: tuple[int, ...]
    frozen: tuple[int, ...]
    size: float
    posture: Posture
    remarks: list[Remark]
    inside: float
    content: str


def measure(store: ClipStore, index: int) -> Measures:
    """Measure one clip of a store."""
    joints = store.joints(index)
    finite = np.nan_to_num(joints, nan=0.0, posinf=0.0, neginf=0.0)
    if store.info["format"] < 4 and not finite[..., 2].any():  # keypoints of pictures, which had a third zero then
        finite = finite[..., :2]
    at = boxes(finite, present(finite))
    dead, frozen = _still_joints(finite.astype(np.float64), at.there)
    bodies = finite[at.there]  # one after the other, without the frames in which they are absent
    stance = posture(bodies, store.layout)
    return Measures(
        nan_frames=int((~np.isfinite(joints)).any(axis=(0, 2, 3)).sum()),
        zero_frames=int((~joints.any(axis=(0, 2, 3))).sum()),
        missing=float((~bodies.any(axis=-1)).mean()) if len(bodies) else np.nan,
        dead=dead,
        frozen=() if stance.planar else frozen,
        size=at.size if len(bodies) else np.nan,
        posture=stance,
        remarks=look(finite, store.layout, store.fps),
        inside=_share_inside(store.pixels(index), store.boxes(index)),
        content=hashlib.sha256(joints.tobytes()).hexdigest(),
    )


def _still_joints(joints: np.ndarray, there: np.ndarray) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Joints (of any body) that are zero throughout, and those that never move; (M, T, V, 3) and (M, T)."""
    dead, frozen = set[int](), set[int]()
    for body, frames in zip(joints, there, strict=True):
        if not frames.any():
            continue
        present = body[frames]
        known = present.any(axis=-1, keepdims=True)
        lost = ~known.any(axis=(0, 2))
        low, high = (np.where(known, present, end) for end in (np.inf, -np.inf))
        travel = np.where(lost, 0.0, (high.max(axis=0) - low.min(axis=0)).max(axis=-1))
        dead |= set(np.flatnonzero(lost).tolist())
        if np.median(travel) > MOVING:
            frozen |= set(np.flatnonzero((travel < STILL) & ~lost).tolist())
    return tuple(sorted(dead)), tuple(sorted(frozen))


def _share_inside(pixels: np.ndarray, boxes: np.ndarray) -> float:
    """Share of known joints (m, M, V, 2) that lie in the box (m, 4) of their frame; NaN where none is known."""
    if len(pixels) == 0 or len(boxes) == 0:
        return np.nan
    low, high = boxes[:, None, None, :2], boxes[:, None, None, 2:]
    known = np.asarray(np.isfinite(pixels).all(axis=-1))
    within = np.asarray(((pixels >= low) & (pixels <= high)).all(axis=-1))
    return float(within[known].mean()) if known.any() else np.nan


def column(measures: list[Measures], name: str) -> np.ndarray:
    """One measure of every clip, of the clip itself or of its posture: (clips,), or (clips, 3)."""
    return np.array([getattr(entry if hasattr(entry, name) else entry.posture, name) for entry in measures])


def gather(store: ClipStore, progress: bool) -> tuple[list[Measures], list[int]]:
    """Measure every clip of a store, and list those that are not what was prepared."""
    from tqdm import tqdm

    measures, damaged = [], []
    for index in tqdm(range(len(store)), unit="clip", disable=not progress):
        try:
            measures.append(measure(store, index))
        except DamagedClip:
            damaged.append(index)
    return measures, damaged
