"""Layers over tuples: (B, C, T', V'), T' tuples of V' = frames * joints tokens, frame by frame."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import fusion

SLOPE = 0.1  # of the leaky ReLU
PERIOD = 10000.0  # of the slowest wave of the position code


def position_code(tokens: int, channels: int) -> Tensor:
    """(C, 1, V'): sine and cosine of a token's place in its tuple, alike for all tuples (Vaswani et al. 2017)."""
    rates = torch.exp(torch.arange(0, channels, 2) * -(math.log(PERIOD) / channels))
    angles = torch.arange(tokens)[:, None] * rates
    waves = torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)[:, :channels]
    return waves.T[:, None].contiguous()


def to_tuples(bodies: Tensor, frames: int) -> Tensor:
    """(B, T, V, C) -> (B, C, T / frames, frames * V)."""
    return bodies.unflatten(1, (-1, frames)).flatten(2, 3).permute(0, 3, 1, 2)


def from_tuples(tuples: Tensor, frames: int) -> Tensor:
    """(B, C, T', frames * V) -> (B, T' * frames, V, C)."""
    return tuples.unflatten(3, (frames, -1)).permute(0, 2, 3, 4, 1).flatten(1, 2)


def conv_norm(channels_in: int, channels_out: int, kernel: tuple[int, int] = (1, 1)) -> nn.Sequential:
    """A convolution that keeps T' and V', then batch norm."""
    conv = nn.Conv2d(channels_in, channels_out, kernel, padding=(kernel[0] // 2, kernel[1] // 2))
    nn.init.kaiming_normal_(conv.weight, mode="fan_out")
    return nn.Sequential(conv, nn.BatchNorm2d(channels_out))


class TupleLayer(nn.Module):
    """Attention between the tokens of tuples, a dense layer, and a convolution over tuples, each with a residual.

    How much one token attends to another is the sum over all tuples, so that it is the same for every tuple of a clip.
    As released, the softmax runs over the tokens that receive; what a token collects does not sum to 1.

    Args:
        channels_in: C_in.
        channels_out: C_out.
        query: channels of a query and of a key.
        heads: of the attention; the tokens themselves are the values, C_in channels for each head.
        kernel: of the convolutions along (time, joints).
        tokens: V', for the initial value of the bias.
    """

    def __init__(
        self, channels_in: int, channels_out: int, query: int, heads: int, kernel: tuple[int, int], tokens: int
    ) -> None:
        super().__init__()
        self.heads, self.query = heads, query
        self.query_key = nn.Conv2d(channels_in, 2 * heads * query, 1)
        nn.init.kaiming_normal_(self.query_key.weight, mode="fan_out")
        self.scale = nn.Parameter(torch.ones(heads, 1, 1))
        self.bias = nn.Parameter(torch.full((heads, 1, 1), 1.0 / tokens))  # as published; a softmax takes it out again
        self.joints = conv_norm(heads * channels_in, channels_out, (1, kernel[1]))
        self.dense = conv_norm(channels_out, channels_out)
        self.time = conv_norm(channels_out, channels_out, (kernel[0], 1))
        same = channels_in == channels_out
        self.joints_skip = nn.Identity() if same else conv_norm(channels_in, channels_out)
        self.time_skip = nn.Identity() if same else conv_norm(channels_out, channels_out)

    def attention(self, x: Tensor) -> Tensor:
        """(B, C_in, T', V') -> (B, heads, V', V'): row u is what token u gives to each token."""
        query, key = self.query_key(x).unflatten(1, (2, self.heads, self.query)).flatten(3, 4).unbind(1)
        shape = (self.query * x.shape[2], x.shape[3])
        query, key = query.unflatten(3, (-1, x.shape[3])).flatten(2, 3), key.reshape(*key.shape[:2], *shape)
        scores = query.transpose(2, 3) @ key / shape[0]
        return (scores * self.scale + self.bias).softmax(dim=3)

    def collect(self, x: Tensor) -> Tensor:
        """(B, C_in, T', V') -> (B, heads * C_in, T', V'): what every token is given by all tokens of its tuple.

        All heads are one product: a product for each head would copy the tokens, and their gradients, once a head.
        """
        given = self.attention(x).transpose(1, 2).flatten(2)  # (B, V', heads * V')
        collected = (x.flatten(1, 2) @ given).unflatten(2, (self.heads, -1)).unflatten(1, x.shape[1:3])
        return collected.permute(0, 3, 1, 2, 4).flatten(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, T', V') -> (B, C_out, T', V')."""
        skip = self.joints_skip(x)
        y = F.leaky_relu_(self.joints(self.collect(x)) + skip, SLOPE)
        y = F.leaky_relu_(self.dense(y) + skip, SLOPE)
        return F.leaky_relu_(self.time(y) + self.time_skip(y), SLOPE)

    @torch.no_grad()
    def fold(self) -> None:
        """Make every batch norm part of the convolution before it, in place; for a layer in evaluation only."""
        for name in ("joints", "dense", "time", "joints_skip", "time_skip"):
            part: Any = getattr(self, name)
            if not isinstance(part, nn.Identity):
                setattr(self, name, fusion.fuse_conv_bn_eval(part[0], part[1]))
