"""Hyperformer's attention with its constants folded, for the form for use only (``encoders/lean.py``).

The affine part of the layer norm and the scale of the logits go into the weights of queries, keys and values, which are
one product; how much a hyperedge matters becomes one more output for each head of the product that makes its features.
Distances are looked up behind the product of queries with the table, which has fewer rows than there are joints.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmcl.encoders.hyperformer.attention import SpatialAttention
from mmcl.encoders.lean import Folded

CACHED = 32  # frames at a time where a body goes through alone: what they need stays in a core's own cache


class LeanAttention(Folded):
    """Attention over joints with its skip connection.

    Args:
        attention: as it is trained.
    """

    qkv_weight: Tensor
    qkv_bias: Tensor
    edge_weight: Tensor
    table: Tensor
    hops: Tensor
    means: Tensor
    members: Tensor
    strength: Tensor
    relation: Tensor
    mix_weight: Tensor
    mix_bias: Tensor
    shortcut: Tensor

    def __init__(self, attention: SpatialAttention) -> None:
        super().__init__()
        self.heads, self.eps = attention.heads, attention.norm.eps
        weight = torch.cat([attention.query.weight * attention.scale, attention.key_value.weight])
        edges = attention.hyperedge.weight.unflatten(0, (self.heads, -1))  # (h, d, C_in)
        importance = torch.einsum("hd,hdc->hc", attention.importance * attention.scale, edges)
        mix_weight = attention.mix.weight[:, :, 0, 0].unflatten(0, (attention.mix.groups, -1))
        assert attention.mix.bias is not None
        self.keep(
            qkv_weight=weight * attention.norm.weight, qkv_bias=weight @ attention.norm.bias,
            edge_weight=torch.cat([attention.hyperedge.weight, importance]),
            table=attention.distance.unflatten(1, (self.heads, -1)).permute(1, 2, 0).unsqueeze(1),  # (h, 1, d, rows)
            hops=attention.hops, means=attention.means(), members=attention.members, strength=attention.strength,
            relation=attention.relation.unsqueeze(1), mix_weight=mix_weight,
            mix_bias=attention.mix.bias.unflatten(0, (attention.mix.groups, -1)),
        )  # fmt: skip
        self.has_shortcut = isinstance(attention.shortcut, nn.Linear)
        if isinstance(attention.shortcut, nn.Linear):
            self.keep(shortcut=attention.shortcut.weight)

    def attend(self, query: Tensor, key: Tensor, x: Tensor) -> Tensor:
        """(B, h, T, V, d) twice and the input (B, C_in, V, T) -> attention (B, h, T, V, V)."""
        edges = F.linear(torch.matmul(self.means, x).permute(0, 2, 3, 1), self.edge_weight)  # (B, P, T, C_out + h)
        edges, importance = edges.split([edges.shape[-1] - self.heads, self.heads], dim=-1)
        near = torch.matmul(query, self.table)  # (B, h, T, V, rows)
        near = near.gather(4, self.hops.expand(*near.shape[:4], -1))
        near.add_(torch.matmul(importance.permute(0, 3, 2, 1), self.members.T).unsqueeze(3))
        edges = edges.unflatten(3, (self.heads, -1)).permute(0, 3, 2, 1, 4)  # (B, h, T, P, d)
        key = key + torch.matmul(self.members, edges)
        return torch.softmax(torch.matmul(query, key.transpose(3, 4)).add_(near), dim=-1)

    def values(self, x: Tensor) -> Tensor:
        """(B, C_in, V, T) -> (B, h, T, V, d), what each joint has collected."""
        normed = F.layer_norm(x.permute(0, 2, 3, 1).contiguous(), x.shape[1:2], eps=self.eps)
        mixed = F.linear(normed, self.qkv_weight, self.qkv_bias).unflatten(3, (3, self.heads, -1))
        query, key, value = mixed.permute(3, 0, 4, 2, 1, 5).contiguous().unbind(0)
        return torch.matmul(torch.addcmul(self.relation, self.attend(query, key, x), self.strength), value)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, V, T) -> (B, C_out, V, T)."""
        if not torch.compiler.is_compiling() and x.shape[0] == 1:  # a body alone: products with less copying
            found = torch.cat([self.values(part)[0] for part in x.split(CACHED, dim=3)], dim=1)
            y = found.permute(0, 3, 2, 1).reshape(*self.mix_weight.shape[::2], -1)  # (groups, channels of one, V * T)
            y = torch.baddbmm(self.mix_bias[..., None], self.mix_weight, y).view(1, -1, *x.shape[2:])
        else:  # as a convolution, so that a tracer sees that the numbers of frames agree
            y = self.values(x).permute(0, 1, 4, 3, 2).flatten(1, 2)
            weight = self.mix_weight.flatten(0, 1)[..., None, None]
            y = F.conv2d(y, weight, self.mix_bias.flatten(), groups=len(self.mix_weight))
        if self.has_shortcut:
            return y + F.linear(x.permute(0, 2, 3, 1), self.shortcut).permute(0, 3, 1, 2)
        return y + x
