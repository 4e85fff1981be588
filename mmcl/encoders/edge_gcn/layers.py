"""Layers of the network: spatial convolutions with edge importance, six kinds of temporal layers.

Tensors are (B, C, V, T): time is innermost, so that the graph is one batched product. A layer's activation comes before
its residual is added, unless a kind says otherwise; so it is released.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU, "relu6": nn.ReLU6, "silu": nn.SiLU, "hardswish": nn.Hardswish,
}  # fmt: skip


def activation(name: str) -> nn.Module:
    """An activation; in place where what is in front, a batch norm, does not need its output again."""
    return ACTIVATIONS[name](inplace=name.startswith("relu"))


def conv_norm(channels_in: int, channels_out: int, window: int = 1, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """A convolution along time and its batch norm."""
    conv = nn.Conv2d(channels_in, channels_out, (1, window), (1, stride), (0, window // 2), groups=groups)
    return nn.Sequential(conv, nn.BatchNorm2d(channels_out))


class SpatialConv(nn.Module):
    """Graph convolution over hops: the sum over hops of W_h x (A_h * E_h), with E learnt.

    Args:
        channels_in: C_in.
        channels_out: C_out.
        adjacency: (K, V, V), one matrix for each number of hops, column w what joint w collects.

    Attributes:
        edge: E, (K, V, V), ones at first; or, for one pass, (B, K, V, V), one for each body (see ``perturb.py``).
        gcn: W of all hops; rows are (channel, hop).
    """

    adjacency: Tensor

    def __init__(self, channels_in: int, channels_out: int, adjacency: Tensor) -> None:
        super().__init__()
        self.channels_in, self.channels_out, self.hops = channels_in, channels_out, len(adjacency)
        self.gcn = nn.Conv2d(channels_in, channels_out * self.hops, 1)
        self.register_buffer("adjacency", adjacency.clone())
        self.edge = nn.Parameter(torch.ones_like(adjacency))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, V, T) -> (B, C_out, V, T)."""
        graph = self.adjacency * self.edge
        if self.channels_in < self.channels_out:  # collecting first is cheaper
            assert self.gcn.bias is not None
            rows = graph.transpose(-1, -2).flatten(-3, -2).unsqueeze(-3)  # (…, 1, K * V, V): (hop, joint that collects)
            collected = torch.matmul(rows, x).unflatten(2, (self.hops, -1)).flatten(1, 2)
            weight = self.gcn.weight.view(self.channels_out, self.hops, self.channels_in).transpose(1, 2)
            y = torch.nn.functional.conv2d(collected, weight.flatten(1)[..., None, None])
            bias = torch.einsum("ck,...kw->...cw", self.gcn.bias.view(-1, self.hops), graph.sum(dim=-2))
            return y + bias.unsqueeze(-1)
        rows = graph.flatten(-3, -2).transpose(-1, -2).unsqueeze(-3)  # (…, 1, V, K * V)
        return torch.matmul(rows, self.gcn(x).unflatten(1, (self.channels_out, self.hops)).flatten(2, 3))


class SpatialLayer(nn.Module):
    """Spatial convolution, batch norm, activation, residual.

    Args:
        channels_in: C_in.
        channels_out: C_out.
        adjacency: see :class:`SpatialConv`.
        act: name of the activation.
    """

    def __init__(self, channels_in: int, channels_out: int, adjacency: Tensor, act: str) -> None:
        super().__init__()
        self.conv = SpatialConv(channels_in, channels_out, adjacency)
        self.bn = nn.BatchNorm2d(channels_out)
        self.act = activation(act)
        self.residual: nn.Module = (
            nn.Identity() if channels_in == channels_out else conv_norm(channels_in, channels_out)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, V, T) -> (B, C_out, V, T)."""
        return self.act(self.bn(self.conv(x))) + self.residual(x)


class SqueezeExcite(nn.Module):
    """A gate for each channel from the mean of all.

    Args:
        channels: C.
        released: the gate replaces what it should scale, and is a ReLU.
    """

    def __init__(self, channels: int, released: bool) -> None:
        super().__init__()
        self.released = released
        inner = max(1, channels // 4)
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, inner, 1, bias=False), nn.BatchNorm2d(inner), nn.ReLU(),
            nn.Conv2d(inner, channels, 1, bias=False), nn.BatchNorm2d(channels),
            nn.ReLU() if released else nn.Hardsigmoid(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, V, T) -> the same; released: (B, C, 1, 1)."""
        return self.gate(x) if self.released else x * self.gate(x)


