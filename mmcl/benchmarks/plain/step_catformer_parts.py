"""Attention of STEP-CATFormer between parts of the body, written the plain way.

The modules belong to :mod:`mmcl.benchmarks.plain.step_catformer`. As in the released code, tensors have channels first
and are turned round for every layer norm and linear layer. Tensors carry the official names.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Heads(nn.Module):
    """Attention of (B, J, D) with several heads; the released code has it twice under different names."""

    def __init__(self, width: int, heads: int, names: tuple[str, str, str], output: str) -> None:
        super().__init__()
        self.heads, self.names, self.out = heads, names, output
        for name in names:
            self.add_module(name, nn.Linear(width, width, bias=False))
        last = nn.Linear(width, width)
        self.add_module(output, nn.Sequential(last) if output == "to_out" else last)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(B, I, D), (B, J, D) twice -> (B, I, D)."""
        b, i, d = q.shape
        q, k, v = (
            getattr(self, name)(x).reshape(b, -1, self.heads, d // self.heads).permute(0, 2, 1, 3)
            for name, x in zip(self.names, (q, k, v), strict=True)
        )
        attention = (q @ k.transpose(-2, -1) * (d // self.heads) ** -0.5).softmax(dim=-1)
        return getattr(self, self.out)((attention @ v).transpose(1, 2).reshape(b, i, d))


class Mlp(nn.Module):
    """Linear, GELU, linear."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(…, D) -> (…, D)."""
        return self.fc2(F.gelu(self.fc1(x)))


class Spatial(nn.Module):
    """A transformer layer over the joints of each frame."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.normq_sp, self.normk_sp, self.normv_sp, self.norm2 = (nn.LayerNorm(width) for _ in range(4))
        self.feedforward = Mlp(width, 4 * width)
        self.attention_sp = Heads(width, heads, ("W_q", "W_k", "W_v"), "proj")

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(B, C, T, J) three times -> (B, C, T, J)."""
        b, c, t, j = q.shape
        q, k, v = (x.permute(0, 2, 3, 1).reshape(b * t, j, c) for x in (q, k, v))
        x = q + self.attention_sp(self.normq_sp(q), self.normk_sp(k), self.normv_sp(v))
        return (x + self.feedforward(self.norm2(x))).reshape(b, t, j, c).permute(0, 3, 1, 2)


class PreNorm(nn.Module):
    """A class token's attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm, self.fn = nn.LayerNorm(width), Heads(width, heads, ("to_q", "to_k", "to_v"), "to_out")

    def forward(self, x: Tensor) -> Tensor:
        """(B, J, D) -> (B, 1, D)."""
        x = self.norm(x)
        return self.fn(x[:, :1], x, x)


class Part(nn.Module):
    """A part module; ``order`` is that of the joints of what comes out."""

    def __init__(
        self, narrow: list[int], wide: list[int], order: list[int], width: int, heads: int, crossed: bool
    ) -> None:
        super().__init__()
        self.narrow, self.wide, self.order, self.crossed = narrow, wide, order, crossed
        large, small = width // 4, width - width // 4
        for suffix in ("1", "2") if crossed else ("",):
            self.add_module(f"transformer_enc_small{suffix}", nn.Conv2d(width, small, 1))
            self.add_module(f"transformer_enc_large{suffix}", nn.Conv2d(width, large, 1))
        self.transformer_enc_small_T, self.transformer_enc_large_T = Spatial(small, heads), Spatial(large, heads)
        self.cross_attn_layers = nn.ModuleList(
            [nn.ModuleList([nn.Linear(small, large), nn.Linear(large, small), PreNorm(large, heads),
                            nn.Linear(large, small), nn.Linear(small, large), PreNorm(small, heads)])]
        )  # fmt: skip
        self.mlp_head_small = nn.Sequential(nn.LayerNorm(small), nn.Linear(small, width))
        self.mlp_head_large = nn.Sequential(nn.LayerNorm(large), nn.Linear(large, width))
        frame = (len(narrow) + len(wide)) * width
        self.feedforward, self.norm2 = Mlp(frame, frame), nn.LayerNorm(frame)

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        """(B, C, T, V) twice -> (B, C, T, V)."""
        enc: Any = {name.removeprefix("transformer_enc_"): module for name, module in self.named_children()}
        if self.crossed:
            xs, ks = enc["small1"](x1[..., self.wide]), enc["small2"](x2[..., self.wide])
            xl, kl = enc["large1"](x1[..., self.narrow]), enc["large2"](x2[..., self.narrow])
        else:
            xs = ks = enc["small"](x2[..., self.wide])
            xl = kl = enc["large"](x1[..., self.narrow])
        xs, xl = self.transformer_enc_small_T(xs, ks, xs), self.transformer_enc_large_T(xl, kl, xl)
        b, _, t, _ = xs.shape
        xs, xl = (x.permute(0, 2, 3, 1).flatten(0, 1) for x in (xs, xl))
        layers: Any = self.cross_attn_layers[0]
        down, up, attend, up2, down2, attend2 = layers
        token, rest_s, rest_l = up2(xl[:, :1]), xs[:, 1:], xl[:, 1:]
        xl = torch.cat([down2(token + attend2(torch.cat([token, rest_s], dim=1))), rest_l], dim=1)
        token = down(xs[:, :1])
        xs = torch.cat([up(token + attend(torch.cat([token, rest_l], dim=1))), rest_s], dim=1)
        heads = self.mlp_head_small(xs), self.mlp_head_large(xl)
        x = torch.cat([head.unflatten(0, (b, t)).permute(0, 3, 1, 2) for head in heads], dim=3)[..., self.order]
        frames = x.permute(0, 2, 3, 1).flatten(2)
        frames = frames + self.feedforward(self.norm2(frames))
        return frames.unflatten(2, (x.shape[3], -1)).permute(0, 3, 1, 2)
