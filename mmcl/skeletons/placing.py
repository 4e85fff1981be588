"""Where joints lie: relative to a centre joint, and in metres or in a box of fixed size."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Centring = Literal["first_frame", "every_frame", "none"]


def clip_origin(x: Tensor, mask: Tensor, joint: int) -> Tensor:
    """(N, 1, C, 1, 1): the first person's centre joint, in the first frame that shows it.

    Where no frame does, the mean of all that the clip shows of the first person; zero where it shows nothing.

    Args:
        x: (N, M, C, T, V) joints, zero where missing.
        mask: (N, M, T, V) bool.
        joint: index of the centre joint.
    """
    first_person, shown = x[:, :1], mask[:, :1]
    seen = shown[:, :, None, :, joint : joint + 1]  # (N, 1, 1, T, 1)
    earliest = seen & (seen.cumsum(dim=3) == 1)
    first = torch.where(earliest, first_person[..., joint : joint + 1], 0).sum(dim=3, keepdim=True)
    count = shown.sum(dim=(2, 3)).clamp(min=1)[:, :, None, None, None]
    mean = first_person.sum(dim=(3, 4), keepdim=True) / count
    return torch.where(seen.any(dim=3, keepdim=True), first, mean)


def centre(x: Tensor, mask: Tensor, origin: Tensor, joint: int, mode: Centring = "first_frame") -> Tensor:
    """Subtract the centre from the joints that are there.

    Args:
        x: (N, M, C, T, V) joints, zero where missing.
        mask: (N, M, T, V) bool.
        origin: (N, 1, C, 1, 1) from :func:`clip_origin`.
        joint: index of the centre joint.
        mode: ``first_frame`` subtracts ``origin`` (CTR-GCN's NTU preparation, MMCL's zero-shot pipeline);
            ``every_frame`` the first person's centre joint frame by frame, and ``origin`` where that is missing;
            ``none`` nothing.
    """
    if mode == "none":
        return x
    if mode == "every_frame":
        seen = mask[:, :1, None, :, joint : joint + 1]
        origin = torch.where(seen, x[:, :1, :, :, joint : joint + 1], origin)
    return torch.where(mask[:, :, None], x - origin, 0)


def fill_box(x: Tensor, mask: Tensor) -> Tensor:
    """Stretch each clip so that its joints span [-1, 1] along every axis, over all frames and bodies.

    CTR-GCN prepares NW-UCLA in this way: size, place and distance of the person no longer matter, proportions neither.
    Missing joints neither count nor move; an axis without any extent becomes zero.

    Args:
        x: (N, M, C, T, V) joints, zero where missing.
        mask: (N, M, T, V) bool.
    """
    there = mask[:, :, None]
    low = torch.where(there, x, torch.inf).amin(dim=(1, 3, 4), keepdim=True)
    high = torch.where(there, x, -torch.inf).amax(dim=(1, 3, 4), keepdim=True)
    return torch.where(there, (2.0 * x - (low + high)) / (high - low).clamp(min=1e-6), 0)
