"""Mend what is surely wrong with a clip, and say so: placeholders, lost joints, tangled slots, empty ends, short gaps.

What a recording shows is never made up: joints are taken for missing, bodies change their slots, frames in which nobody
is are cut off. Only :func:`fill` puts something in, between frames that show it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from mmcl.skeletons.believable.boxes import Boxes, boxes, present
from mmcl.skeletons.believable.outliers import elsewhere, lost_joints
from mmcl.skeletons.believable.placeholders import placeholders
from mmcl.skeletons.believable.remarks import Remark
from mmcl.skeletons.believable.slots import ranked, untangle

SHORT = 15  # frames, half a second: nobody does anything within such a gap that its two ends do not show


@dataclass(frozen=True)
class Mended:
    """A clip as it should be read.

    Attributes:
        joints: (M', T', V, C), zero where missing.
        remarks: what was done.
        slots: (M', T') int, from which slot of the recording each body comes; None where all are where they were.
        frames: which frames of the recording are left.
        lost: (M, T, V) bool, joints of the recording that are taken for missing; None where there are none.
        seen: which of ``joints`` are there, (M', T', V) bool, and the boxes around the bodies, for :func:`look`; None
            where they are not known.
    """

    joints: np.ndarray
    remarks: list[Remark] = field(default_factory=list)
    slots: np.ndarray | None = None
    frames: slice = field(default_factory=lambda: slice(None))
    lost: np.ndarray | None = None
    seen: tuple[np.ndarray, Boxes] | None = None

    def follow(self, values: np.ndarray, missing: float = 0.0) -> np.ndarray:
        """The same done to what belongs to the joints: (M, T, V, …) -> (M', T', V, …); lost joints get ``missing``."""
        if self.lost is not None:
            values = values.copy()
            values[self.lost] = missing
        if self.slots is not None:
            values = values[self.slots, np.arange(values.shape[1])]
        return values[:, self.frames]


def mend(joints: np.ndarray) -> Mended:
    """Mend a clip (M, T, V, C) of finite coordinates, missing joints zero. A clip that is sound comes back as it is."""
    there = present(joints)
    remarks: list[Remark] = []
    lost, slots = None, None
    found = placeholders(joints, there)
    if found is not None:
        share = found[0].sum() / there.sum()
        what = f"{found[0].sum()} joints ({share:.1%}) hold a placeholder ({'; '.join(found[1])}): taken for missing"
        remarks.append(Remark("placeholder", what))
        lost = found[0]
        joints, there = _without(joints, there, lost)
    at = boxes(joints, there)
    if (stray := _stray(joints, there, at, remarks)) is not None:
        lost = stray if lost is None else lost | stray
        joints, there = _without(joints, there, stray)
        at = boxes(joints, there)
    if len(joints) > 1 and at.there.any():
        joints, slots = _in_order(joints, there, at, remarks)
    frames = _shown(np.asarray(at.there.any(axis=0)), remarks)
    seen = (there, at) if slots is None and frames == slice(None) else None
    return Mended(joints[:, frames], remarks, slots, frames, lost, seen)


def _without(joints: np.ndarray, there: np.ndarray, lost: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.where(lost[..., None], 0, joints).astype(joints.dtype), there & ~lost


def _stray(joints: np.ndarray, there: np.ndarray, at: Boxes, remarks: list[Remark]) -> np.ndarray | None:
    """(M, T, V) bool, joints and whole bodies that are far from where they should be."""
    lost = None
    if (stray := lost_joints(joints, there, at)) is not None and stray.few:
        lost = stray.where
        remarks.append(Remark("outlier", f"{stray.what}: taken for missing"))
        joints, there = _without(joints, there, lost)
        at = boxes(joints, there)
    if len(joints) == 1 and (stray := elsewhere(at)) is not None and stray.few:
        remarks.append(Remark("jump", f"{stray.what}: taken for missing there"))
        away = stray.where[..., None] & there
        lost = away if lost is None else lost | away
    return lost


def _in_order(
    joints: np.ndarray, there: np.ndarray, at: Boxes, remarks: list[Remark]
) -> tuple[np.ndarray, np.ndarray | None]:  # fmt: skip
    """Bodies in slots of their own, people first."""
    slots = None
    time = np.arange(joints.shape[1])
    if (changed := untangle(joints, there, at)) is not None:
        slots = changed[0]
        remarks.append(changed[1])
        joints = joints[slots, time]
        at = boxes(joints, present(joints))
    if (order := ranked(joints, at)) is not None:
        remarks += order[1]
        slots = (np.tile(np.arange(len(joints))[:, None], (1, len(time))) if slots is None else slots)[order[0]]
        joints = joints[order[0]]
    return joints, slots


def _shown(anybody: np.ndarray, remarks: list[Remark]) -> slice:
    """The frames from the first that shows anybody to the last; all where none does."""
    if not len(anybody) or (anybody[0] and anybody[-1]) or not anybody.any():
        return slice(None)
    first, last = int(anybody.argmax()), len(anybody) - int(anybody[::-1].argmax())
    sides = [f"{count} {where}" for count, where in ((first, "in front"), (len(anybody) - last, "behind")) if count]
    remarks.append(Remark("ends", f"empty frames cut: {' and '.join(sides)} of {last - first}"))
    return slice(first, last)


def fill(joints: np.ndarray) -> tuple[np.ndarray, list[Remark]]:
    """Fill gaps of up to :data:`SHORT` frames between two frames that show a joint, in a line from one to the other.

    Args:
        joints: (M, T, V, C), zero where missing.

    Returns:
        joints with fewer gaps, and what to say of frames in which nobody was.
    """
    there = present(joints)
    if there.all():
        return joints, []
    filled, time = joints.copy(), np.arange(joints.shape[1])
    gaps = ~there & there.any(axis=1, keepdims=True)
    for body, joint in np.argwhere(gaps.any(axis=1)):
        seen = np.flatnonzero(there[body, :, joint])
        wide = np.diff(seen)
        for start in np.flatnonzero((wide > 1) & (wide <= SHORT + 1)):
            inner = time[seen[start] + 1 : seen[start + 1]]
            share = ((inner - seen[start]) / wide[start])[:, None]
            ends = joints[body, seen[start], joint], joints[body, seen[start + 1], joint]
            filled[body, inner, joint] = ends[0] * (1 - share) + ends[1] * share
    nobody = int((present(filled).any(axis=(0, 2)) & ~there.any(axis=(0, 2))).sum())
    what = f"{nobody} frame{'s' * (nobody != 1)} without anybody filled from the frames around"
    return filled, [Remark("gap", what)] if nobody else []
