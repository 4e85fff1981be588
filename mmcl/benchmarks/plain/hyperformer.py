"""Hyperformer written the plain way: the baseline of its speed ratios, and the reference of its tests.

As in the released code, a head's four logits are four products on tensors that are moved so that heads lie outside,
the layer norm moves channels to the end and back, the four branches of the temporal unit are apart, and every body is
computed. Tensors carry the official names.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmcl.benchmarks.plain.ctrgcn import ConvBN, Tcn
from mmcl.benchmarks.plain.form import Convert
from mmcl.encoders.hyperformer.hypergraph import hop_distances, joint_labels
from mmcl.encoders.hyperformer.network import Hyperformer
from mmcl.encoders.hyperformer.official import convert


class Attention(nn.Module):
    """The four terms and the product with the values."""

    def __init__(self, c_in: int, width: int, heads: int, groups: int, hops: np.ndarray) -> None:
        super().__init__()
        self.heads, self.scale, self.hops = heads, (width // heads) ** -0.5, torch.as_tensor(hops)
        self.rpe = nn.Parameter(torch.zeros(int(hops.max()) + 1, width))
        self.w1 = nn.Parameter(torch.zeros(heads, width // heads))
        self.outer = nn.Parameter(torch.eye(len(hops)).repeat(heads, 1, 1))
        self.alpha = nn.Parameter(torch.zeros(1))
        self.kv = nn.Conv2d(c_in, 2 * width, 1, bias=False)
        self.q = nn.Conv2d(c_in, width, 1, bias=False)
        self.proj = nn.Conv2d(width, width, 1, groups=groups)

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        """(B, C_in, T, V) and hyperedges (B, C_out, T, V) -> (B, C_out, T, V)."""
        b, _, t, v = x.shape
        key, value = self.kv(x).reshape(b, 2, self.heads, -1, t, v).permute(1, 0, 4, 2, 5, 3)
        query, edge = (y.reshape(b, self.heads, -1, t, v).permute(0, 3, 1, 4, 2) for y in (self.q(x), e))
        position = self.rpe[self.hops].view(v, v, self.heads, -1)
        logits = query @ key.transpose(-2, -1)
        logits = logits + torch.einsum("bthnc,nmhc->bthnm", query, position)
        logits = logits + torch.einsum("bthnc,bthmc->bthnm", query, edge)
        logits = logits + torch.einsum("hc,bthmc->bthm", self.w1, edge).unsqueeze(-2)
        y = (self.alpha * (logits * self.scale).softmax(dim=-1) + self.outer) @ value
        return self.proj(y.transpose(3, 4).reshape(b, t, -1, v).transpose(1, 2))


class Vit(nn.Module):
    """Layer norm, attention, skip connection."""

    def __init__(self, c_in: int, width: int, heads: int, groups: int, hops: np.ndarray, labels: Sequence[int]) -> None:
        super().__init__()
        self.labels = list(labels)
        self.norm1 = nn.LayerNorm(c_in)
        self.attn = Attention(c_in, width, heads, groups, hops)
        self.skip_proj = nn.Conv2d(c_in, width, 1, bias=False) if c_in != width else None
        self.pe_proj = nn.Conv2d(c_in, width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, T, V) -> (B, C_out, T, V)."""
        label = F.one_hot(torch.tensor(self.labels)).to(x)
        edges = self.pe_proj(x @ (label / label.sum(dim=0, keepdim=True)))[..., self.labels]
        y = self.attn(self.norm1(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), edges)
        return y + (x if self.skip_proj is None else self.skip_proj(x))


class Layer(nn.Module):
    """Attention, temporal unit, and a residual around both."""

    def __init__(
        self, c_in: int, width: int, stride: int, heads: int, groups: int, hops: np.ndarray, labels: Sequence[int]
    ) -> None:
        super().__init__()
        self.vit1 = Vit(c_in, width, heads, groups, hops, labels)
        self.tcn1 = Tcn(width, stride)
        self.residual = ConvBN(c_in, width, 1, stride) if c_in != width or stride != 1 else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, T, V) -> (B, width, ceil(T / stride), V)."""
        y = self.tcn1(self.vit1(x)) + (x if self.residual is None else self.residual(x))
        return torch.relu_(y)


class PlainHyperformer(nn.Module):
    """The network on official input (N, C, T, V, M).

    Args:
        classes: K.
        hops: (V, V) distances of joints.
        labels: the hyperedge of each joint.
        persons: M.
        channels: C.
        heads: of the attention.
        head_width: channels of each.
        groups: of the projection.
        strides: of the units along time.
    """

    def __init__(
        self, classes: int, hops: np.ndarray, labels: Sequence[int], persons: int, channels: int = 3, heads: int = 9,
        head_width: int = 24, groups: int = 6, strides: Sequence[int] = (1, 1, 1, 1, 2, 1, 1, 2, 1, 1),
    ) -> None:  # fmt: skip
        super().__init__()
        width = heads * head_width
        self.data_bn = nn.BatchNorm1d(persons * len(hops) * channels)
        for number, stride in enumerate(strides, start=1):
            layer = Layer(channels if number == 1 else width, width, stride, heads, groups, hops, labels)
            setattr(self, f"l{number}", layer)
        self.depth, self.clip = len(strides), (channels, len(hops), persons)
        self.fc = nn.Linear(width, classes)

    def shape(self, frames: int) -> tuple[int, ...]:
        """Of one clip."""
        return self.clip[0], frames, *self.clip[1:]

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, T, V, M) -> (N, K)."""
        n, c, t, v, m = x.shape
        x = self.data_bn(x.permute(0, 4, 3, 1, 2).reshape(n, m * v * c, t))
        x = x.reshape(n * m, v, c, t).permute(0, 2, 3, 1)
        for number in range(1, self.depth + 1):
            x = getattr(self, f"l{number}")(x)
        return self.fc(x.reshape(n, m, x.shape[1], -1).mean(dim=3).mean(dim=1))


def plain_form(encoder: Hyperformer) -> tuple[PlainHyperformer, Convert]:
    """A plain network of an encoder's size, and the way from its state dict to the encoder's."""
    options, layout = encoder.options, encoder.layout
    network = PlainHyperformer(
        encoder.classes, hop_distances(layout), joint_labels(layout, options.hyperedges, options.released),
        options.persons, options.channels, options.heads, options.head_width, options.groups, options.strides,
    )  # fmt: skip
    return network, lambda official: convert(official).state
