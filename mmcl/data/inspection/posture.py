"""How the bodies of a clip stand: their size, where up is, and whether left is left. Geometry, no thresholds."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from mmcl.skeletons.layout import Layout

NARROW = 0.15  # hips or shoulders that span less than this share of the trunk are seen from the side


@dataclass(frozen=True)
class Posture:
    """One clip, medians over the frames of all its bodies. Numbers that joints or layout do not allow are NaN.

    Attributes:
        planar: every z is zero: keypoints of a picture, without depth or metres.
        height: distance of head and hips, metres; NaN for planar clips.
        up: (3,) shares of the three axes in the direction from hips to head: 0, 1, 0 for a person who stands.
        place: (3,) where the hips are, metres.
        handedness: (forward x up) . (left -> right), unit vectors; positive where left is left. It needs depth.
        agreement: cosine of left -> right at the hips and at the shoulders; negative where one pair is swapped.
    """

    planar: bool
    height: float
    up: tuple[float, float, float]
    place: tuple[float, float, float]
    handedness: float
    agreement: float


def posture(frames: np.ndarray, layout: Layout) -> Posture:
    """Measure bodies (n, V, 3), one after the other; joints of zeros are missing, bodies of zeros must be left out."""
    planar = not frames[..., 2].any()
    body = _Body(np.where(frames.any(axis=-1, keepdims=True), frames, np.nan), layout)
    head, low = body.middle("head", "nose", "head_top"), body.middle("base_spine", "hip")
    up, hips, shoulders = head - low, body.across("hip"), body.across("shoulder")
    length = np.linalg.norm(up, axis=1)
    if planar:  # a narrow pair's direction is chance: the person turns the side to the camera
        wide = [np.linalg.norm(pair, axis=1) > NARROW * length for pair in (hips, shoulders)]
        agreement = _median(np.where(wide[0] & wide[1], _dot(_unit(hips), _unit(shoulders)), np.nan))
    else:
        agreement = _median(_dot(_unit(hips), _unit(shoulders)))
    # Toes point forward, in right-handed coordinates. (A foot that was made up from its ankle points nowhere.)
    right = np.cross(_unit(body.middle("foot", "big_toe") - body.middle("ankle")), _unit(up))
    return Posture(
        planar=planar,
        height=np.nan if planar else _median(length),
        up=_medians(_unit(up)),
        place=_medians(low),
        handedness=np.nan if planar else _median(_dot(right, _unit(hips + shoulders))),
        agreement=agreement,
    )


class _Body:
    """Joints (n, V, 3) by name; NaN for what is missing in a frame, or everywhere because the layout lacks it."""

    def __init__(self, frames: np.ndarray, layout: Layout) -> None:
        self.at = {name: frames[:, i] for i, name in enumerate(layout.joints)}
        self.nowhere = np.full((len(frames), 3), np.nan)

    def middle(self, *names: str) -> np.ndarray:
        """The first of these joints that a frame has: on the middle line, or the middle between left and right."""
        found = self.nowhere
        for name in names:
            left, right = self.at.get(f"left_{name}", self.nowhere), self.at.get(f"right_{name}", self.nowhere)
            for points in (self.at.get(name, self.nowhere), (left + right) / 2):
                found = np.where(np.isnan(found), points, found)
        return found

    def across(self, name: str) -> np.ndarray:
        """From left to right."""
        return self.at.get(f"right_{name}", self.nowhere) - self.at.get(f"left_{name}", self.nowhere)


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Directions; NaN for vectors of no length."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(length > 1e-6, length, np.nan)


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.asarray((a * b).sum(axis=-1))


def _median(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else np.nan


def _medians(vectors: np.ndarray) -> tuple[float, float, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of nothing but NaN the median is NaN: that is meant
        x, y, z = np.nanmedian(vectors, axis=0) if len(vectors) else (np.nan,) * 3
    return float(x), float(y), float(z)
