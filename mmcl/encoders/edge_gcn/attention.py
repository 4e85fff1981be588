"""Attention at the end of a block: what is weighed are joints, joints and frames, body parts, channels or frames."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmcl.encoders.edge_gcn.layers import activation
from mmcl.skeletons.layout import Layout

PARTS = ("left_arm", "right_arm", "left_leg", "right_leg", "torso")  # in the released order


def part_of_joints(layout: Layout) -> list[int]:
    """The number of each joint's body part; joints of no part share the last one."""
    names = [name for name in PARTS if name in layout.parts] + [name for name in layout.parts if name not in PARTS]
    found = {joint: number for number, name in enumerate(names) for joint in layout.parts[name]}
    return [found.get(joint, len(names)) for joint in range(layout.joint_count)]


def squeeze(channels: int, inner: int, out: int, closing: nn.Module) -> nn.Sequential:
    """Mean over all but channels, two convolutions, and what closes."""
    return nn.Sequential(
        nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, inner, 1), nn.BatchNorm2d(inner), nn.ReLU(),
        nn.Conv2d(inner, out, 1), closing,
    )  # fmt: skip


class JointAttention(nn.Module):
    """Weights of joints, which sum to 1."""

    def __init__(self, joints: int) -> None:
        super().__init__()
        self.fcn = squeeze(joints, max(1, joints // 2), joints, nn.Softmax(dim=1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, V, T) -> (B, 1, V, 1)."""
        return self.fcn(x.transpose(1, 2)).transpose(1, 2)


class JointTimeAttention(nn.Module):
    """For each channel, a weight of each joint times one of each frame."""

    def __init__(self, channels: int, reduce: float) -> None:
        super().__init__()
        inner = int(channels // reduce)
        self.fcn = nn.Sequential(nn.Conv2d(channels, inner, 1), nn.BatchNorm2d(inner), nn.Hardswish())
        self.conv_t = nn.Conv2d(inner, channels, 1)
        self.conv_v = nn.Conv2d(inner, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, V, T) -> (B, C, V, T)."""
        V, T = x.shape[2:]
        frames, joints = x.mean(dim=2, keepdim=True), x.mean(dim=3, keepdim=True)
        found = self.fcn(torch.cat([frames, joints.transpose(2, 3)], dim=3))
        frames, joints = found.split([T, V], dim=3)
        return self.conv_v(joints.transpose(2, 3)).sigmoid() * self.conv_t(frames).sigmoid()


class PartAttention(nn.Module):
    """For each channel, weights of body parts, which sum to 1."""

    part: Tensor

    def __init__(self, channels: int, reduce: float, layout: Layout) -> None:
        super().__init__()
        part = part_of_joints(layout)
        self.parts = max(part) + 1
        self.register_buffer("part", torch.tensor(part), persistent=False)
        self.fcn = squeeze(channels, int(channels // reduce), channels * self.parts, nn.Identity())

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, V, T) -> (B, C, V, 1)."""
        weights = self.fcn(x).flatten(1).unflatten(1, (-1, self.parts)).softmax(dim=2)
        return weights.index_select(2, self.part).unsqueeze(3)


class ChannelAttention(nn.Module):
    """A weight of each channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fcn = squeeze(channels, max(1, channels // 4), channels, nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, V, T) -> (B, C, 1, 1)."""
        return self.fcn(x)


class FrameAttention(nn.Module):
    """A factor of each frame, of any size and sign, from mean and maximum of nine frames around it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, (1, 9), padding=(0, 4))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, V, T) -> (B, 1, 1, T)."""
        return self.conv(torch.stack([x.mean(dim=(1, 2)), x.amax(dim=(1, 2))], dim=1).unsqueeze(2))


class AttentionLayer(nn.Module):
    """What is weighed, batch norm, activation, residual.

    Args:
        kind: joint, joint_time, part, channel or frame.
        channels: C.
        layout: its joints and parts.
        reduce: see the network's options.
        act: name of the activation.
    """

    def __init__(self, kind: str, channels: int, layout: Layout, reduce: float, act: str) -> None:
        super().__init__()
        makers = {
            "joint": lambda: JointAttention(layout.joint_count),
            "joint_time": lambda: JointTimeAttention(channels, reduce),
            "part": lambda: PartAttention(channels, reduce, layout),
            "channel": lambda: ChannelAttention(channels),
            "frame": FrameAttention,
        }
        self.att = makers[kind]()
        self.bn = nn.BatchNorm2d(channels)
        self.act = activation(act)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, V, T) -> (B, C, V, T)."""
        return self.act(self.bn(x * self.att(x))) + x
