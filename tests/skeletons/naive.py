"""Preprocessing of one clip in loops over frames, joints and axes, in numpy: what the tensors are compared with.

It shares nothing with ``mmcl.skeletons`` but the layout's facts. A joint that is missing is a row of NaN.
"""

from __future__ import annotations

import numpy as np

from mmcl.skeletons.layout import Layout


def raw(clip: np.ndarray) -> np.ndarray:
    """(M, T, V, C) as recorded -> the same in float64, what is zero or not finite as NaN."""
    found = np.array(clip, dtype=np.float64)
    for m, t, v in np.ndindex(found.shape[:3]):
        if not np.isfinite(found[m, t, v]).all() or not found[m, t, v].any():
            found[m, t, v] = np.nan
    return found


def shown(joint: np.ndarray) -> bool:
    return not np.isnan(joint).any()


def fill(clip: np.ndarray) -> np.ndarray:
    """Gaps by np.interp, joint by joint and axis by axis, between the body's first and last frame."""
    found = clip.copy()
    frames = np.arange(clip.shape[1])
    for body, old in zip(found, clip, strict=True):
        with_body = [t for t in frames if any(shown(joint) for joint in old[t])]
        for v in range(clip.shape[2]):
            seen = [t for t in frames if shown(old[t, v])]
            if not seen:
                continue
            for t in range(with_body[0], with_body[-1] + 1):
                for axis in range(clip.shape[3]):
                    body[t, v, axis] = np.interp(t, seen, old[seen, v, axis])
    return found


def preprocess(
    clip: np.ndarray, layout: Layout, persons: int, streams: tuple[str, ...] = ("joint",), window: int = 64,
    centring: str = "first_frame", crop: float = 0.95, scaling: str = "none", gaps: str = "interpolate",
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """(M, T, V, C) -> encoder input (persons, window, V, channels) and its mask (persons, window, V)."""
    clip = raw(clip)
    bodies = [body for body in clip if any(shown(joint) for frame in body for joint in frame)][:persons]
    bodies += [np.full(clip.shape[1:], np.nan)] * (persons - len(bodies))
    clip = np.stack(bodies)
    if gaps == "interpolate":
        clip = fill(clip)
    with_people = [t for t in range(clip.shape[1]) if any(shown(joint) for body in clip for joint in body[t])]
    origin = _origin(clip[0], layout.centre)
    clip = clip[:, with_people[0] : with_people[-1] + 1]
    cut = int((1 - crop) * clip.shape[1] / 2 + 1e-9)
    clip = _resized(clip[:, cut : clip.shape[1] - cut], window)
    for t in range(window):
        own = clip[0, t, layout.centre].copy()
        if centring != "none":
            clip[:, t] -= own if centring == "every_frame" and shown(own) else origin
    if scaling == "box":
        for axis in range(clip.shape[3]):
            low, high = np.nanmin(clip[..., axis]), np.nanmax(clip[..., axis])
            clip[..., axis] = (clip[..., axis] - low) / (high - low) * 2 - 1 if high > low else clip[..., axis] * 0
    x = np.concatenate([_stream(clip, stream, layout) for stream in streams], axis=-1)
    return np.nan_to_num(x), ~np.isnan(clip).any(axis=-1)


def _origin(body: np.ndarray, centre: int) -> np.ndarray:
    for frame in body:
        if shown(frame[centre]):
            return frame[centre].copy()
    return np.array([joint for frame in body for joint in frame if shown(joint)]).mean(axis=0)


def _resized(clip: np.ndarray, window: int) -> np.ndarray:
    frames = clip.shape[1]
    found = np.full((clip.shape[0], window, *clip.shape[2:]), np.nan)
    for k in range(window):
        at = min(max((k + 0.5) * frames / window - 0.5, 0), frames - 1)
        low = int(at)
        high = min(low + 1, frames - 1)
        for m, v in np.ndindex(clip.shape[0], clip.shape[2]):
            a, b = clip[m, low, v], clip[m, high, v]
            if at == low:
                b = a
            if shown(a) and shown(b):
                found[m, k, v] = a + (b - a) * (at - low)
            else:
                found[m, k, v] = a if shown(a) else b
    return found


def _stream(clip: np.ndarray, stream: str, layout: Layout) -> np.ndarray:
    found = clip.copy()
    if "bone" in stream:
        for v, parent in enumerate(layout.bone_parents):
            found[:, :, v] = clip[:, :, v] - clip[:, :, parent]
    if "motion" in stream:
        step = np.zeros_like(found)
        for t in range(found.shape[1] - 1):
            step[:, t] = found[:, t + 1] - found[:, t]
        found = step
    return found
