"""Attention of STEP-CATFormer between frames, written the plain way.

The modules belong to :mod:`mmcl.benchmarks.plain.step_catformer`. As in the released code, tensors have channels first
and are turned round for every layer norm and linear layer. Tensors carry the official names.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Values(nn.Module):
    """Four branches along time, and the input added."""

    def __init__(self, width: int) -> None:
        super().__init__()
        b = width // 4

        def deep(dilation: int) -> nn.Sequential:
            along = nn.Module()
            along.conv = nn.Conv2d(b, b, (7, 1), 1, (3 * dilation, 0), (dilation, 1), groups=b, bias=False)
            along.forward = along.conv.forward  # type: ignore[method-assign]
            return nn.Sequential(nn.Conv2d(width, b, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU(inplace=True), along)

        peak = [nn.Conv2d(width, b, 1), nn.BatchNorm2d(b), nn.ReLU(inplace=True), nn.MaxPool2d((3, 1), 1, (1, 0))]
        self.branches = nn.ModuleList(
            [deep(2), deep(3), nn.Sequential(*peak), nn.Sequential(nn.Conv2d(width, b, 1))]
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, J) -> (B, C, T, J)."""
        return torch.cat([branch(x) for branch in self.branches], dim=1) + x


class Frames(nn.Module):
    """Cosine attention between frames."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(1, heads, 1, 1))
        self.v = Values(width)
        self.q, self.k, self.project_out = (nn.Conv2d(width, width, 1, bias=False) for _ in range(3))
        self.q_conv, self.k_conv = (nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False) for _ in range(2))

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(B, C, T, J) three times -> (B, C, T, J)."""
        b, c, t, j = v.shape
        q, k, v = self.q_conv(self.q(q)), self.k_conv(self.k(k)), self.v(v)
        q, k, v = (
            x.permute(0, 2, 3, 1).contiguous().reshape(b, t, self.heads, -1).permute(0, 2, 1, 3) for x in (q, k, v)
        )
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        attention = (q @ k.transpose(-2, -1) * self.temperature).softmax(dim=-1)
        return self.project_out((attention @ v).transpose(1, 2).reshape(b, t, j, c).permute(0, 3, 1, 2))


class Gated(nn.Module):
    """The gated feed-forward network."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.project_in = nn.Conv2d(width, 8 * width, 1, bias=False)
        self.conv = nn.Conv2d(8 * width, 8 * width, 3, padding=1, groups=8 * width, bias=False)
        self.project_out = nn.Conv2d(4 * width, width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, J) -> (B, C, T, J)."""
        gate, values = self.conv(self.project_in(x)).chunk(2, dim=1)
        return self.project_out(F.gelu(gate) * values)


class Temporal(nn.Module):
    """A temporal module."""

    def __init__(self, joints: int, width: int, heads: int) -> None:
        super().__init__()
        self.norm_q, self.norm_k, self.norm_v, self.norm2 = (nn.LayerNorm(width) for _ in range(4))
        self.attn, self.ffn = Frames(width, heads), Gated(width)
        self.add_coeff = nn.Parameter(torch.zeros(5, joints))
        self.transform = nn.Sequential(nn.BatchNorm2d(width), nn.GELU(), nn.Conv2d(width, width, 1))
        self.bn = nn.BatchNorm2d(width)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, p: Tensor) -> Tensor:
        """(B, C, T, V) three times and (B, C, T, 4) -> (B, C, T, V)."""
        joints = q.shape[3]
        q, k, v = (torch.cat([x, p, x.mean(dim=3, keepdim=True)], dim=3) for x in (q, k, v))

        def normed(norm: nn.LayerNorm, x: Tensor) -> Tensor:
            return norm(x.flatten(2).transpose(1, 2).contiguous()).transpose(1, 2).contiguous().view_as(x)

        x = q + self.attn(normed(self.norm_q, q), normed(self.norm_k, k), normed(self.norm_v, v))
        x = x + self.ffn(normed(self.norm2, x))
        others = torch.einsum("nctd,dv->nctv", x[..., joints:], self.add_coeff)
        return self.bn(self.transform(x[..., :joints] + others))
