"""Transformer blocks that normalise before each branch, as in ViT (Dosovitskiy et al., ICLR 2021)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class StochasticDepth(nn.Module):
    """Leave a residual branch out of a random share of the sequences of a batch (Huang et al., ECCV 2016).

    Args:
        probability: of leaving it out, in training. The branches that stay are scaled up, so that the mean is kept.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        """(B, …) -> (B, …)."""
        if not self.training or not self.probability:
            return x
        keep = 1.0 - self.probability
        return x * (x.new_empty(len(x), *[1] * (x.dim() - 1)).bernoulli_(keep) / keep)


class Attention(nn.Module):
    """Attention with several heads, of each token to all tokens of its sequence.

    Args:
        width: D, a multiple of ``heads``.
        heads: each works on D / heads channels.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, D) -> (B, L, D)."""
        query, key, value = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        found = F.scaled_dot_product_attention(query, key, value)
        return self.project(found.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention, then two dense layers, each behind a layer norm and around a residual.

    Args:
        width: D.
        heads: of the attention.
        expansion: the hidden layer has ``expansion`` * D channels, rounded down.
        drop_path: probability of leaving a branch out in training, see :class:`StochasticDepth`.
    """

    def __init__(self, width: int, heads: int, expansion: float, drop_path: float = 0.0) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        hidden = int(expansion * width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
        self.drop_path = StochasticDepth(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, D) -> (B, L, D)."""
        x = x + self.drop_path(self.attention(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


def init_dense(module: nn.Module) -> None:
    """Xavier's uniform weights and zero biases for every dense layer below ``module``, as MAMP starts."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
