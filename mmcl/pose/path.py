"""Where a body stands in the room, from where its joints stand in the picture.

An estimator that sees one picture gives a body around its own middle, so nobody walks. A pinhole camera that sees joint
(X, Y, Z) + t at column u and row v has f (X + tx) = (u - cx) (Z + tz), and the like for the row: two linear equations a
joint for the three numbers of t, solved by least squares. The focal length f follows from the angle that the picture's
longer side covers, which is assumed: a wrong one makes everybody a little nearer or farther, nothing else.
"""

from __future__ import annotations

import numpy as np

ANGLE = 65.0  # degrees: telephones have 60 to 70, Kinect v2 84, webcams 60 to 80
NEAREST, FARTHEST = 0.3, 30.0  # metres
SURE = 0.5  # confidence of a joint that counts
SIDEWAYS, DEPTH = 0.07, 0.3  # seconds over which the path is smoothed; one picture tells little about depth


def focal_length(picture: tuple[int, int], angle: float = ANGLE) -> float:
    """Pixels, for a picture (width, height) whose longer side covers that angle (degrees)."""
    return float(max(picture) / 2 / np.tan(np.radians(angle) / 2))


def places(
    space: np.ndarray, pixels: np.ndarray, confidence: np.ndarray, picture: tuple[int, int], angle: float = ANGLE
) -> np.ndarray:
    """Where the origin of each frame's body is in the camera's room.

    Args:
        space: (T, V, 3) metres, x to the right, y down, z away; NaN where missing.
        pixels: (T, V, 2).
        confidence: (T, V).
        picture: width and height.
        angle: that its longer side covers, degrees.

    Returns:
        (T, 3) metres on the same axes; NaN where a frame does not show it.
    """
    f = focal_length(picture, angle)
    known = np.isfinite(space).all(axis=-1) & np.isfinite(pixels).all(axis=-1)
    weight = np.where(known, np.where(confidence >= SURE, confidence, 1e-3 * confidence), 0.0)
    x, y, z = np.moveaxis(np.nan_to_num(space.astype(np.float64)), -1, 0)
    u, v = np.moveaxis(np.nan_to_num(pixels.astype(np.float64) - np.array(picture) / 2), -1, 0)
    zero, focal = np.zeros_like(u), np.full_like(u, f)
    rows = np.concatenate([np.stack([focal, zero, -u], -1), np.stack([zero, focal, -v], -1)], axis=1)  # (T, 2V, 3)
    right = np.concatenate([u * z - f * x, v * z - f * y], axis=1)
    weights = np.concatenate([weight, weight], axis=1)[..., None]
    normal = np.einsum("tri,trj->tij", rows * weights, rows)
    solvable = np.linalg.matrix_rank(normal, tol=1e-9) == 3
    found = np.full((len(space), 3), np.nan)
    if solvable.any():
        target = np.einsum("tri,tr->ti", rows * weights, right)
        found[solvable] = np.linalg.solve(normal[solvable], target[solvable][..., None])[..., 0]
    found[~((found[:, 2] >= NEAREST) & (found[:, 2] <= FARTHEST))] = np.nan
    return found


def smooth_path(path: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """A path (T, 3) without the trembling of single pictures: directions a little smoothed, distances more.

    Frames without a place get one from those around; a path without any stays as it is.
    """
    from scipy.ndimage import gaussian_filter1d

    known = np.isfinite(path).all(axis=1)
    if not known.any():
        return path
    step = float(np.median(np.diff(seconds))) if len(seconds) > 1 else 1.0
    rays = np.stack(
        [path[:, 0] / path[:, 2], path[:, 1] / path[:, 2], np.log(np.where(known, path[:, 2], 1.0))], axis=1
    )
    rays = np.stack([np.interp(seconds, seconds[known], rays[known, axis]) for axis in range(3)], axis=1)
    for axis, span in enumerate((SIDEWAYS, SIDEWAYS, DEPTH)):
        rays[:, axis] = gaussian_filter1d(rays[:, axis], span / max(step, 1e-6), mode="nearest")
    depth = np.exp(rays[:, 2])
    return np.stack([rays[:, 0] * depth, rays[:, 1] * depth, depth], axis=1)
