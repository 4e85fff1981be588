"""Temporal windows: cut a span out of each clip and resize it to a fixed number of frames.

CTR-GCN's feeder crops an integer span and resizes it with bilinear interpolation, corners not aligned; so do we, for a
whole ragged batch at once, by gathering two neighbouring frames and blending them.
"""

from __future__ import annotations

import torch
from torch import Tensor


def span(lengths: Tensor, ratio: Tensor | float, position: Tensor | float, floor: int = 1) -> tuple[Tensor, Tensor]:
    """Choose a span in each clip.

    Args:
        lengths: (N,) frames in each clip.
        ratio: share of the clip that the span keeps, (N,) or a number.
        position: where the span lies, 0 at the clip's start, 1 at its end, (N,) or a number; 0.5 is central.
        floor: shortest span in frames, where the clip has as many (the official feeder: 64).

    Returns:
        start (N,) and frames (N,), both whole numbers as float32; start + frames <= lengths.
    """
    lengths = lengths.to(torch.float32)
    frames = torch.floor(lengths * ratio).clamp(min=float(floor))
    frames = torch.minimum(frames, lengths).clamp(min=1.0)
    start = torch.floor((lengths - frames + 1.0) * position)
    return torch.minimum(start, lengths - frames).clamp(min=0.0), frames


def central_span(lengths: Tensor, ratio: float) -> tuple[Tensor, Tensor]:
    """The middle of each clip: as many frames are cut from either end, as in the released feeders' evaluation.

    Args:
        lengths: (N,) frames in each clip.
        ratio: share of the clip that is kept; int((1 - ratio) T / 2) frames go from each end.

    Returns:
        start (N,) and frames (N,), both whole numbers as float32.
    """
    lengths = lengths.to(torch.float32)
    # What float32 rounds to just below a whole number counts as one.
    start = torch.floor(lengths * (1.0 - ratio) / 2 + 1e-4)
    return start, lengths - 2 * start


def even_positions(window: int, like: Tensor) -> Tensor:
    """Middles of ``window`` equal parts of the span [0, 1): (1, window)."""
    return ((torch.arange(window, device=like.device, dtype=torch.float32) + 0.5) / window)[None]


def crop_resize(x: Tensor, start: Tensor, frames: Tensor, positions: Tensor) -> Tensor:
    """Cut ``[start, start + frames)`` out of each clip and sample it in time, blending neighbouring frames.

    With :func:`even_positions` equal to ``F.interpolate(mode="bilinear", align_corners=False)`` along time on each
    clip's own span.

    Args:
        x: (N, M, T, V, C), padded at the end to the longest clip.
        start: (N,) first frame of the span.
        frames: (N,) length of the span, >= 1.
        positions: (N or 1, window) where to sample, ascending, as shares of the span in [0, 1).

    Returns:
        (N, M, window, V, C).
    """
    at = (positions * frames[:, None] - 0.5).clamp(min=0.0)  # (N, window) within the span
    at = torch.minimum(at, frames[:, None] - 1.0)
    low = torch.floor(at)
    blend = (at - low).to(x.dtype)[:, None, :, None, None]
    high = torch.minimum(low + 1.0, frames[:, None] - 1.0)
    first, second = ((low + start[:, None]).long(), (high + start[:, None]).long())
    shape = (-1, x.shape[1], -1, x.shape[3], x.shape[4])
    a = x.gather(2, first[:, None, :, None, None].expand(shape))
    b = x.gather(2, second[:, None, :, None, None].expand(shape))
    return a + (b - a) * blend


def present(x: Tensor) -> Tensor:
    """Which joints are there: (N, M, T, V, 1) mask that is False where a joint of (N, M, T, V, C) is exactly zero."""
    return (x != 0).any(dim=-1, keepdim=True)


def extent(x: Tensor, axes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Lowest and highest coordinates over some axes of joints (N, M, T, V, C), which stay with length 1.

    Missing joints do not count; where there is no joint at all, low is infinite and high minus infinite.
    """
    there = present(x)
    low = torch.where(there, x, torch.inf).amin(dim=axes, keepdim=True)
    return low, torch.where(there, x, -torch.inf).amax(dim=axes, keepdim=True)


def fill_box(x: Tensor) -> Tensor:
    """Stretch each clip so that its joints span [-1, 1] along every axis, over all frames and bodies.

    CTR-GCN prepares NW-UCLA in this way: size and distance of the person no longer matter, proportions neither. Missing
    (all-zero) joints neither count nor move; an axis without any extent becomes zero.

    Args:
        x: (N, M, T, V, C) joints.
    """
    low, high = extent(x, (1, 2, 3))
    scaled = (2.0 * x - (low + high)) / (high - low).clamp(min=1e-6)
    return torch.where(present(x), scaled, torch.zeros_like(x))


def centre(x: Tensor, joint: int, mode: str = "first_frame") -> Tensor:
    """Subtract the centre joint; absent bodies and missing (all-zero) joints stay zero.

    A centre joint that is missing does not lie at the sensor: the first frame counts in which it is there, and a clip
    that never shows it is centred on the mean of all that it shows of the first person. At the sensor it does lie if
    the body is all around: such a clip comes centred already.

    Args:
        x: (N, M, T, V, C) joints.
        joint: index of the centre joint.
        mode: ``first_frame`` subtracts the first person's centre, where it is seen first, from everything
            (CTR-GCN's NTU preparation, MMCL's zero-shot pipeline), ``every_frame`` the first person's centre frame by
            frame (where it is missing, the first one), ``none`` nothing.
    """
    if mode == "none":
        return x
    first_person = x[:, :1]
    origin = first_person[:, :, :, joint : joint + 1]
    low, high = extent(first_person, (3,))
    seen = present(origin) | ((low <= 0) & (high >= 0)).all(dim=4, keepdim=True)  # (N, 1, T, 1, 1)
    earliest = seen & (seen.cumsum(dim=2) == 1)
    first = torch.where(earliest, origin, torch.zeros_like(origin)).sum(dim=2, keepdim=True)
    count = present(first_person).sum(dim=(2, 3), keepdim=True).clamp(min=1)
    mean = first_person.sum(dim=(2, 3), keepdim=True) / count
    first = torch.where(seen.any(dim=2, keepdim=True), first, mean)
    origin = torch.where(seen, origin, first) if mode == "every_frame" else first
    return torch.where(present(x), x - origin, torch.zeros_like(x))
