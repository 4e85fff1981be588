"""Whether skeletons from a film can be believed. A share of frames with somebody in them says nothing about that.

Estimators give a skeleton for whatever looks like a person; what shows that it is wrong is that bones change their
length, that joints tremble or jump, and that the estimator itself is unsure. Limits were set on real recordings: colour
videos with joints 7 to 9 cm off on the good side, depth pictures with joints 20 cm off on the bad one.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mmcl.pose.recording import Recording
from mmcl.skeletons.believable import NOTE, look
from mmcl.skeletons.layout import Layout

GOOD, DOUBTFUL, BAD = "good", "doubtful", "bad"
# measure -> (limit of good, limit of doubtful, whether more is better, what is said beyond the limit)
LIMITS: dict[str, tuple[float, float, bool, str]] = {
    "confidence": (0.75, 0.5, True, "the estimator is unsure of many joints"),
    "bones": (0.12, 0.20, False, "bones change their length"),
    "tremble": (0.005, 0.009, False, "joints tremble from frame to frame"),
    "jumps": (0.005, 0.02, False, "joints jump"),
}
SEEN = (0.95, 0.5)  # share of a film's frames that could be decoded: below it is doubtful, or bad
LIMBS = ("elbow", "wrist", "knee", "ankle")  # ends of the bones that are measured
FAST = 10.0  # metres a second, or body heights of 1.7 m: no joint does that but the end of a throwing arm


@dataclass(frozen=True)
class Quality:
    """What was measured of a recording.

    Attributes:
        detected: share of the frames with somebody in them; it decides nothing.
        confidence: mean confidence of the joints of those who are there.
        bones: how much arms and legs change their length: half the range of the middle two thirds, relative to the
            median; the mean over bones. Without depth, from frame to frame alone, since a turn shortens them.
        tremble: median distance of a joint from the middle of its places one frame before and one after, in body sizes.
        jumps: share of the steps faster than any person.
        verdict: good, doubtful or bad.
        reasons: why not good.
    """

    detected: float
    confidence: float
    bones: float
    tremble: float
    jumps: float
    verdict: str
    reasons: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {key: round(value, 4) if isinstance(value, float) else value for key, value in asdict(self).items()}

    def __str__(self) -> str:
        measured = (
            f"{self.detected:.0%} of frames with somebody, confidence {self.confidence:.2f}, bones ±{self.bones:.0%}, "
            f"tremble {self.tremble:.2%}, jumps {self.jumps:.1%}"
        )
        return f"{self.verdict} ({measured})" + (f": {'; '.join(self.reasons)}" if self.reasons else "")


def judge(recording: Recording, seen: float = 1.0) -> Quality:
    """Measure a recording.

    Args:
        recording: the people of a film.
        seen: how much of the film could be looked at.
    """
    values = recording.pixels if recording.joints is None else recording.joints
    there = np.asarray(recording.confidence > 0)
    values = np.where(there[..., None], values, np.nan)
    sizes = [_size(person) for person in values]
    step = float(np.median(np.diff(recording.seconds))) if len(recording.seconds) > 1 else 1 / 30
    measured = {
        "confidence": float(recording.confidence[recording.there].mean()),
        "bones": _mean([_bones(person, recording.layout, recording.joints is not None) for person in values]),
        "tremble": _mean([_tremble(person) / size for person, size in zip(values, sizes, strict=True)]),
        "jumps": _mean([_jumps(person, size, step) for person, size in zip(values, sizes, strict=True)]),
    }
    worst = sum(seen < limit for limit in SEEN)
    reasons = [f"{seen:.0%} of the video could be looked at"] if worst else []
    for name, (good, doubtful, more, words) in LIMITS.items():
        value = measured[name]
        beyond = sum(value < limit if more else value > limit for limit in (good, doubtful))
        reasons += [words] if beyond else []
        worst = max(worst, beyond)
    if recording.joints is not None:
        doubts = [remark for remark in look(recording.columns()[..., :3], recording.layout) if remark.level != NOTE]
        reasons += [str(remark) for remark in doubts]
        worst = max(worst, min(len(doubts), 1))
    detected = float(recording.there.any(axis=0).mean())
    return Quality(detected, verdict=(GOOD, DOUBTFUL, BAD)[worst], reasons=tuple(reasons), **measured)


def _mean(values: list[float]) -> float:
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else 0.0


def _size(person: np.ndarray) -> float:
    """Median longest side of the box around a person (T, V, C)."""
    seen = person[np.isfinite(person).any(axis=(1, 2))]
    sides = np.nanmax(seen, axis=1) - np.nanmin(seen, axis=1)
    return max(float(np.median(sides.max(axis=1))), 1e-6)


def _bones(person: np.ndarray, layout: Layout, depth: bool) -> float:
    found = []
    for child, parent in layout.edges:
        if not layout.joints[child].endswith(LIMBS):
            continue
        length = np.linalg.norm(person[:, child] - person[:, parent], axis=-1)
        length = length[np.isfinite(length)]
        if len(length) < 3:
            continue
        if depth:
            low, high = np.quantile(length, (1 / 6, 5 / 6))
            found.append((high - low) / 2 / max(float(np.median(length)), 1e-6))
        else:
            found.append(float(np.median(np.abs(np.diff(np.log(np.maximum(length, 1e-6)))))))
    return _mean(found)


def _tremble(person: np.ndarray) -> float:
    if len(person) < 3:
        return 0.0
    away = np.linalg.norm(person[1:-1] - (person[2:] + person[:-2]) / 2, axis=-1)
    away = away[np.isfinite(away)]
    return float(np.median(away)) if len(away) else 0.0


def _jumps(person: np.ndarray, size: float, step: float) -> float:
    speeds = np.linalg.norm(np.diff(person, axis=0), axis=-1) / step / size * 1.7
    speeds = speeds[np.isfinite(speeds)]
    return float((speeds > FAST).mean()) if len(speeds) else 0.0
