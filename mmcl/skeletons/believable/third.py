"""Whether the third number of a joint is a coordinate in space: it may be a score, nothing, or belong to a picture."""

from __future__ import annotations

import numpy as np

from mmcl.skeletons.believable.axes import UPRIGHT
from mmcl.skeletons.believable.boxes import Boxes
from mmcl.skeletons.believable.posture import Posture
from mmcl.skeletons.believable.remarks import KINDS, Remark
from mmcl.skeletons.believable.stillness import FEW

FLAT = 0.02  # share of a body's extent: no body that has a depth has so little
SMALLEST_PIXELS = 20.0  # extent of a body that is measured in pixels, not in metres
ROUGH = 0.2  # of its spread over a body, by which a number that is no coordinate jumps in the median


def in_space(joints: np.ndarray, there: np.ndarray, at: Boxes, found: Posture) -> list[Remark]:
    """Numbers that are no metres, or no coordinates."""
    low, high = _ends(joints[..., 2], there)
    thin = float(np.median(at.sides[2][at.there])) < FLAT * at.size
    rough, pixels = _roughness(joints, at), at.size > SMALLEST_PIXELS
    share = low >= 0 and high <= 1.001 and high > 0.05 and ((thin and pixels) or rough > 0)
    if share or (pixels and rough > ROUGH):  # in percent, of 255, a logit: whatever its range, it does not move
        return _said("score", f"the third number looks like a score, from {low:.2g} to {high:.2g}, not a coordinate")
    if thin:
        what = f"the body is flat: {_flatness(low, high)}, so these are keypoints of a picture"
        return _said("flat", what)
    plane = [_ends(joints[..., axis], there) for axis in (0, 1)] if found.up[1] < -UPRIGHT else []
    if plane and all(least >= 0 and most <= 1.001 for least, most in plane):
        return _said("normalised", "x and y look like places in a picture, from 0 to 1, y down")
    return []


def _flatness(low: float, high: float) -> str:
    return f"z is {low:g} everywhere" if low == high else f"z goes from {low:.3g} to {high:.3g} alone"


def _ends(values: np.ndarray, there: np.ndarray) -> tuple[float, float]:
    """The smallest and the largest of those that are there."""
    return float(values.min(initial=np.inf, where=there)), float(values.max(initial=-np.inf, where=there))


def _roughness(joints: np.ndarray, at: Boxes) -> float:
    """How much the third coordinate jumps from frame to frame; 0 where the others do not move more smoothly."""
    body = joints[int(at.there.sum(axis=1).argmax())]
    if len(body) < FEW:
        return 0.0
    jerk = np.median(np.abs(body[2:] - 2 * body[1:-1] + body[:-2]), axis=(0, 1))
    spread = np.maximum(np.median(body.max(axis=1) - body.min(axis=1), axis=0), 1e-9)
    rough = jerk / spread
    return float(rough[2]) if rough[2] > 4 * max(rough[0], rough[1], 1e-6) else 0.0


def _said(kind: str, what: str) -> list[Remark]:
    return [Remark(kind, what, KINDS[kind].advice)]
