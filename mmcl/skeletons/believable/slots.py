"""Which slot of a clip holds whom: people who change slots, copies, ghosts and statues. For clips of several bodies."""

from __future__ import annotations

from itertools import combinations
from typing import NamedTuple

import numpy as np

from mmcl.skeletons.believable.boxes import Boxes
from mmcl.skeletons.believable.remarks import KINDS, Remark

CROSSED = 0.35  # of the way to where its joints are now that a body has from where those of the other were
LIKELY = 0.6  # of that way: what may be an exchange, but is not sure enough to be put right
APART = 1 / 8  # of a body's extent by which the two ways differ
SHARED = 1 / 4  # of the joints that both bodies must show
LOST = 15  # frames for which a tracker may lose a person who then goes on in another slot
GHOST, PARTLY = 1 / 8, 1 / 2  # share of the frames of the body that is there most
STILL = 8  # frames after which a body that has not moved at all is a statue


def untangle(joints: np.ndarray, there: np.ndarray, at: Boxes) -> tuple[np.ndarray, Remark] | None:
    """Give each person one slot.

    Args:
        joints: (M, T, V, C).
        there: (M, T, V) bool, which joints are there.
        at: boxes of the bodies.

    Returns:
        (M, T) int, from which slot to take a person's body in each frame, and what to say; None where nobody changes.
    """
    events = [event for ways in _ways(joints, there, at.size) for event in ways.exchanged(CROSSED)]
    events = sorted(events + _continued(at))
    order = np.tile(np.arange(len(at.there))[:, None], (1, at.there.shape[1]))
    for frame, one, other in events:
        first, second = order[:, frame] == one, order[:, frame] == other
        order[first, frame:], order[second, frame:] = other, one
    time = np.arange(order.shape[1])
    then = _ways(joints[order, time], there[order, time], at.size)
    left = sorted(event for ways in then for event in (ways.unclear() if events else ways.exchanged(LIKELY)))
    if not events and not left:
        return None
    what = f"bodies change places between two frames (before frame {_frames(events or left)})"
    if left:
        unclear = f"put right there; it is not clear before frame {_frames(left)}"
        what += f": {unclear if events else 'not clear, left as it is'}"
        return order, Remark("exchange", what, KINDS["exchange"].advice)
    return order, Remark("exchange", f"{what}: put right")


def _frames(events: list[tuple[int, int, int]]) -> str:
    return ", ".join(str(frame) for frame, _, _ in events[:4]) + (", …" if len(events) > 4 else "")


class _Ways(NamedTuple):
    """How far the joints of two bodies go from each frame to the next, (T - 1,) each, sums over joints that both have.

    Attributes:
        one, other: their slots.
        stay: from where they were.
        swap: from where those of the other were.
        least: by which stay and swap must differ for one of them to be sure.
        known: whether enough joints are there.
    """

    one: int
    other: int
    stay: np.ndarray
    swap: np.ndarray
    least: np.ndarray
    known: np.ndarray

    def exchanged(self, share: float) -> list[tuple[int, int, int]]:
        """(frame, slot, slot) where both bodies are where the other was one frame before."""
        return self._at((self.swap < share * self.stay) & (self.stay - self.swap > self.least))

    def unclear(self) -> list[tuple[int, int, int]]:
        """The same where an exchange looks like none, as the bodies are in one another, or where one is still left."""
        return self._at((self.stay >= CROSSED * self.swap) | (self.swap - self.stay <= self.least))

    def _at(self, places: np.ndarray) -> list[tuple[int, int, int]]:
        return [(int(frame) + 1, self.one, self.other) for frame in np.flatnonzero(places & self.known)]


def _ways(joints: np.ndarray, there: np.ndarray, size: float) -> list[_Ways]:
    """Of every two bodies that are there at one time."""
    found = []
    for one, other in combinations(range(len(joints)), 2):
        both = there[one] & there[other]
        both = both[1:] & both[:-1]
        count = both.sum(axis=1)
        if not both.any():
            continue
        a, b = joints[one], joints[other]
        stay = _way(a[1:], a[:-1], both) + _way(b[1:], b[:-1], both)
        swap = _way(a[1:], b[:-1], both) + _way(b[1:], a[:-1], both)
        found.append(_Ways(one, other, stay, swap, APART * size * count, count > SHARED * there.shape[2]))
    return found


def _way(joints: np.ndarray, others: np.ndarray, both: np.ndarray) -> np.ndarray:
    """The sum of the ways of those joints (T, V, C) that both have, frame by frame."""
    return np.asarray(np.where(both, _length(joints - others), 0).sum(axis=1))


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
