"""Clips mixed by body parts and stretches of time (ST-Mix and Shap-Mix; Zhang et al., IJCAI 2024), and whole (mixup).

Batches are (N, M, T, V, …); a partner is another clip of the batch. The share of a clip that comes from its partner is
the weight of the partner's label.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mmcl.common.distributed import rank
from mmcl.tasks.long_tail.coalitions import Coalitions

GRID = 4  # frames; windows begin and end on multiples of it
SHORTEST, LONGEST = 7 / 16, 11 / 16  # of a window, as shares of the clip: 28 to 44 of 64 frames
MIXUP = 0.25  # share of batches that are mixed whole
SHARPNESS = 0.2  # temperature of the softmax over saliencies


class Window(NamedTuple):
    """A stretch of time that is overwritten, and the one that it is overwritten with, in frames."""

    start: int
    length: int
    source_start: int
    source_length: int


def partners(count: int, draw: float, released: bool = False) -> Tensor:
    """(N,) the batch shifted by one offset, so that no clip is its own partner.

    Args:
        count: N, at least 2 (``released``: 3).
        draw: uniform in [0, 1).
        released: offsets up to N - 2 only.
    """
    offset = 1 + int(draw * (count - 1 - released))
    return (torch.arange(count) + offset) % count


def spread(count: int, share: float) -> Tensor:
    """Rows (n,) of this process's clips that lie evenly in the batch of all processes, a share of it.

    Args:
        count: clips of each process.
        share: in (0, 1].
    """
    place = rank() * count + torch.arange(count + 1, dtype=torch.float64)
    taken = torch.ceil((place * share * (1 << 20)).round() / (1 << 20))  # 0.1 * 30 is a little more than 3
    return torch.nonzero(taken.diff()).squeeze(1)


def draw_window(frames: int, draws: Tensor, shortest: float = SHORTEST, longest: float = LONGEST) -> Window:
    """A window of a clip, and a longer or equal one of the partner.

    Args:
        frames: T, at least ``GRID``.
        draws: (4,) uniform in [0, 1), for length, start, source length, source start.
        shortest: length of a window, as a share of the clip (Kinetics: 13 / 25).
        longest: likewise (Kinetics: 20 / 25).
    """
    cells = frames // GRID
    values = draws.tolist()

    def whole(draw: float, lowest: int, highest: int) -> int:
        return lowest + int(draw * (highest - lowest + 1))

    length = whole(values[0], max(1, int(cells * shortest)), max(1, int(cells * longest)))
    start = whole(values[1], 0, cells - length)
    source = whole(values[2], length, cells)
    return Window(start * GRID, length * GRID, whole(values[3], 0, cells - source) * GRID, source * GRID)


def paste(x: Tensor, partner: Tensor, window: Window, joints: Tensor) -> Tensor:
    """Overwrite joints of all persons within a window by the partner's, whose stretch is resized (nearest frame).

    Args:
        x: (N, M, T, V, …).
        partner: (N,) positions in the batch.
        window: where, and from where.
        joints: (V,) or (N, V), True where a joint is overwritten.
    """
    start, length, source_start, source_length = window
    # The nearest frame is chosen in float32, as torch's interpolation does: 84 -> 80 frames tell it from float64.
    scale = torch.tensor(source_length / length, dtype=torch.float32)
    frames = (torch.arange(length, dtype=torch.float32) * scale).floor().long().clamp(max=source_length - 1)
    content = x[partner][:, :, (source_start + frames).to(x.device)]
    pasted = joints.to(x.device).expand(len(x), -1)[:, None, None]
    pasted = pasted.view(*pasted.shape, *[1] * (x.dim() - 4))
    mixed = x.clone()
    mixed[:, :, start : start + length] = torch.where(pasted, content, x[:, :, start : start + length])
    return mixed


def pasted_share(window: Window, joints: Tensor, frames: int) -> Tensor:
    """() or (N,): pasted frames times pasted joints, as a share of the clip; (V,) or (N, V) joints, T frames."""
    return joints.sum(dim=-1) * (window.length / (frames * joints.shape[-1]))


def mixup(x: Tensor, partner: Tensor, share: float | Tensor) -> Tensor:
    """Add ``share`` of the partner to the rest of each clip."""
    return x * (1 - share) + x[partner] * share


def tail_aware_coalitions(
    saliency: Tensor, labels: Tensor, partner: Tensor, counts: Tensor, draws: Tensor, coalitions: Coalitions,
    sharpness: float = SHARPNESS,
) -> Tensor:  # fmt: skip
    """Which parts of the partner are pasted so that the rarer class keeps, or gives, what it is recognised by.

    Where a clip's class is the more frequent one, parts of the partner's class are drawn by their saliency and pasted.
    Otherwise, also for equally frequent classes, parts of the clip's own class are drawn, and all others are pasted.

    Args:
        saliency: (K, Q) by class and coalition.
        labels: (N,) of the clips.
        partner: (N,).
        counts: (K,) clips of each class (released: K minus the class number, whatever the counts are).
        draws: (N,) uniform in [0, 1).
        coalitions: what the Q columns are.
        sharpness: temperature of the softmax over saliencies.

    Returns:
        (N,) coalitions whose joints are pasted.
    """
    theirs = labels[partner]
    frequent = counts[labels] > counts[theirs]
    chances = F.softmax(saliency[torch.where(frequent, theirs, labels)].double() / sharpness, dim=1)
    reached = chances.cumsum(dim=1) > draws.double()[:, None] * chances.sum(dim=1, keepdim=True)
    drawn = reached.double().argmax(dim=1)  # the first that the draw does not pass
    return torch.where(frequent, drawn, coalitions.complement.to(drawn.device)[drawn])
