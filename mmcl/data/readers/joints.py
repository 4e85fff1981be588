"""From coordinates as other people's files hold them to joints as mmcl holds them: zero where missing, y up."""

from __future__ import annotations

import re

import numpy as np

from mmcl.common.errors import BadClip, UserError
from mmcl.data.clip import MOST_FPS, RawClip

SMALLEST = 8  # pixels of a picture in which somebody can be found
UNITS = {"m": 1.0, "cm": 0.01, "mm": 0.001}  # in metres
FARTHEST = 1e4  # metres from the origin: float32 rounds by a millimetre there
MOST_SURE = 10.0  # scores of pose estimators may be a little above 1; percentages are no such scores
_AXIS = re.compile(r"-?[xyz]")


class Axes:
    """What three columns of a file are.

    Args:
        words: the letters x (to one side), y (up) and z (away) in the order of the columns; a minus before one where
            the column grows the other way. "-x-yz" are the axes of Azure Kinect, OpenCV and MediaPipe, in which y
            points down and x to the right.

    Raises:
        UserError: the words are something else.
    """

    def __init__(self, words: str) -> None:
        found = _AXIS.findall(words)
        letters = [axis[-1] for axis in found]
        if "".join(found) != words or sorted(letters) != ["x", "y", "z"]:
            raise UserError(
                f"axes '{words:.40}': expected x, y and z in the order of the columns, each with a minus where it "
                "grows the other way: zxy, or -x-yz for files in which y points down (--axes=-x-yz)"
            )
        self.order = [letters.index(axis) for axis in "xyz"]
        self.signs = np.array([-1.0 if found[column][0] == "-" else 1.0 for column in self.order])
        self.plain = words == "xyz"

    def straight(self, joints: np.ndarray) -> np.ndarray:
        """Joints (…, 3) in the order x, y, z, y up."""
        return joints if self.plain else joints[..., self.order] * self.signs.astype(joints.dtype)


def clip_in_space(coordinates: np.ndarray, score: np.ndarray | None = None, metres: float = 1.0) -> RawClip:
    """A clip from joints with three coordinates.

    Args:
        coordinates: (M, T, V, 3), y up; a joint with a NaN is missing.
        score: (M, T, V) how sure a pose estimator was; joints without a positive score are missing. None: all are sure.
        metres: what a unit of the coordinates is.

    Returns:
        Joints (M, T, V, 3), with the score as their confidence.

    Raises:
        BadClip: most joints are so far from the origin that float32 would round them by a millimetre or more.
    """
    missing = _missing(coordinates, score)
    check_distance(coordinates, missing, metres)
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused as that
        joints = np.asarray(coordinates, dtype=np.float64) * metres if metres != 1 else coordinates
        joints = np.where(missing[..., None], np.float32(0), np.asarray(joints, dtype=np.float32))
    there = _present(joints)
    return RawClip(joints=np.ascontiguousarray(joints[there]), confidence=_confidence(score, missing, there))


def check_distance(coordinates: np.ndarray, missing: np.ndarray, metres: float = 1.0) -> None:
    """Raise :class:`BadClip` where most joints (…, C), missing (…) ones aside, are too far away for float32."""
    values = np.asarray(coordinates[~missing], dtype=np.float64)
    away = float(np.median(np.abs(values).max(axis=-1))) * metres if len(values) else 0.0
    if FARTHEST < away < np.inf:  # infinite ones are refused as that
        raise BadClip(f"most joints are {away:,.0f} metres from the origin, where single precision is too "
                      "coarse: say --unit, or subtract a place near the people")  # fmt: skip


def zero_where_missing(joints: np.ndarray) -> np.ndarray:
    """Joints (…, V, 3) float32 in metres, those with a NaN set to zero.

    Raises:
        BadClip: coordinates are infinite.
    """
    with np.errstate(over="ignore"):  # what is too large for single precision becomes infinite, and is refused as that
        found = np.where(np.isnan(joints).any(axis=-1, keepdims=True), 0, joints).astype(np.float32)
    if np.isinf(found).any():
        raise BadClip("infinite coordinates")
    return found


