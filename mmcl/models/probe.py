"""Made-up skeletons of a layout: something to compare two forms of a network with that is nobody's recording."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mmcl.skeletons.layout import Layout

CLIPS, FRAMES, BODIES = 8, 48, 2
BONE, SWING, STEP = 0.25, 0.5, 0.4  # metres, radians, metres


def made_up_clips(layout: Layout, channels: int = 3) -> dict[str, Tensor]:
    """Moving bodies with bones of the layout's tree: in every second clip a second one, some clips shorter.

    The same for the same layout everywhere.

    Args:
        layout: joints and their parents.
        channels: numbers a joint; of more than three, the rest are shares, as confidences are.

    Returns:
        joints (8, 2, 48, V, channels) float32 metres, padded with zeros, and lengths (8,).
    """
    draw = torch.Generator().manual_seed(0)
    order = _parents_first(layout)
    bones = torch.randn(CLIPS, BODIES, 1, layout.joint_count, 3, generator=draw)
    bones = BONE * bones / bones.norm(dim=-1, keepdim=True)
    phase = torch.rand(CLIPS, BODIES, 1, layout.joint_count, generator=draw)
    time = torch.linspace(0.0, 1.0, FRAMES)[None, None, :, None]
    angle = SWING * torch.sin(2.0 * math.pi * (2.0 * time + phase))  # each bone swings about the vertical axis
    sin, cos, (x, y, z) = angle.sin(), angle.cos(), bones.unbind(-1)
    swung = torch.stack([cos * x + sin * z, y.expand_as(angle), cos * z - sin * x], dim=-1)
    joints = torch.zeros(CLIPS, BODIES, FRAMES, layout.joint_count, max(3, channels))
    joints[..., 3:] = torch.rand(joints[..., 3:].shape, generator=draw)
    root = torch.randn(CLIPS, BODIES, 1, 3, generator=draw) + STEP * time[..., 0, None] * torch.ones(3)
    for joint in order:
        parent = layout.parents[joint]
        joints[..., joint, :3] = root if parent == joint else joints[..., parent, :3] + swung[..., joint, :]
    lengths = torch.tensor([FRAMES - 4 * (clip % 3) for clip in range(CLIPS)])
    for clip in range(CLIPS):
        joints[clip, :, lengths[clip] :] = 0.0
        joints[clip, 1 if clip % 2 else BODIES :] = 0.0
    return {"joints": joints[..., :channels].contiguous(), "lengths": lengths}


def _parents_first(layout: Layout) -> list[int]:
    """Joints in an order in which each comes after its parent."""
    order: list[int] = []
    while len(order) < layout.joint_count:
        order += [
            joint for joint, parent in enumerate(layout.parents)
            if joint not in order and (parent == joint or parent in order)
        ]  # fmt: skip
    return order
