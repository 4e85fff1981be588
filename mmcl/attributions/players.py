"""Who plays for a score: joints, parts of the body, or joints in segments of the clip."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from mmcl.common.errors import UserError
from mmcl.skeletons.layout import Layout

Players = Literal["joints", "parts", "segments"]


def membership(kind: Players, mask: Tensor, layout: Layout, segments: int) -> tuple[Tensor, int]:
    """Which player each joint of a clip belongs to.

    Args:
        kind: joints; parts, of the layout (joints of no part play together); segments: joint by part of time.
        mask: (M, W, V) which joints are there.
        layout: of these joints.
        segments: equal parts of the window, for that kind.

    Returns:
        (M, W, V) numbers of players from 0, -1 where a joint is missing, and how many players there are. A joint that
        is never there is no player.

    Raises:
        UserError: the layout has no parts, or there are more segments than frames.
    """
    frames, count = mask.shape[1:]
    group = torch.arange(count, device=mask.device).expand(mask.shape)
    if kind == "parts":
        group = part_numbers(layout).to(mask.device).expand(mask.shape)
    elif kind == "segments":
        if segments > frames:
            raise UserError(f"{segments} segments of a window of {frames} frames: there must be a frame for each")
        when = torch.arange(frames, device=mask.device) * segments // frames
        group = when[:, None] * count + group
    there, number = torch.unique(group[mask], return_inverse=True)
    member = torch.full(mask.shape, -1, device=mask.device)
    member[mask] = number
    return member, len(there)


def part_numbers(layout: Layout) -> Tensor:
    """(V,) the number of the first part that each joint is in, and one more for joints that are in none.

    Raises:
        UserError: the layout has no parts.
    """
    if not layout.parts:
        raise UserError(f"the layout '{layout.name}' names no parts of the body: explain its joints instead")
    numbers = torch.full((layout.joint_count,), len(layout.parts))
    for number, joints in reversed(list(enumerate(layout.parts.values()))):
        numbers[list(joints)] = number
    return numbers


def spread(shares: Tensor, member: Tensor) -> Tensor:
    """(P,) shares of players -> (W, V), each spread evenly over the bodies, frames and joints it holds."""
    sizes = torch.bincount(member[member >= 0], minlength=len(shares))
    even = torch.cat([shares / sizes, shares.new_zeros(1)])  # the last one is what -1 finds
    return even[member].sum(dim=0)
