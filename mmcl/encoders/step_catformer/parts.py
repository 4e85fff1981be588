"""Attention within and between two sets of joints: the four part modules of STEP-CATFormer.

The narrow set (arms, upper half) has a quarter of the channels, the wide one (legs, lower half) three quarters. Each
goes through a transformer layer of its own. The first joint of each set is its class token and meets the other set's
joints in a cross-attention, at that set's width. Both sets return to the full width and are joined, and a feed-forward
network takes the whole frame, all joints at once. Tensors are (B, T, V, D).

The released code leaves the joints in the order wide set, narrow set; the module that follows takes them for the
layout's order. Here they are put back, unless the option ``released`` says otherwise.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmcl.encoders.step_catformer.sets import inverse_order

SPREAD = 4  # of feed-forward networks


class HeadAttention(nn.Module):
    """Attention with several heads over the last axis but one, without biases but that of the output."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.output = nn.Linear(width, width)
        for layer in (self.query, self.key, self.value):
            nn.init.normal_(layer.weight, 0.0, (2.0 / width) ** 0.5)

    def split(self, x: Tensor) -> Tensor:
        """(…, J, D) -> (…, h, J, d)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(-3, -2)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """(…, I, D) and (…, J, D) twice -> (…, I, D)."""
        query, key, value = self.split(self.query(query)), self.split(self.key(key)), self.split(self.value(value))
        attention = torch.softmax(torch.matmul(query, key.transpose(-2, -1)) * query.shape[-1] ** -0.5, dim=-1)
        return self.output(torch.matmul(attention, value).transpose(-3, -2).flatten(-2))


class FeedForward(nn.Module):
    """Linear, GELU, linear, initialised as released."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(width, hidden), nn.Linear(hidden, width)
        nn.init.normal_(self.inner.weight, 0.0, (2.0 / hidden) ** 0.5)
        nn.init.normal_(self.outer.weight, 0.0, (2.0 / width) ** 0.5)

    def forward(self, x: Tensor) -> Tensor:
        """(…, D) -> (…, D)."""
        return self.outer(F.gelu(self.inner(x)))


class TransformerLayer(nn.Module):
    """Attention and a feed-forward network, each behind layer norms and with a residual."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.query_norm, self.key_norm, self.value_norm, self.inner_norm = (nn.LayerNorm(width) for _ in range(4))
        self.attention = HeadAttention(width, heads)
        nn.init.normal_(self.attention.output.weight, 0.0, (2.0 / width) ** 0.5)
        self.feed_forward = FeedForward(width, SPREAD * width)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """(…, J, D) three times -> (…, J, D)."""
        x = query + self.attention(self.query_norm(query), self.key_norm(key), self.value_norm(value))
        return x + self.feed_forward(self.inner_norm(x))


class TokenExchange(nn.Module):
    """A set's class token visits the other set: to its width, attention over its joints, and back.

    Args:
        width: of the set that the token is from.
        other: of the set that it visits.
        heads: of the attention.
    """

    def __init__(self, width: int, other: int, heads: int) -> None:
        super().__init__()
        self.there, self.back = nn.Linear(width, other), nn.Linear(other, width)
        self.norm = nn.LayerNorm(other)
        self.attention = HeadAttention(other, heads)

    def forward(self, token: Tensor, joints: Tensor) -> Tensor:
        """(…, 1, width) and (…, J, other), the other set without its own token -> (…, 1, width)."""
        token = self.there(token)
        seen = self.norm(torch.cat([token, joints], dim=-2))
        return self.back(token + self.attention(seen[..., :1, :], seen, seen))


class PartAttention(nn.Module):
    """One part module, (B, T, V, D) -> (B, T, V, D).

    Args:
        narrow: joints of the narrow set, its class token first.
        wide: joints of the wide set.
        width: D.
        heads: of all attentions.
        crossed: keys come from a second input, with projections of their own; otherwise, as in the first two modules,
            each set attends to itself.
        released: leave the joints in the order wide set, narrow set.
    """

    narrow: Tensor
    wide: Tensor
    order: Tensor

    def __init__(
        self, narrow: tuple[int, ...], wide: tuple[int, ...], width: int, heads: int, crossed: bool, released: bool
    ) -> None:
        super().__init__()
        small, large, joints = width // 4, width - width // 4, len(narrow) + len(wide)
        self.crossed = crossed
        self.narrow_in, self.wide_in = nn.Linear(width, small), nn.Linear(width, large)
        if crossed:
            self.narrow_other, self.wide_other = nn.Linear(width, small), nn.Linear(width, large)
        self.narrow_layer, self.wide_layer = TransformerLayer(small, heads), TransformerLayer(large, heads)
        self.narrow_exchange, self.wide_exchange = (
            TokenExchange(small, large, heads), TokenExchange(large, small, heads),
        )  # fmt: skip
        self.narrow_norm, self.wide_norm = nn.LayerNorm(small), nn.LayerNorm(large)
        self.narrow_out, self.wide_out = nn.Linear(small, width), nn.Linear(large, width)
        self.frame_norm = nn.LayerNorm(joints * width)
        self.frame = FeedForward(joints * width, joints * width)
        order = list(range(joints)) if released else inverse_order(wide + narrow)
        for name, indices in (("narrow", narrow), ("wide", wide), ("order", order)):
            self.register_buffer(name, torch.tensor(indices), persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Kaiming by fan-out for what is a convolution in the released code; the rest is drawn where it is made."""
        for name in ("narrow_in", "wide_in", "narrow_other", "wide_other"):
            if hasattr(self, name):
                nn.init.kaiming_normal_(getattr(self, name).weight, mode="fan_out")
                nn.init.zeros_(getattr(self, name).bias)

    def layers(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Narrow (B, T, V_n, D / 4) and wide set (B, T, V_w, 3 D / 4) behind their own transformer layers."""
        if not self.crossed:
            narrow, wide = self.narrow_in(first[:, :, self.narrow]), self.wide_in(second[:, :, self.wide])
            return self.narrow_layer(narrow, narrow, narrow), self.wide_layer(wide, wide, wide)
        narrow, wide = self.narrow_in(first[:, :, self.narrow]), self.wide_in(first[:, :, self.wide])
        others = self.narrow_other(second[:, :, self.narrow]), self.wide_other(second[:, :, self.wide])
        return self.narrow_layer(narrow, others[0], narrow), self.wide_layer(wide, others[1], wide)

    def exchange(self, narrow: Tensor, wide: Tensor) -> tuple[Tensor, Tensor]:
        """Both sets with the class tokens that come back, at the full width."""
        rest = narrow[..., 1:, :], wide[..., 1:, :]
        narrow = torch.cat([self.narrow_exchange(narrow[..., :1, :], rest[1]), rest[0]], dim=-2)
        wide = torch.cat([self.wide_exchange(wide[..., :1, :], rest[0]), rest[1]], dim=-2)
        return self.narrow_out(self.narrow_norm(narrow)), self.wide_out(self.wide_norm(wide))

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """(B, T, V, D) twice -> (B, T, V, D); uncrossed, the narrow set is the first's, the wide set the second's."""
        narrow, wide = self.exchange(*self.layers(first, second))
        joints = torch.cat([wide, narrow], dim=2)[:, :, self.order]
        frame = joints.flatten(2)
        return (frame + self.frame(self.frame_norm(frame))).view_as(joints)