class Step(NamedTuple):
    """A convolution of a temporal layer.

    Attributes:
        name: released.
        module: it and its batch norm.
        active: whether an activation follows.
    """

    name: str
    module: nn.Module
    active: bool


def temporal_steps(
    kind: str, channels: int, window: int, stride: int, expand: float, reduce: float, released: bool
) -> list[Step]:
    """The convolutions of a kind of temporal layer; see :class:`TemporalLayer`."""
    wide, narrow = int(channels * expand) or channels, int(channels // reduce)
    widening = [Step("expand_conv", conv_norm(channels, wide), True)] if expand > 0 else []
    if kind == "basic":
        return [Step("conv", conv_norm(channels, channels, window, stride), True)]
    if kind == "shuffle":
        return [
            Step("point_conv", conv_norm(channels, narrow), False),
            Step("depth_conv", conv_norm(narrow, narrow, window, stride, narrow), False),
            Step("point_conv_expand", conv_norm(narrow, channels), False),
        ]
    if kind == "separable":
        return [
            *widening,
            Step("depth_conv", conv_norm(wide, wide, window, stride, wide), True),
            Step("point_conv", conv_norm(wide, channels), False),
        ]
    if kind == "bottleneck":
        return [
            Step("reduct_conv", conv_norm(channels, narrow), True),
            Step("conv", conv_norm(narrow, narrow, window, stride), True),
            Step("expand_conv", conv_norm(narrow, channels), False),
        ]
    if kind == "sandglass":
        return [
            Step("depth_conv1", conv_norm(channels, channels, window, 1, channels), True),
            Step("point_conv1", conv_norm(channels, narrow), False),
            Step("point_conv2", conv_norm(narrow, channels), True),
            Step("depth_conv2", conv_norm(channels, channels, window, stride, channels), False),
        ]
    return [
        *widening,
        Step("depth_conv", conv_norm(wide, wide, window, stride, wide), not released),
        Step("squeez_excite", SqueezeExcite(wide, released), False),
        Step("point_conv", conv_norm(wide, channels), True),
    ]


CLOSING = ("shuffle", "bottleneck")  # their activation comes behind the residual


class TemporalLayer(nn.Module):
    """Convolutions along time and a residual.

    The released shuffling of channels in a ``shuffle`` layer changes nothing (each group is one channel) and is left
    out.

    Args:
        kind: basic, shuffle, separable, bottleneck, sandglass or mobile.
        channels: C.
        window: frames.
        stride: along time.
        act: name of the activation.
        expand: see the network's options.
        reduce: see the network's options.
        released: see the network's options.
    """

    def __init__(
        self, kind: str, channels: int, window: int, stride: int, act: str, expand: float = 1.0, reduce: float = 1.0,
        released: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        steps = temporal_steps(kind, channels, window, stride, expand, reduce, released)
        self.steps = nn.ModuleDict({step.name: step.module for step in steps})
        self.active: Sequence[bool] = [step.active for step in steps]
        self.act, self.closing = activation(act), kind in CLOSING
        self.residual: nn.Module = nn.Identity() if stride == 1 else conv_norm(channels, channels, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, V, T) -> (B, C, V, ceil(T / stride))."""
        y = x
        for step, active in zip(self.steps.values(), self.active, strict=True):
            y = step(y)
            if active:
                y = self.act(y)
        y = y + self.residual(x)
        return self.act(y) if self.closing else y
