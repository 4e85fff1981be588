"""From coordinates as other people's files hold them to joints as mmcl holds them: zero where missing, y up."""

from __future__ import annotations

import numpy as np

from mmcl.common.errors import BadClip
from mmcl.data.clip import RawClip

UNITS = {"m": 1.0, "cm": 0.01, "mm": 0.001}  # in metres


def clip_in_space(coordinates: np.ndarray, score: np.ndarray | None = None, metres: float = 1.0) -> RawClip:
    """A clip from joints with three coordinates.

    Args:
        coordinates: (M, T, V, 3), y up; a joint with a NaN is missing.
        score: (M, T, V) how sure a pose estimator was; joints without a positive score are missing. None: all are sure.
        metres: what a unit of the coordinates is.
    """
    missing = _missing(coordinates, score)
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused as that
        joints = np.asarray(coordinates, dtype=np.float64) * metres if metres != 1 else coordinates
        joints = np.where(missing[..., None], np.float32(0), np.asarray(joints, dtype=np.float32))
    return RawClip(joints=np.ascontiguousarray(joints[_present(joints)]))


def zero_where_missing(joints: np.ndarray) -> np.ndarray:
    """Joints (…, V, 3) float32 in metres, those with a NaN set to zero.

    Raises:
        BadClip: coordinates are infinite.
    """
    if np.isinf(joints).any():
        raise BadClip("infinite coordinates")
    return np.where(np.isnan(joints).any(axis=-1, keepdims=True), 0, joints).astype(np.float32)


def clip_in_plane(pixels: np.ndarray, picture: tuple[int, int], score: np.ndarray | None = None) -> RawClip:
    """A clip from joints found in a picture: x to the right, y up, z = 0, half the picture's height as unit.

    The origin is the middle of the picture. The clip keeps the pixels, too, NaN where a joint is missing.

    Args:
        pixels: (M, T, V, 2) columns and rows, rows counted downwards; (0, 0) and NaN are missing joints.
        picture: width and height of the picture.
        score: as above.

    Raises:
        BadClip: the picture has no size.
    """
    width, height = picture
    if not (0 < width < 1 << 16 and 0 < height < 1 << 16):
        raise BadClip(f"found in a picture of {width} x {height} pixels")
    with np.errstate(over="ignore"):
        pixels = np.asarray(pixels, dtype=np.float32)
    missing = _missing(pixels, score) | (pixels == 0).all(axis=-1)
    x, y = (pixels[..., 0] - width / 2) / (height / 2), (height / 2 - pixels[..., 1]) / (height / 2)
    x = np.where((x == 0) & (y == 0), 1e-6, x)  # in the very middle: not to be taken for missing
    joints = np.stack([x, y, np.zeros_like(x)], axis=-1).astype(np.float32)
    joints[missing] = 0
    present = _present(joints)
    kept = np.where(missing[..., None], np.float32(np.nan), pixels)[present]
    return RawClip(joints=joints[present], pixels=kept, picture=picture)


def _missing(coordinates: np.ndarray, score: np.ndarray | None) -> np.ndarray:
    """(M, T, V) bool."""
    missing = np.asarray(np.isnan(coordinates).any(axis=-1))
    if score is None:
        return missing
    if score.shape != missing.shape:
        raise BadClip(f"scores of shape {score.shape} for joints of shape {coordinates.shape}")
    return missing | np.logical_not(score > 0)


def _present(joints: np.ndarray) -> np.ndarray:
    """(M,) bool: bodies that are there at all; every body where none is, so that the clip is refused as empty."""
    there = np.asarray(joints.any(axis=(1, 2, 3)))
    return there if there.any() else np.ones_like(there)
