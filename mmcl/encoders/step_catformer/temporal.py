"""STEP-CATFormer's attention over time, between frames as wholes, with tokens of earlier depths beside the joints.

Beside the V joints stand four tokens, which the trunk gives at four depths, and the joints' mean. A frame is compared
with a frame by the cosine of all of that, channels of all joints in one vector that the heads share; values come from
four branches of convolutions along time; what tokens and mean have found is given to the joints by a learned matrix.
Tensors are (B, D, T, J) with J = V + 5 here: depth-wise convolutions go over frames and joints in this order.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmcl.encoders.step_catformer.parts import SPREAD

TOKENS = 5  # of four depths, and the mean joint
KERNEL = 7
NEAR, FAR = 2, 3  # dilations


def channel_norm(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """A layer norm over the channels of (B, D, T, J)."""
    return norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def init_convs(module: nn.Module) -> None:
    """Kaiming by fan-out without biases, and batch-norm scales N(1, 0.02), as released."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out")
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.weight, 1.0, 0.02)


class ValueBranches(nn.Module):
    """Four views of the time axis side by side, D / 4 channels each, and the input added.

    Kernel 7 of single channels with dilation 2, and with 3; the maximum of 3 frames; the frame itself.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.branch = branch = width // 4
        self.reduce = nn.Conv2d(width, 2 * branch, 1, bias=False)
        self.reduce_peak, self.point = nn.Conv2d(width, branch, 1), nn.Conv2d(width, branch, 1)
        self.norm = nn.BatchNorm2d(3 * branch)
        self.near, self.far = (
            nn.Conv2d(branch, branch, (KERNEL, 1), padding=(KERNEL // 2 * dilation, 0), dilation=(dilation, 1),
                      groups=branch, bias=False)
            for dilation in (NEAR, FAR)
        )  # fmt: skip
        self.peak = nn.MaxPool2d((3, 1), 1, (1, 0))
        init_convs(self)
        for rows in self.reduce.weight.chunk(2):  # two layers in the released code
            nn.init.kaiming_normal_(rows.data, mode="fan_out")

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, T, J) -> (B, D, T, J)."""
        inner = torch.relu(self.norm(torch.cat([self.reduce(x), self.reduce_peak(x)], dim=1)))
        near, far, peak = inner.split(self.branch, dim=1)
        return torch.cat([self.near(near), self.far(far), self.peak(peak), self.point(x)], dim=1) + x


class FrameAttention(nn.Module):
    """Cosine attention from frame to frame, with a learned temperature for each head."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.value = ValueBranches(width)
        self.query, self.key, self.output = (nn.Conv2d(width, width, 1, bias=False) for _ in range(3))
        self.query_near, self.key_near = (
            nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False) for _ in range(2)
        )  # fmt: skip
        init_convs(self)

    def split(self, x: Tensor) -> Tensor:
        """(B, D, T, J) -> (B, h, T, J * D / h)."""
        return x.permute(0, 2, 3, 1).flatten(2).unflatten(2, (self.heads, -1)).transpose(1, 2)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """(B, D, T, J) three times -> (B, D, T, J)."""
        D, J = value.shape[1], value.shape[3]
        query = F.normalize(self.split(self.query_near(self.query(query))), dim=-1)
        key = F.normalize(self.split(self.key_near(self.key(key))), dim=-1)
        attention = torch.softmax(torch.matmul(query, key.transpose(2, 3)) * self.temperature, dim=-1)
        found = torch.matmul(attention, self.split(self.value(value)))
        return self.output(found.transpose(1, 2).flatten(2).unflatten(2, (J, D)).permute(0, 3, 1, 2))


class GatedFeedForward(nn.Module):
    """One half of the hidden channels gates the other, behind a depth-wise convolution over frames and joints."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = 2 * SPREAD * width
        self.inner = nn.Conv2d(width, hidden, 1, bias=False)
        self.near = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden, bias=False)
        self.outer = nn.Conv2d(SPREAD * width, width, 1, bias=False)
        init_convs(self)

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, T, J) -> (B, D, T, J)."""
        gate, values = self.near(self.inner(x)).chunk(2, dim=1)
        return self.outer(F.gelu(gate) * values)


class TemporalAttention(nn.Module):
    """One temporal module.

    Args:
        joints: V.
        width: D.
        heads: of the attention.
    """

    def __init__(self, joints: int, width: int, heads: int) -> None:
        super().__init__()
        self.query_norm, self.key_norm, self.value_norm, self.inner_norm = (nn.LayerNorm(width) for _ in range(4))
        self.attention = FrameAttention(width, heads)
        self.feed_forward = GatedFeedForward(width)
        self.merge = nn.Parameter(torch.zeros(TOKENS, joints))
        self.before, self.point, self.after = nn.BatchNorm2d(width), nn.Conv2d(width, width, 1), nn.BatchNorm2d(width)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, tokens: Tensor) -> Tensor:
        """(B, D, T, V) three times and (B, D, T, 4) -> (B, D, T, V + 5): attention and feed-forward, with residuals."""
        query, key, value = (
            torch.cat([x, tokens, x.mean(dim=3, keepdim=True)], dim=3) for x in (query, key, value)
        )  # fmt: skip
        normed = (
            channel_norm(self.query_norm, query), channel_norm(self.key_norm, key), channel_norm(self.value_norm, value)
        )  # fmt: skip
        x = query + self.attention(*normed)
        return x + self.feed_forward(channel_norm(self.inner_norm, x))

    def forward(self, query: Tensor, key: Tensor, value: Tensor, tokens: Tensor) -> Tensor:
        """(B, T, V, D) three times and tokens (B, D, T, 4) -> (B, T, V, D)."""
        query, key, value = (x.permute(0, 3, 1, 2) for x in (query, key, value))
        joints, others = self.attend(query, key, value, tokens).split([query.shape[3], TOKENS], dim=3)
        x = joints + torch.matmul(others, self.merge)
        return self.after(self.point(F.gelu(self.before(x)))).permute(0, 2, 3, 1)
