"""What is hard to believe about a clip that was mended: its numbers, its size, its axes, its sides, its motion."""

from __future__ import annotations

import numpy as np

from mmcl.skeletons.believable.axes import LETTERS, TURNED, UPRIGHT, advice, straightening, words_of
from mmcl.skeletons.believable.boxes import Boxes, boxes, present
from mmcl.skeletons.believable.mending import SHORT
from mmcl.skeletons.believable.names import of_a_body
from mmcl.skeletons.believable.outliers import elsewhere, lost_joints
from mmcl.skeletons.believable.posture import Posture, posture
from mmcl.skeletons.believable.remarks import KINDS, Remark
from mmcl.skeletons.believable.steadiness import exchanged, few_joints, shaking, too_fast
from mmcl.skeletons.believable.stillness import stillness
from mmcl.skeletons.believable.strays import leaps, stray_joints
from mmcl.skeletons.believable.third import in_space
from mmcl.skeletons.layout import Layout

EXTENT = (0.25, 3.0)  # metres: from a child that sits to whatever trackers make of tall people with their arms up
HEIGHT = (0.15, 1.2)  # metres from hips to head of a single clip's person
MIRRORED = -0.05  # handedness below which a single clip is mirrored: two in a thousand real ones are
MISSING = 0.25  # share of joints, in frames in which their body is there
PICTURE = (0.02, 6.0)  # extents of a body in a picture, in halves of the picture's height


def look(
    joints: np.ndarray, layout: Layout, fps: float | None = None, seen: tuple[np.ndarray, Boxes] | None = None
) -> list[Remark]:
    """Look at a clip.

    Args:
        joints: (M, T, V, C) finite, zero where missing; metres, y up, or with two coordinates halves of the picture's
            height, y up.
        layout: which joints they are.
        fps: frames per second, where that is known.
        seen: of these joints, from :func:`mend`; found out here where it is not given.

    Returns:
        What is hard to believe, the gravest first; nothing where nobody is there.
    """
    if seen is None:
        there = present(joints)
        seen = there, boxes(joints, there)
    there, at = seen
    if not at.there.any():
        return []
    there, at, scarce = few_joints(there, at, joints)
    if not at.there.any():
        return scarce
    if (stray := stray_joints(joints, there, layout)) is not None:
        joints, there = np.where(stray[0][..., None], 0, joints), there & ~stray[0]
        at = boxes(joints, there)
        scarce = scarce + _remark("outlier", stray[1])
        if not at.there.any():
            return scarce
    found = posture(joints[at.there], layout)
    numbers = (_in_picture if joints.shape[-1] == 2 else in_space)(joints, there, at, found)
    if joints.shape[-1] == 3 and not numbers and of_a_body(layout.joints):
        numbers = _scale(at, found)
    if numbers:
        return _sure(numbers + scarce)  # what else there is follows from that
    remarks = scarce + _axes(found) + _gaps(there, at) + stillness(joints, there, at)
    return _sure(remarks + _from_frame_to_frame(joints, there, at, layout, fps))


def _from_frame_to_frame(
    joints: np.ndarray, there: np.ndarray, at: Boxes, layout: Layout, fps: float | None
) -> list[Remark]:  # fmt: skip
    remarks = []
    if (lost := lost_joints(joints, there, at)) is not None:
        remarks += _remark("outlier", lost.what)
    if (jump := elsewhere(at)) is not None:
        remarks += _remark("jump", jump.what)
    elif (leap := leaps(joints, there, at)) is not None:
        remarks += _remark("jump", leap)
    if joints.shape[-1] == 3:
        remarks += exchanged(joints, there, at, layout) + shaking(joints, there, at, layout)
    if fps is not None and joints.shape[-1] == 3:
        remarks += too_fast(joints, there, fps)
    return remarks


def _sure(remarks: list[Remark]) -> list[Remark]:
    """Without what may be seen only because joints or bodies are not where they should be, or frames are copies."""
    kinds = {remark.kind for remark in remarks}
    vague = "outlier" in kinds
    unsure = {"rate"} if "repeated" in kinds else set()
    unsure |= {"rate", "mirrored", "sides", "shaking"} if vague or "jump" in kinds else set()
    return [each for each in remarks if each.kind not in unsure and (each.kind != "scale" or each.unit or not vague)]


