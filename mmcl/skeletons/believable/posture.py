"""How the bodies of a clip stand: their size, where up is, where they look, whether left is left. No thresholds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mmcl.skeletons.believable.names import of_a_body, places
from mmcl.skeletons.believable.tree import ends
from mmcl.skeletons.layout import Layout

NARROW = 0.15  # hips or shoulders that span less than this share of the trunk are seen from the side
LOOKED_AT = 24  # frames of a clip, evenly spread: more of them change no median by much
Vector = tuple[float, float, float]


@dataclass(frozen=True)
class Posture:
    """One clip, medians over frames of all its bodies. Numbers that joints or layout do not allow are NaN.

    Attributes:
        planar: keypoints of a picture, without depth or metres.
        height: distance of head and hips, metres; NaN for planar clips, and where hips and head are guessed.
        up: (3,) shares of the three axes in the direction from hips to head: 0, 1, 0 for a person who stands.
        forward: (3,) where the body faces, of unit length; by the toes, or else the nose, or else the hands.
        place: (3,) where the hips are, metres.
        handedness: (forward x up) . (left -> right), from -1 to 1; positive where left is left. It needs depth.
        sure: whether ``handedness`` comes from toes or nose, which a single clip is enough for; hands may be anywhere.
        agreement: cosine of left -> right at the hips and at the shoulders; negative where one pair is swapped.
    """

    planar: bool
    height: float
    up: Vector
    forward: Vector
    place: Vector
    handedness: float
    sure: bool
    agreement: float


NOBODY = Posture(False, np.nan, (np.nan,) * 3, (np.nan,) * 3, (np.nan,) * 3, np.nan, False, np.nan)


def posture(frames: np.ndarray, layout: Layout, planar: bool | None = None) -> Posture:
    """Measure bodies.

    Args:
        frames: (n, V, C), one after the other, C 2 or 3; joints of zeros are missing, bodies of zeros must be left out.
        layout: which joints they are.
        planar: whether they are keypoints of a picture; None: they are where they have no third coordinate, or zeros.
    """
    if not len(frames):
        return NOBODY
    frames = frames[np.linspace(0, len(frames) - 1, min(len(frames), LOOKED_AT)).astype(int)]
    if planar is None:
        planar = frames.shape[-1] == 2 or not frames[..., 2].any()
    if frames.shape[-1] == 2:
        frames = np.concatenate([frames, np.zeros_like(frames[..., :1])], axis=-1)
    missing = ~frames.any(axis=-1, keepdims=True)
    joints = frames.astype(np.float64)
    if missing.any():
        joints = np.where(missing, np.nan, joints)
    body = _Body(joints, layout)
    up, hips, shoulders = _unit(body.trunk), body.across("hip"), body.across("shoulder")
    length = _length(body.trunk)
    forward, sure = body.forward()
    handedness = np.nan if planar else _handedness(forward, up, _sum(hips, shoulders))
    agreement = _dot(_unit(hips), _unit(shoulders))
    if planar:  # a narrow pair's direction is chance: the person turns the side to the camera
        wide = [_length(pair) > NARROW * length for pair in (hips, shoulders)]
        agreement = np.where(wide[0] & wide[1], agreement, np.nan)
    return Posture(
        planar=bool(planar),
        height=np.nan if planar or body.guessed else _median(length),
        up=_medians(up),
        forward=_direction(forward),
        place=_medians(body.low),
        handedness=handedness,
        sure=sure,
        agreement=_median(agreement),
    )


class _Body:
    """Joints (n, V, 3) by what they are; NaN for what is missing in a frame, or everywhere because the layout lacks it.

    Attributes:
        head, low: (n, 3) the two ends of the trunk.
        trunk: from one to the other.
        guessed: whether these are not the head and the hips themselves.
    """

    def __init__(self, joints: np.ndarray, layout: Layout) -> None:
        self.joints, self.where = joints, places(layout.joints)
        self.nowhere = np.full((len(joints), 3), np.nan)
        self.head, self.low = self.middle("head", "nose", "head_top"), self.middle("base_spine", "hip")
        self.guessed = bool(np.isnan(self.low).all() or np.isnan(self.head).all())
        if self.guessed and "torso" in self.where and not np.isnan(self.head).all():
            self.low = self.middle("torso")
        elif self.guessed and of_a_body(layout.joints):
            self._guess(layout)
        self.trunk = self.head - self.low

    def _guess(self, layout: Layout) -> None:
        """Take from the tree whichever end the names do not say."""
        if (found := ends(self.joints, layout)) is None:
            return
        head, low = (self.joints[:, list(of)].mean(axis=1) for of in found)
        self.head = head if np.isnan(self.head).all() else self.head
        self.low = low if np.isnan(self.low).all() else self.low

    def middle(self, *parts: str) -> np.ndarray:
        """The first of these that a frame has: on the middle line, or the middle between left and right."""
        found = self.nowhere
        for part in parts:
            left, right = self.where.get(f"left_{part}"), self.where.get(f"right_{part}")
            if part in self.where:
                found = _or(found, self.joints[:, self.where[part]])
            if left is not None and right is not None:
                found = _or(found, (self.joints[:, left] + self.joints[:, right]) / 2)
            if found is not self.nowhere and not np.isnan(found).any():
                break
        return found

    def across(self, part: str) -> np.ndarray:
        """From left to right."""
        left, right = self.where.get(f"left_{part}"), self.where.get(f"right_{part}")
        return self.nowhere if left is None or right is None else self.joints[:, right] - self.joints[:, left]

    def forward(self) -> tuple[np.ndarray, bool]:
        """Where the body faces (n, 3), and whether one clip is enough to be sure of it.

        Toes point forward, and so does a nose from between the ears. (A foot that was made up from its ankle points
        nowhere.) Without either, hands are before the body more often than behind it.
        """
        for tip, base in (("foot", "ankle"), ("nose", "ear")):
            found = self.middle(tip) - self.middle(base)
            if np.nansum(np.abs(found)) > 1e-6:
                return found, True
        return self.middle("hand", "wrist") - self.middle("shoulder"), False


def _handedness(forward: np.ndarray, up: np.ndarray, across: np.ndarray) -> float:
    """Frames count as much as ``forward`` is long in them; NaN where no frame shows all three."""
    a, b = forward.T, up.T
    cross = (a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0])
    right = _dot(np.stack(cross, axis=-1), _unit(across))
    known = np.isfinite(right)
    total = float(_length(forward)[known].sum())
    return float(right[known].sum()) / total if total > 1e-6 else np.nan


def _sum(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """What is there of two."""
    return np.where(np.isnan(first), second, np.where(np.isnan(second), first, first + second))


def _or(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    missing = np.isnan(first)
    return np.where(missing, second, first) if missing.any() else first


def _length(vectors: np.ndarray) -> np.ndarray:
    return np.sqrt((vectors * vectors).sum(axis=-1))


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Directions; NaN for vectors of no length."""
    length = _length(vectors)[..., None]
    return np.asarray(vectors / np.where(length > 1e-6, length, np.nan))


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.asarray((a * b).sum(axis=-1))


def _median(values: np.ndarray) -> float:
    known = np.sort(values[np.isfinite(values)])
    count = len(known)
    return float(known[(count - 1) // 2] + known[count // 2]) / 2 if count else np.nan


def _medians(vectors: np.ndarray) -> Vector:
    known = np.sort(vectors[np.isfinite(vectors[:, 0])], axis=0)
    if not len(known):
        return np.nan, np.nan, np.nan
    x, y, z = (known[(len(known) - 1) // 2] + known[len(known) // 2]) / 2
    return float(x), float(y), float(z)


def _direction(vectors: np.ndarray) -> Vector:
    """Mean direction of vectors that count by their length."""
    total = np.nansum(vectors, axis=0)
    length = float(np.sqrt((total * total).sum()))
    if not length > 1e-6:
        return np.nan, np.nan, np.nan
    x, y, z = total / length
    return float(x), float(y), float(z)
