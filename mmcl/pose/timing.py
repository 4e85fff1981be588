"""From the frames that a camera gave to frames at a steady rate; gaps filled, or left."""

from __future__ import annotations

import numpy as np

FILLED = 0.5  # confidence of a joint that was filled in, as a share of that at the ends of the gap
EVEN = 0.01  # of a frame rate: 29.97 counts as 30


def fill_gaps(values: np.ndarray, confidence: np.ndarray, seconds: np.ndarray, longest: float) -> None:
    """Fill what is missing for at most ``longest`` seconds, in a line from one end of the gap to the other, in place.

    Args:
        values: (T, V, C), NaN where missing.
        confidence: (T, V), 0 where missing; what is filled in gets half of the less sure end.
        seconds: (T,) increasing.
        longest: seconds from the last frame before the gap to the first one behind it.
    """
    known = np.isfinite(values).all(axis=-1)
    for joint in np.flatnonzero(~known.all(axis=0) & known.any(axis=0)):
        seen = np.flatnonzero(known[:, joint])
        wide = np.flatnonzero((np.diff(seen) > 1) & (seconds[seen[1:]] - seconds[seen[:-1]] <= longest + 1e-9))
        for first, last in zip(seen[wide], seen[wide + 1], strict=True):
            inner = slice(first + 1, last)
            share = ((seconds[inner] - seconds[first]) / (seconds[last] - seconds[first]))[:, None]
            values[inner, joint] = values[first, joint] * (1 - share) + values[last, joint] * share
            confidence[inner, joint] = FILLED * min(confidence[first, joint], confidence[last, joint])


def steady_times(seconds: np.ndarray, fps: float) -> np.ndarray | None:
    """Times at a steady rate from the first frame to the last; None where the frames come at it already."""
    if len(seconds) < 2:
        return None
    rate = (len(seconds) - 1) / (seconds[-1] - seconds[0])
    uneven = np.abs(seconds - seconds[0] - np.arange(len(seconds)) / rate).max()
    if abs(rate / fps - 1) <= EVEN and uneven <= 0.5 / fps:
        return None
    return np.asarray(seconds[0] + np.arange(int(np.floor((seconds[-1] - seconds[0]) * fps + 1e-6)) + 1) / fps)


def at_times(values: np.ndarray, seconds: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Values (T, …) at other times, in a line between the two frames around; NaN where either is.

    Args:
        values: NaN where missing.
        seconds: (T,) increasing.
        wanted: (n,) times within them.
    """
    after = np.clip(np.searchsorted(seconds, wanted, side="left"), 1, len(seconds) - 1)
    share = (wanted - seconds[after - 1]) / (seconds[after] - seconds[after - 1])
    share = np.clip(share, 0, 1).reshape(-1, *[1] * (values.ndim - 1))
    before, behind = values[after - 1], values[after]
    mixed = before * (1 - share) + behind * share
    return np.asarray(np.where(share < 1e-6, before, np.where(share > 1 - 1e-6, behind, mixed)))


def runs(there: np.ndarray) -> list[slice]:
    """Stretches of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], there.astype(np.int8), [0]])))
    return [slice(int(begin), int(end)) for begin, end in edges.reshape(-1, 2)]
