"""The adversary of SA-DVAE: it tells pairs (r, v) of one clip from pairs of different clips.

What it finds is what meaning and manner still say of each other: an estimate of their total correlation.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcl.models.gaussian import dense


class Critic(nn.Module):
    """Probability that meaning and manner belong to one clip.

    Args:
        latent: numbers of both together.
    """

    def __init__(self, latent: int) -> None:
        super().__init__()
        hidden = max(latent // 4, 1)
        self.layers = nn.Sequential(dense(latent, hidden), nn.ReLU(), dense(hidden, 1))

    def forward(self, meaning: Tensor, manner: Tensor) -> Tensor:
        """(N, Z) and (N, Z') -> (N, 1) scores; their sigmoid is the probability."""
        found: Tensor = self.layers(torch.cat([meaning, manner], dim=1))
        return found


def entanglement(scores: Tensor) -> Tensor:
    """What the VAEs pay for (N, 1) scores of their samples: the critic's mean probability, as released.

    The paper writes its logarithm.
    """
    return scores.sigmoid().mean()


def critic_loss(critic: Critic, meaning: Tensor, manner: Tensor, orders: Tensor) -> Tensor:
    """What the critic pays on one branch: the mean of its entropies on pairs of one clip and on shuffled pairs.

    It learns from two branches, skeletons' and texts' meanings, each with samples of its own, and takes the mean of
    both. Let nothing flow back into the samples.

    Args:
        critic: which learns.
        meaning: (N, Z).
        manner: (N, Z').
        orders: (2, N) permutations, of the meanings and of the manners; the released code shuffles both.
    """
    true, false = critic(meaning, manner), critic(meaning[orders[0]], manner[orders[1]])
    return 0.5 * (-F.logsigmoid(true).mean() - F.logsigmoid(-false).mean())
