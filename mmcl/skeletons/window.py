"""Temporal windows: which frames of each clip the encoder sees, and the clip at these times.

CTR-GCN's feeder crops an integer span and resizes it with bilinear interpolation, corners not aligned; so do we, for a
whole ragged batch at once, by gathering two neighbouring frames and blending them.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

Timing = Literal["resize", "pad", "segments"]


class Span(NamedTuple):
    """A stretch of each clip.

    Attributes:
        start: (N,) first frame, a whole number as float32.
        frames: (N,) its length, likewise, at least 1.
        positions: (N, window) ascending shares of the span in [0, 1), where it is to be looked at; None: evenly.
    """

    start: Tensor
    frames: Tensor
    positions: Tensor | None = None


def crop_span(lengths: Tensor, ratio: Tensor | float, position: Tensor | float, floor: int = 1) -> Span:
    """Choose a span in each clip.

    Args:
        lengths: (N,) frames in each clip.
        ratio: share of the clip that the span keeps, (N,) or a number.
        position: where the span lies, 0 at the clip's start, 1 at its end, (N,) or a number; 0.5 is central.
        floor: shortest span in frames, where the clip has as many (the official feeder: 64).

    Returns:
        A span with start + frames <= lengths.
    """
    # In float64, as the feeders compute it: in float32 the product may lie on the other side of a whole number.
    frames = torch.floor(lengths.double() * ratio).to(torch.float32).clamp(min=float(floor))
    lengths = lengths.to(torch.float32)
    frames = torch.minimum(frames, lengths).clamp(min=1.0)
    start = torch.floor((lengths - frames + 1.0) * position)
    return Span(torch.minimum(start, lengths - frames).clamp(min=0.0), frames)


def evaluated_span(lengths: Tensor, ratio: float, view: int = 0, views: int = 1) -> Span:
    """The part of each clip that evaluation looks at.

    A single view is the middle: int((1 - ratio) T / 2) frames go from each end, as in the released feeders. Of several
    views each is as long, and they lie evenly from the clip's start to its end.

    Args:
        lengths: (N,) frames in each clip.
        ratio: share of the clip that is kept.
        view: which view, from 0.
        views: how many there are.
    """
    # In float64, as the feeders compute it: where the product lies just below a whole number, they cut a frame less.
    # The share is a tensor, since graphs keep plain numbers in float32.
    share = torch.tensor(1.0 - ratio, dtype=torch.float64, device=lengths.device)
    cut = torch.floor(lengths.double() * share / 2).to(torch.float32)
    lengths = lengths.to(torch.float32)
    return Span(torch.floor(2 * cut * (2 * view + 1) / (2 * views)), lengths - 2 * cut)


def frame_times(
    frames: Tensor, window: int, timing: Timing, positions: Tensor | None = None, offsets: Tensor | float = 0.5
) -> tuple[Tensor, Tensor | None]:
    """When each clip is looked at.

    Args:
        frames: (N,) length of each clip's span.
        window: how many times.
        timing: ``resize`` spreads the times over the span, between frames too; ``pad`` takes the frames one by one and
            resizes only what is longer than the window; ``segments`` takes one frame of each of ``window`` equal parts
            (PYSKL's uniform sampling, arXiv 2104.13586; shorter clips are stretched, where PYSKL repeats them).
        positions: (N, window) shares of the span for ``resize``; None: the middles of equal parts.
        offsets: where in its part each frame of ``segments`` lies, in [0, 1): (N, window) or a number.

    Returns:
        times (N, window) within the span, in frames, and (N, window) bool which of them lie before the clip's end;
        None where all do.
    """
    count, length = torch.arange(window, device=frames.device, dtype=torch.float32), frames[:, None]
    last = length - 1.0
    if timing == "segments":
        return torch.minimum(torch.floor((count + offsets) * length / window), last), None
    spread = (count + 0.5) / window if positions is None else positions
    times = torch.minimum((spread * length - 0.5).clamp(min=0.0), last)
    if timing == "resize":
        return times, None
    return torch.where(length > window, times, torch.minimum(count, last)), count < length


def look(x: Tensor, mask: Tensor, start: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
    """Each clip at the given times, neighbouring frames blended.

    At evenly spread times this equals ``F.interpolate(mode="bilinear", align_corners=False)`` along time on each clip's
    own span. Between a frame that shows a joint and one that does not, the one that does counts alone.

    Args:
        x: (N, M, C, T, V), zero where missing.
        mask: (N, M, T, V) bool.
        start: (N,) first frame of each clip's span.
        times: (N, window) frames from there on; whole numbers are frames.

    Returns:
        joints (N, M, C, window, V) and mask (N, M, window, V).
    """
    low = torch.floor(times)
    first, second = ((each + start[:, None]).long()[:, None, :, None] for each in (low, torch.ceil(times)))
    bodies, joints = x.shape[1], x.shape[4]
    seen_a, seen_b = (mask.gather(2, frame.expand(-1, bodies, -1, joints)) for frame in (first, second))
    a, b = (x.gather(3, frame[:, :, None].expand(-1, bodies, x.shape[2], -1, joints)) for frame in (first, second))
    blend = (times - low).to(x.dtype)[:, None, :, None]
    blend = torch.where(seen_a & seen_b, blend, seen_b.to(x.dtype))[:, :, None]
    return a + (b - a) * blend, seen_a | seen_b