def _remark(kind: str, what: str, remedy: str = "", axes: str = "", unit: str = "") -> list[Remark]:
    return [Remark(kind, what, remedy or KINDS[kind].advice, axes, unit)]


def _in_picture(joints: np.ndarray, there: np.ndarray, at: Boxes, found: Posture) -> list[Remark]:
    """Keypoints of a picture."""
    if at.size < PICTURE[0]:
        what = f"whole bodies of {at.size / 2:.2%} of the picture's height: the coordinates look normalised"
        return _remark("normalised", what)
    if at.size > PICTURE[1]:
        return _remark("picture", f"bodies {at.size / 2:.3g} times as high as the picture")
    if found.up[1] < -UPRIGHT:
        return _remark("upside down", "the body stands on its head", "rows of a picture count downwards: negate y")
    if abs(found.up[0]) > TURNED and found.up[1] < UPRIGHT:
        return _remark("turned", "the body lies on its side", "columns come before rows, x before y, unless it lies")
    return []


def _scale(at: Boxes, found: Posture) -> list[Remark]:
    tall, small = at.size > EXTENT[1], at.size < EXTENT[0]
    odd = np.isfinite(found.height) and not HEIGHT[0] <= found.height <= HEIGHT[1]
    if not (tall or small or odd):
        return []
    if not at.size:
        return _remark("scale", "all joints of a body are at one place", "they were written or read wrongly")
    what = f"bodies of {at.size:.3g} metres"
    if 700 < at.size < 3500:
        return _remark("scale", what, "these look like millimetres: divide by 1000 (--unit mm)", unit="mm")
    if 90 < at.size < 280:
        return _remark("scale", what, "these look like centimetres: divide by 100 (--unit cm)", unit="cm")
    if 0.05 < at.size < 10:
        return _remark("scale", what, "these are no metres (--unit), or they are normalised: scale them")
    what = f"no metres: bodies of {at.size:.3g}"
    return _remark("scale", what, "say in which unit they are (--unit), or scale them")


def _axes(found: Posture) -> list[Remark]:
    """Where up is, and whether left is left."""
    up = np.array(found.up)
    if np.isfinite(up).all() and not found.planar and up[1] < UPRIGHT:
        vertical = int(np.abs(up).argmax())
        matrix = straightening(found)
        words = {"axes": words_of(matrix)}
        if up[1] < -UPRIGHT and vertical == 1:
            return _remark("upside down", "the body stands on its head, y points down", advice(matrix), **words)
        if abs(up[vertical]) > TURNED:
            points = "up" if up[vertical] > 0 else "down"
            return _remark("turned", f"the vertical is {LETTERS[vertical]}, which points {points}, not y",
                           f"{advice(matrix)}, unless the person lies", **words)  # fmt: skip
        return _remark("lying", "no axis is the vertical")
    remarks = []
    if found.sure and found.handedness < MIRRORED:
        matrix = straightening(found)
        remedy = f"{advice(matrix)}, or swap the sides if the joints are named wrongly"
        remarks += _remark("mirrored", "the body is mirrored, its left is on its right", remedy, axes=words_of(matrix))
    if found.agreement < -0.3:
        remarks += _remark("sides", "hips and shoulders disagree on left and right")
    return remarks


def _gaps(there: np.ndarray, at: Boxes) -> list[Remark]:
    remarks = []
    seen = np.asarray(at.there.any(axis=0))
    lost = np.flatnonzero(~seen)
    lost = lost[(lost > seen.argmax()) & (lost < len(seen) - seen[::-1].argmax())]
    if len(lost):
        longest = max(map(len, np.split(lost, np.flatnonzero(np.diff(lost) > 1) + 1)))
        if longest > SHORT or len(lost) > len(seen) / 3:
            remarks += _remark("gap", f"{len(lost)} of {len(seen)} frames without anybody, {longest} on end")
    missing = 1 - there.sum() / (at.there.sum() * there.shape[2])
    if missing > MISSING:
        remarks += _remark("missing", f"{missing:.0%} of the joints are missing")
    return remarks
