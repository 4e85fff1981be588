"""Hyperformer's spatial attention: joints attend to joints, and know their distance and their hyperedge.

Four terms make the attention of joint i to joint j in one head: what both hold (q_i · k_j), how far they are apart
(q_i · r[hops(i, j)]), what the hyperedge of j holds (q_i · e[part(j)]), and how much that hyperedge matters to
everybody (u · e[part(j)]). The output is (alpha * softmax + B) v, where B is a matrix of its own for each head and
alpha starts at zero, so that a fresh network passes joints on.

As in the released code, the hyperedges' features come from the input as it is, the layer norm acts on queries, keys and
values only. The two terms with q and e, and q and k, are one product here: q_i · (k_j + e[part(j)]).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from mmcl.encoders.hyperformer.hypergraph import membership


class SpatialAttention(nn.Module):
    """Attention over the joints of a frame, with a skip connection. Tensors are (B, C, V, T), B = N * M.

    Args:
        channels_in: C_in.
        channels_out: C_out, a multiple of ``heads`` and ``groups``.
        heads: h.
        groups: of the projection that ends it.
        hops: (V, V) int64 distances of joints.
        labels: the hyperedge of each joint.
    """

    hops: Tensor
    members: Tensor

    def __init__(
        self, channels_in: int, channels_out: int, heads: int, groups: int, hops: np.ndarray, labels: Sequence[int]
    ) -> None:
        super().__init__()
        joints, width = len(labels), channels_out // heads
        self.heads, self.scale = heads, width**-0.5
        self.norm = nn.LayerNorm(channels_in)
        self.query = nn.Linear(channels_in, channels_out, bias=False)
        self.key_value = nn.Linear(channels_in, 2 * channels_out, bias=False)
        self.hyperedge = nn.Linear(channels_in, channels_out, bias=False)
        self.distance = nn.Parameter(torch.zeros(int(hops.max()) + 1, channels_out))
        self.importance = nn.Parameter(torch.zeros(heads, width))
        self.relation = nn.Parameter(torch.eye(joints).repeat(heads, 1, 1))
        self.strength = nn.Parameter(torch.zeros(1))
        self.mix = nn.Conv2d(channels_out, channels_out, 1, groups=groups)
        self.shortcut: nn.Module = nn.Identity()
        if channels_in != channels_out:
            self.shortcut = nn.Linear(channels_in, channels_out, bias=False)
        self.register_buffer("hops", torch.as_tensor(hops), persistent=False)
        self.register_buffer("members", membership(labels), persistent=False)

    def split(self, x: Tensor) -> Tensor:
        """(B, J, T, C_out) -> (B, h, T, J, d), for any number J of joints or hyperedges."""
        return x.unflatten(3, (self.heads, -1)).permute(0, 3, 2, 1, 4)

    def means(self) -> Tensor:
        """(P, V): row p takes the mean over the joints of hyperedge p, in the precision of the network."""
        return (self.members / self.members.sum(dim=0)).T

    def edges(self, x: Tensor) -> Tensor:
        """(B, C_in, V, T) -> (B, P, T, C_out), the features of the hyperedges."""
        return self.hyperedge(torch.matmul(self.means(), x).permute(0, 2, 3, 1))

    def attend(self, query: Tensor, key: Tensor, edges: Tensor) -> Tensor:
        """Attention (B, h, T, V, V), rows sum to 1, of (B, V, T, C_out) twice and (B, P, T, C_out)."""
        query, edges = self.split(query), self.split(edges)
        distance = self.distance[self.hops].unflatten(2, (self.heads, -1))  # (V, V, h, d)
        logits = torch.einsum("bhtic,ijhc->bhtij", query, distance)
        logits = logits + torch.matmul(query, (self.split(key) + torch.matmul(self.members, edges)).transpose(3, 4))
        importance = torch.matmul(edges, self.importance[:, None, :, None])  # (B, h, T, P, 1)
        logits = logits + torch.matmul(self.members, importance).transpose(3, 4)
        return torch.softmax(logits * self.scale, dim=-1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, V, T) -> (B, C_out, V, T)."""
        # The number of frames is the last of the outer axes: a tracer of any number of frames needs it there.
        frames = x.permute(0, 2, 3, 1)
        normed = self.norm(frames)
        key, value = self.key_value(normed).chunk(2, dim=-1)
        attention = self.attend(self.query(normed), key, self.edges(x))
        y = torch.matmul(self.strength * attention + self.relation.unsqueeze(1), self.split(value))
        y = self.mix(y.permute(0, 1, 4, 3, 2).flatten(1, 2))
        return y + (self.shortcut(frames).permute(0, 3, 1, 2) if isinstance(self.shortcut, nn.Linear) else x)
