"""Numbers about each clip of a store that tell good recordings from broken ones."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from mmcl.data.store import ClipStore
from mmcl.skeletons.layout import Layout

STILL = 1e-6  # metres: a sensor's joint always jitters more than this
MOVING = 1e-3  # metres: a body whose median joint travels this far does move


@dataclass(frozen=True)
class Measures:
    """One clip. Numbers that its layout or files do not allow are NaN.

    Attributes:
        nan_frames: frames with a NaN or infinite coordinate.
        zero_frames: frames in which every coordinate of every body is zero.
        dead: joints that are zero throughout while their body is not.
        frozen: joints that never move while their body does.
        height: median distance of head and hips, metres.
        upright: median of the vertical share of that direction: 1 standing, 0 lying, -1 upside down.
        handedness: median of (forward x up) . (left -> right), unit vectors; positive where left is left.
        agreement: median cosine of left -> right at the hips and at the shoulders; negative where one is swapped.
        inside: share of the known joints that lie in the crop made of their frame.
        content: digest of the joints; equal for copies.
    """

    nan_frames: int
    zero_frames: int
    dead: tuple[int, ...]
    frozen: tuple[int, ...]
    height: float
    upright: float
    handedness: float
    agreement: float
    inside: float
    content: str


def measure(store: ClipStore, index: int) -> Measures:
    """Measure one clip of a store."""
    joints = store.joints(index)
    finite = np.nan_to_num(joints, nan=0.0, posinf=0.0, neginf=0.0).astype(np.float64)
    dead, frozen = _still_joints(finite)
    frames = finite.reshape(-1, *finite.shape[2:])  # bodies one after the other
    frames = frames[frames.reshape(len(frames), -1).any(axis=1)]
    height, upright, handedness, agreement = _posture(frames, store.layout)
    return Measures(
        nan_frames=int((~np.isfinite(joints)).any(axis=(0, 2, 3)).sum()),
        zero_frames=int((~joints.any(axis=(0, 2, 3))).sum()),
        dead=dead,
        frozen=frozen,
        height=height,
        upright=upright,
        handedness=handedness,
        agreement=agreement,
        inside=_share_inside(store.pixels(index), store.boxes(index)),
        content=hashlib.sha256(joints.tobytes()).hexdigest(),
    )


def _still_joints(joints: np.ndarray) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Joints (of any body) that are zero throughout, and those that never move; (M, T, V, 3)."""
    dead, frozen = set[int](), set[int]()
    for body in joints:
        present = body[body.reshape(len(body), -1).any(axis=1)]
        if len(present) == 0:
            continue
        zero = ~present.any(axis=(0, 2))
        travel = np.ptp(present, axis=0).max(axis=1)
        dead |= set(np.flatnonzero(zero).tolist())
        if np.median(travel) > MOVING:
            frozen |= set(np.flatnonzero((travel < STILL) & ~zero).tolist())
    return tuple(sorted(dead)), tuple(sorted(frozen))


def _posture(frames: np.ndarray, layout: Layout) -> tuple[float, float, float, float]:
    """height, upright, handedness, agreement of (frames, V, 3) bodies."""
    at = {name: frames[:, i] for i, name in enumerate(layout.joints)}

    def middle(joint: str) -> np.ndarray | None:
        """A joint on the body's middle line, or the middle between its left and right."""
        if joint in at:
            return at[joint]
        left, right = at.get(f"left_{joint}"), at.get(f"right_{joint}")
        return None if left is None or right is None else (left + right) / 2

    def across(joint: str) -> np.ndarray | None:
        """From left to right."""
        left, right = at.get(f"left_{joint}"), at.get(f"right_{joint}")
        return None if left is None or right is None else right - left

    head, low = middle("head"), middle("base_spine")
    head = middle("nose") if head is None else head
    low = middle("hip") if low is None else low
    if len(frames) == 0 or head is None or low is None:
        return (np.nan,) * 4
    up = head - low
    hips, shoulders = across("hip"), across("shoulder")
    foot, ankle = middle("foot"), middle("ankle")
    agreement = handedness = np.nan
    if hips is not None and shoulders is not None:
        agreement = _median(_dot(_unit(hips), _unit(shoulders)))
        if foot is not None and ankle is not None:
            right = np.cross(_unit(foot - ankle), _unit(up))  # toes point forward; right-handed coordinates
            handedness = _median(_dot(right, _unit(hips + shoulders)))
    return _median(np.linalg.norm(up, axis=1)), _median(_unit(up)[:, 1]), handedness, agreement


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(axis=-1)


def _median(values: np.ndarray) -> float:
    return float(np.median(values))


def _share_inside(pixels: np.ndarray, boxes: np.ndarray) -> float:
    """Share of known joints (m, M, V, 2) that lie in the box (m, 4) of their frame; NaN where none is known."""
    if len(pixels) == 0 or len(boxes) == 0:
        return np.nan
    low, high = boxes[:, None, None, :2], boxes[:, None, None, 2:]
    known = np.asarray(np.isfinite(pixels).all(axis=-1))
    within = np.asarray(((pixels >= low) & (pixels <= high)).all(axis=-1))
    return float(within[known].mean()) if known.any() else np.nan


def column(measures: list[Measures], name: str) -> np.ndarray:
    """One number of every clip, (clips,)."""
    return np.array([getattr(entry, name) for entry in measures])


def gather(store: ClipStore, progress: bool) -> list[Measures]:
    """Measure every clip of a store."""
    from tqdm import tqdm

    return [measure(store, index) for index in tqdm(range(len(store)), unit="clip", disable=not progress)]