def as_taken(joints: np.ndarray, columns: int) -> np.ndarray:
    """Joints (…, V, C) with as many numbers each as a model takes.

    Args:
        joints: C is 2, 3, or 4: x, y, z and the confidence; missing joints zero.
        columns: 3 or 4. Joints in a plane get a z of 0. A joint whose confidence is not positive is missing; where
            nobody says a confidence, all joints that are there are sure.

    Returns:
        (…, V, columns) float32.

    Raises:
        UserError: another C.
    """
    C = joints.shape[-1]
    if not 2 <= C <= 4:
        raise UserError(f"a joint has 2, 3 or 4 numbers (x, y, z and its confidence), not {C}: {joints.shape}")
    sure = joints[..., 3:] if C == 4 else joints.any(axis=-1, keepdims=True)
    found = np.zeros((*joints.shape[:-1], columns), dtype=np.float32)
    found[..., : min(C, 3)] = np.where(sure > 0, joints[..., :3], 0)
    if columns == 4:
        found[..., 3:] = np.maximum(sure, 0)
    return found


def in_picture(pixels: np.ndarray, picture: tuple[int, int]) -> np.ndarray:
    """Columns and rows (…, 2) of a picture -> joints (…, 2) float32, see :func:`clip_in_plane`; missing ones, too."""
    width, height = picture
    x, y = (pixels[..., 0] - width / 2) / (height / 2), (height / 2 - pixels[..., 1]) / (height / 2)
    x = np.where((x == 0) & (y == 0), 1e-6, x)  # in the very middle: not to be taken for missing
    return np.stack([x, y], axis=-1).astype(np.float32)


def clip_in_plane(pixels: np.ndarray, picture: tuple[int, int], score: np.ndarray | None = None) -> RawClip:
    """A clip from joints found in a picture: x to the right, y up, half the picture's height as unit.

    The origin is the middle of the picture. The clip keeps the pixels, too, NaN where a joint is missing.

    Args:
        pixels: (M, T, V, 2) columns and rows, rows counted downwards; (0, 0) and NaN are missing joints.
        picture: width and height of the picture.
        score: as above.

    Returns:
        Joints (M, T, V, 2), with the score as their confidence.

    Raises:
        BadClip: the picture has no size.
    """
    width, height = picture
    if not (SMALLEST <= width < 1 << 16 and SMALLEST <= height < 1 << 16):
        raise BadClip(f"found in a picture of {width} x {height} pixels: give its size, and joints in pixels")
    with np.errstate(over="ignore"):
        pixels = np.asarray(pixels, dtype=np.float32)
    missing = _missing(pixels, score) | (pixels == 0).all(axis=-1)
    joints = in_picture(pixels, picture)
    joints[missing] = 0
    present = _present(joints)
    kept = np.where(missing[..., None], np.float32(np.nan), pixels)[present]
    sure = _confidence(score, missing, present)
    return RawClip(joints=joints[present], pixels=kept, picture=picture, confidence=sure)


def _missing(coordinates: np.ndarray, score: np.ndarray | None) -> np.ndarray:
    """(M, T, V) bool."""
    missing = np.asarray(np.isnan(coordinates).any(axis=-1))
    if score is None:
        return missing
    if score.shape != missing.shape:
        raise BadClip(f"scores of shape {score.shape} for joints of shape {coordinates.shape}")
    return missing | np.logical_not(score > 0)


def _confidence(score: np.ndarray | None, missing: np.ndarray, there: np.ndarray) -> np.ndarray | None:
    """(M, T, V) confidence of the bodies that are there, 0 where a joint is missing."""
    if score is not None:
        check_confidence(score)
    return None if score is None else np.where(missing, 0, score).astype(np.float32)[there]


def check_confidence(score: np.ndarray) -> None:
    """Whether numbers of any shape can be confidences, NaN among them.

    Raises:
        BadClip: they are percentages, or flags of which 2 is the surest.
    """
    if (largest := np.nanmax(score, initial=0)) > 1.5:
        flags = np.isin(score, (0, 1, 2)).all()
        if flags or largest > MOST_SURE:
            raise BadClip(f"confidences go up to {largest:g}{' in whole steps' * bool(flags)}: divide them, so that 1 "
                          "is the surest")  # fmt: skip


def _present(joints: np.ndarray) -> np.ndarray:
    """(M,) bool: bodies that are there at all; every body where none is, so that the clip is refused as empty."""
    there = np.asarray(joints.any(axis=(1, 2, 3)))
    return there if there.any() else np.ones_like(there)


def check_fps(fps: float) -> None:
    """Refuse what is no frame rate.

    Raises:
        UserError: it is none.
    """
    if not 1e-3 <= fps <= MOST_FPS:
        raise UserError(f"fps {fps:g}: give frames per second, above 0 and at most {MOST_FPS:,}")
