"""Which tokens of a sequence are kept, for encoders that see a part of them and decoders that predict the rest."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Mask(NamedTuple):
    """Which tokens are kept.

    Attributes:
        kept: (B, L') places of the kept tokens.
        restore: (B, L) for each token its place among the kept ones followed by the masked ones.
        masked: (B, L) True where a token is masked.
    """

    kept: Tensor
    restore: Tensor
    masked: Tensor

    def take(self, tokens: Tensor, axis: int = 1) -> Tensor:
        """The kept ones of tokens (B, …) whose ``axis`` has length L; there, the result has L'."""
        rows, kept = self.kept.shape
        index = self.kept.view(rows, *(kept if dim == axis else 1 for dim in range(1, tokens.dim())))
        return tokens.take_along_dim(index, dim=axis)


def kept_count(tokens: int, ratio: float, released: bool = False) -> int:
    """How many of ``tokens`` stay when the share ``ratio`` is masked: tokens * (1 - ratio), rounded down.

    Args:
        tokens: L.
        ratio: in [0, 1).
        released: let the rounding error of 1 - ratio count, as the released codes do: 74 of 750 at 0.9 instead of 75.
    """
    share = tokens * (1 - ratio)
    return int(share) if released else math.floor(round(share, 6))


def mask_by_score(scores: Tensor, kept: int, in_order: bool = False) -> Mask:
    """Keep the ``kept`` tokens of lowest score of each sequence.

    Args:
        scores: (B, L).
        kept: L'.
        in_order: keep them in the order of the sequence; otherwise the lowest score comes first.
    """
    order = scores.argsort(dim=1, stable=True)
    if in_order:
        order = torch.cat([order[:, :kept].sort(dim=1).values, order[:, kept:]], dim=1)
    restore = order.argsort(dim=1)
    return Mask(order[:, :kept], restore, restore >= kept)
