"""How ShapGCN turns SHAP tensors into a ranking of joints (``src/xai`` of DeepInMotion/ShapGCN)."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

FRAMES = 150  # of NTU's 300, the others being left out to save memory


def released_shares(shares: Tensor) -> Tensor:
    """(N, M, W, V, C) -> (N, 1, V): first body, first frames, mean over these, sum over channels."""
    return shares[:, 0, :FRAMES].mean(dim=1, keepdim=True).sum(dim=-1)


def part_scores(scores: Tensor, parts: Collection[Sequence[int]]) -> Tensor:
    """(N, V) -> (N, P), the mean over the joints of each part, as ``layout.parts.values()`` lists them.

    A mean makes large and small parts alike. Pictures and reports have sums, since shares are parts of one score.
    """
    return torch.stack([scores[:, list(joints)].mean(dim=1) for joints in parts], dim=1)


def joint_sets(scores: Tensor, count: int, important: bool = True) -> list[list[int]]:
    """Of each clip the joints that speak most for its class, or most against it: never more than ``count``.

    Args:
        scores: (N, V).
        count: k.
        important: the first k with scores above 0; otherwise the last k with scores below 0.

    Returns:
        N lists of joints, in descending order of their scores. Fewer than k where fewer have that sign.
    """
    order = (-scores).argsort(dim=1, stable=True)
    chosen, sign = (order[:, :count], 1) if important else (order[:, max(order.shape[1] - count, 0) :], -1)
    return [
        [int(joint) for joint in row if sign * float(score[joint]) > 0]
        for row, score in zip(chosen, scores, strict=True)
    ]
