"""Which slot of a clip holds whom: people who change slots, copies, ghosts and statues. For clips of several bodies."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from mmcl.skeletons.believable.boxes import Boxes
from mmcl.skeletons.believable.remarks import Remark

CROSSED = 0.35  # of the way to where it is now that a body has from where the other was
LOST = 15  # frames for which a tracker may lose a person who then goes on in another slot
GHOST, PARTLY = 1 / 8, 1 / 2  # share of the frames of the body that is there most
STILL = 8  # frames after which a body that has not moved at all is a statue


def untangle(at: Boxes) -> tuple[np.ndarray, Remark] | None:
    """Give each person one slot.

    Args:
        at: boxes of the bodies.

    Returns:
        (M, T) int, from which slot to take a person's body in each frame, and what to say; None where nobody changes.
    """
    events = sorted(_exchanges(at) + _continued(at))
    if not events:
        return None
    order = np.tile(np.arange(len(at.there))[:, None], (1, at.there.shape[1]))
    for frame, one, other in events:
        first, second = order[:, frame] == one, order[:, frame] == other
        order[first, frame:], order[second, frame:] = other, one
    named = ", ".join(str(frame) for frame, _, _ in events[:4]) + (", …" if len(events) > 4 else "")
    return order, Remark("exchange", f"bodies change places between two frames (before frame {named}): put right")


def _exchanges(at: Boxes) -> list[tuple[int, int, int]]:
    """(frame, slot, slot): two bodies that are each where the other was one frame before."""
    events = []
    for one, other in combinations(range(len(at.there)), 2):
        both = at.there[one] & at.there[other]
        both = both[1:] & both[:-1]
        if not both.any():
            continue
        a, b = at.middle[one], at.middle[other]
        with np.errstate(invalid="ignore"):
            stay = _length(a[1:] - a[:-1]) + _length(b[1:] - b[:-1])
            swap = _length(a[1:] - b[:-1]) + _length(b[1:] - a[:-1])
            crossed = both & (swap < CROSSED * stay) & (stay - swap > at.size / 2)
        events += [(int(frame) + 1, one, other) for frame in np.flatnonzero(crossed)]
    return events


def _continued(at: Boxes) -> list[tuple[int, int, int]]:
    """(frame, slot, slot): a body that is lost, and goes on at the same place in a slot that was empty just before."""
    events = []
    begins = at.there[:, 1:] & ~at.there[:, :-1]
    for slot, before in zip(*np.nonzero(begins), strict=True):
        frame = int(before) + 1
        for other in range(len(at.there)):
            seen = np.flatnonzero(at.there[other, max(0, frame - LOST) : frame])
            if other == slot or not len(seen) or at.there[other, frame]:
                continue
            last = max(0, frame - LOST) + int(seen[-1])
            if _length(at.middle[slot, frame] - at.middle[other, last]) < at.size / 4:
                events.append((frame, int(slot), other))
                break
    return events


def ranked(joints: np.ndarray, at: Boxes) -> tuple[list[int], list[Remark]] | None:
    """Put those first who are people.

    Args:
        joints: (M, T, V, C).
        at: boxes of these joints.

    Returns:
        slots to keep in their new order, and what to say; None where all stay as they are.
    """
    frames = at.there.sum(axis=1)
    most, remarks = int(frames.max()), []
    kept = [slot for slot in range(len(frames)) if frames[slot]]
    for one, other in combinations(kept, 2):
        both = at.there[one] & at.there[other]
        if other in kept and both.sum() > frames[other] / 2 and _same(joints, one, other, both, at.size):
            kept.remove(other)
            remarks.append(Remark("copy", f"body {other + 1} is a copy of body {one + 1}: left out"))
    for slot in [slot for slot in kept if frames[slot] <= GHOST * most]:
        kept.remove(slot)
        what = f"body {slot + 1} is there in {frames[slot]} of {joints.shape[1]} frames, another in {most}: left out"
        remarks.append(Remark("ghost", what))
    statues = [slot for slot in kept if len(kept) > 1 and _statue(joints[slot], at.there[slot])]
    if 0 < len(statues) < len(kept):
        named = " and ".join(f"body {slot + 1}" for slot in statues)
        remarks.append(Remark("statue", f"{named} never moves: put behind the other"))
    else:
        statues = []
    behind = [slot for slot in kept if frames[slot] < PARTLY * most]
    order = sorted(kept, key=lambda slot: (slot in statues, slot in behind))
    if order != kept and not statues:
        slot = kept[0]
        what = f"body {slot + 1} is there in {frames[slot]} of {joints.shape[1]} frames, another in {most}: put behind"
        remarks.append(Remark("ghost", what))
    return (order, remarks) if remarks else None


def _same(joints: np.ndarray, one: int, other: int, frames: np.ndarray, size: float) -> bool:
    return bool(np.abs(joints[one, frames] - joints[other, frames]).max() < 1e-3 * size)


def _statue(body: np.ndarray, there: np.ndarray) -> bool:
    """Whether a body (T, V, C) is exactly the same in all frames in which it is there."""
    seen = body[there]
    return len(seen) >= STILL and bool((seen == seen[0]).all())


def _length(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(np.sqrt((vectors * vectors).sum(axis=-1)))
