"""Whether one body is tracked from frame to frame: enough of its joints, left as left, bones of one length."""

from __future__ import annotations

import numpy as np

from mmcl.skeletons.believable.boxes import Boxes, boxes
from mmcl.skeletons.believable.remarks import KINDS, Remark
from mmcl.skeletons.layout import Layout

FEWEST = 8  # a body of which no more than one joint in so many is seen, and no more than two, is none
SCARCE = 0.1  # share of a clip's frames with such bodies above which that is said
SHAKING = 0.05  # of a body's extent that the median bone changes from frame to frame; 0.036 in real ones at 3 fps
# Of the way of left and right joints that they have where the two are exchanged: in sensors' own mistakes 0.18 and more
# for one exchange, and 0.37 for two.
ONCE, BACK = 0.15, 0.3
APART = 0.15  # of a body's extent, by which that way is shorter: who turns sideways has left and right in one place
FAST = 15.0  # metres a second that the fastest twentieth of all joints reaches in no recording of people
PAIRS = 2  # of joints that must be there


def few_joints(there: np.ndarray, at: Boxes, joints: np.ndarray) -> tuple[np.ndarray, Boxes, list[Remark]]:
    """Leave out frames of a body of which hardly a joint is there: they tell neither its size nor its posture.

    Args:
        there: (M, T, V) bool, which joints are there.
        at: boxes of these joints.
        joints: (M, T, V, C).

    Returns:
        both without these frames, and what to say.
    """
    V = there.shape[2]
    count = there.sum(axis=2)
    few = at.there & (count <= max(2, V // FEWEST)) & (count < V)
    if not few.any():
        return there, at, []
    remarks = []
    if few.sum() > SCARCE * at.there.sum():
        seen = " or ".join(map(str, np.unique(count[few])))
        verb = "is" if seen == "1" else "are"
        what = f"only {seen} of {V} joints {verb} seen in {few.sum()} of {at.there.sum()} frames"
        remarks.append(Remark("scarce", what, KINDS["scarce"].advice))
    there = there & ~few[..., None]
    return there, boxes(joints, there), remarks


def shaking(joints: np.ndarray, there: np.ndarray, at: Boxes, layout: Layout) -> list[Remark]:
    """Bones of (M, T, V, 3) whose length changes from each frame to the next as no sensor lets it."""
    if not layout.edges or joints.shape[1] < 3:
        return []
    child, parent = (list(side) for side in zip(*layout.edges, strict=True))
    seen = there[:, :, child] & there[:, :, parent]
    bones = joints[:, :, child] - joints[:, :, parent]
    lengths = np.sqrt((bones * bones).sum(axis=-1))
    changes = np.abs(lengths[:, 1:] - lengths[:, :-1])[seen[:, 1:] & seen[:, :-1]]
    if not len(changes) or (change := float(np.median(changes))) <= SHAKING * at.size:
        return []
    what = f"joints shake: bones change by {change:.2g} metres from frame to frame"
    return [Remark("shaking", what, KINDS["shaking"].advice)]


def exchanged(joints: np.ndarray, there: np.ndarray, at: Boxes, layout: Layout) -> list[Remark]:
    """Bodies of (M, T, V, C) whose left joints go on where their right ones were, and the other way round."""
    if len(layout.left_right) < PAIRS or joints.shape[1] < 3:
        return []
    left, right = (list(side) for side in zip(*layout.left_right, strict=True))
    both = there[:, :, left] & there[:, :, right]
    both = both[:, 1:] & both[:, :-1]
    a, b = joints[:, :, left], joints[:, :, right]
    stay = np.where(both, _way(a[:, 1:], a[:, :-1]) + _way(b[:, 1:], b[:, :-1]), 0).sum(axis=2)
    swap = np.where(both, _way(a[:, 1:], b[:, :-1]) + _way(b[:, 1:], a[:, :-1]), 0).sum(axis=2)
    count = both.sum(axis=2)
    apart = (count >= max(PAIRS, len(left) / 2)) & (stay - swap > APART * at.size * count)
    found: set[int] = set()
    for body in range(len(joints)):
        surely, likely = (apart[body] & (swap[body] < share * stay[body]) for share in (ONCE, BACK))
        found |= set((np.flatnonzero(likely if likely.sum() > 1 else surely) + 1).tolist())
    if not found:
        return []
    frames = sorted(found)
    named = ", ".join(map(str, frames[:4])) + (", …" if len(frames) > 4 else "")
    return [Remark("sides change", f"left and right change places before frame {named}", KINDS["sides change"].advice)]


def too_fast(joints: np.ndarray, there: np.ndarray, fps: float) -> list[Remark]:
    """Joints (M, T, V, 3) that move as fast as no people do, at so many frames a second."""
    steps = joints[:, 1:] - joints[:, :-1]
    both = there[:, 1:] & there[:, :-1]
    if not both.any():
        return []
    speed = float(np.quantile(np.sqrt((steps * steps).sum(axis=-1))[both], 0.95)) * fps
    if speed < FAST:
        return []
    what = f"joints move at {speed:.0f} metres a second at {fps:g} frames a second"
    return [Remark("rate", what, KINDS["rate"].advice)]


def _way(joints: np.ndarray, others: np.ndarray) -> np.ndarray:
    steps = joints - others
    return np.asarray(np.sqrt((steps * steps).sum(axis=-1)))
