"""Who is who from picture to picture: people keep their number through a crossing and through a second out of sight.

Each person is expected where a steady walk would have taken them; the people of a new picture are given to those
expected so that the sum of distances, measured joint by joint in sizes of the body, is smallest (linear assignment, as
in SORT: Bewley et al., Simple Online and Realtime Tracking, 2016, with keypoints in place of boxes).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from mmcl.pose.base import Poses

GAP = 1.0  # seconds out of sight after which somebody who comes is somebody new
NEAR, FARTHER = 0.6, 0.6  # body sizes that a person may be from where they are expected, and more a second out of sight
SPEED = 0.5  # seconds of the past that say how somebody moves
TIRED = 1.0  # seconds after which a person who is out of sight is expected to have stopped
SIZES = 0.5  # weight of the logarithm of two sizes' ratio
COPY = 0.1  # body sizes within which two people of one picture are one and the same


@dataclass
class _Person:
    """Somebody who is being followed.

    Attributes:
        number: who it is.
        pixels: (V, 2) where the joints were last seen, NaN where they never were.
        confidence: (V,) how surely.
        past: (seconds, middle) of the last half second.
    """

    number: int
    pixels: np.ndarray
    confidence: np.ndarray
    past: deque[tuple[float, np.ndarray]] = field(default_factory=deque)

    @property
    def last(self) -> float:
        """Seconds at which they were last seen."""
        return self.past[-1][0]

    def expected(self, seconds: float) -> np.ndarray:
        """(V, 2) where the joints are expected at a time."""
        times = np.array([time for time, _ in self.past])
        velocity = np.zeros(2)
        if len(times) > 2:
            middles = np.stack([middle for _, middle in self.past])
            away = times - times.mean()
            velocity = (away[:, None] * middles).sum(axis=0) / max((away**2).sum(), 1e-9)
        reach = TIRED * (1 - np.exp(-(seconds - self.last) / TIRED))
        return self.pixels + velocity * reach

    def seen(self, seconds: float, pixels: np.ndarray, confidence: np.ndarray) -> None:
        """Take note of where they are now."""
        known = np.isfinite(pixels).all(axis=-1)
        self.pixels = np.where(known[:, None], pixels, self.pixels)
        self.confidence = np.where(known, confidence, self.confidence * 0.5)
        self.past.append((seconds, middle(pixels, confidence)))
        while seconds - self.past[0][0] > SPEED:
            self.past.popleft()


class Tracker:
    """Gives each person of a picture a number that stays theirs.

    Args:
        gap: seconds out of sight for which a number is kept.
    """

    def __init__(self, gap: float = GAP) -> None:
        self.gap = gap
        self._people: list[_Person] = []
        self._count = 0

    def follow(self, seconds: float, poses: Poses) -> tuple[Poses, list[int]]:
        """The people of the next picture, and their numbers, from 0 in the order of appearance.

        Who is nobody that is being followed, and the same as another of the picture, was found twice, and is left out:
        two people who are known may well be in one place, where they cross.
        """
        self._people = [person for person in self._people if seconds - person.last <= self.gap + 1e-9]
        numbers = self._known(seconds, poses)
        kept = [column for column, number in enumerate(numbers) if number >= 0]
        order = np.argsort(-poses.confidence.mean(axis=1), kind="stable").tolist() if len(poses) else []
        for column in order:
            if numbers[column] < 0 and np.isfinite(poses.pixels[column]).any() and not _copy(poses, column, kept):
                kept.append(column)
                numbers[column] = self._new(seconds, poses.pixels[column], poses.confidence[column])
        kept.sort()
        return poses.kept(kept), [numbers[column] for column in kept]

    def _known(self, seconds: float, poses: Poses) -> list[int]:
        """Number of each of the people who is being followed, -1 for others."""
        from scipy.optimize import linear_sum_assignment

        numbers = [-1] * len(poses)
        if not self._people or not len(poses):
            return numbers
        costs = np.stack([self._costs(person, seconds, poses) for person in self._people])
        gates = np.array([NEAR + FARTHER * (seconds - person.last) for person in self._people])
        far = ~(costs <= gates[:, None])
        for row, column in zip(*linear_sum_assignment(np.where(far, 1e3, costs)), strict=True):
            if not far[row, column]:
                person = self._people[row]
                person.seen(seconds, poses.pixels[column], poses.confidence[column])
                numbers[column] = person.number
        return numbers

    def _costs(self, person: _Person, seconds: float, poses: Poses) -> np.ndarray:
        expected = person.expected(seconds)
        own = size(expected)
        found = []
        for pixels, confidence in zip(poses.pixels, poses.confidence, strict=True):
            other = size(pixels)
            away = distance(expected, person.confidence, pixels, confidence) / max((own + other) / 2, 1.0)
            found.append(away + SIZES * abs(np.log(max(own, 1.0) / max(other, 1.0))))
        return np.array(found)

    def _new(self, seconds: float, pixels: np.ndarray, confidence: np.ndarray) -> int:
        person = _Person(self._count, pixels, confidence)
        person.seen(seconds, pixels, confidence)
        self._people.append(person)
        self._count += 1
        return person.number


def size(pixels: np.ndarray) -> float:
    """Diagonal of the box around the joints (V, 2) that are there; 0 where none is."""
    there = pixels[np.isfinite(pixels).all(axis=-1)]
    return float(np.hypot(*(there.max(axis=0) - there.min(axis=0)))) if len(there) else 0.0


def middle(pixels: np.ndarray, confidence: np.ndarray) -> np.ndarray:
    """(2,) mean of the joints, the sure ones counting more."""
    there = np.isfinite(pixels).all(axis=-1)
    weights = np.where(there, confidence + 1e-3, 0.0)
    return np.asarray((np.nan_to_num(pixels) * weights[:, None]).sum(axis=0) / max(weights.sum(), 1e-9))


def distance(one: np.ndarray, sure: np.ndarray, other: np.ndarray, as_sure: np.ndarray) -> float:
    """Mean distance of two people's joints, pixels; infinite where they have none in common."""
    both = np.isfinite(one).all(axis=-1) & np.isfinite(other).all(axis=-1)
    weights = (sure * as_sure + 1e-3)[both]
    if not both.any():
        return float("inf")
    return float((np.linalg.norm(one[both] - other[both], axis=-1) * weights).sum() / weights.sum())


def _copy(poses: Poses, new: int, kept: list[int]) -> bool:
    """Whether somebody is the same as another of the same picture."""
    pixels, sure = poses.pixels[new], poses.confidence[new]
    return any(
        distance(poses.pixels[old], poses.confidence[old], pixels, sure) < COPY * size(poses.pixels[old])
        for old in kept
    )
