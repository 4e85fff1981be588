"""Small Bayesian heads on a classifier's scores: the module that a model keeps, and a distribution over its weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

LEAST_VARIANCE = 1e-30
SMALL = 0.1  # of the usual random weights of a fresh head's second layer: it begins close to the surrogate itself


class PosteriorHeads(nn.Module):
    """Heads x + relu(W2 (W1 x + b1) + b2) on scores, all at once; a classifier's last module.

    x is the surrogate's scores above the lowest of the clip, which leaves their softmax as it is; the heads' scores are
    averaged. Under ``released`` x is relu(scores), which has no gradient where all of them are negative, and scores are
    summed.

    Args:
        classes: K.
        heads: H.
        released: see above.

    Attributes:
        weights: (H, P) of every head: W1, b1, W2, b2 flattened, P = 2 (K K + K).
        mean: (H, P) of the weights over the posterior.
        square: (H, P) mean of their squares.
    """

    def __init__(self, classes: int, heads: int, released: bool = False) -> None:
        super().__init__()
        self.classes, self.heads, self.released = classes, heads, released
        fresh = []
        for _ in range(heads):
            first, second = nn.Linear(classes, classes), nn.Linear(classes, classes)
            shrink = 1.0 if released else SMALL
            fresh += [first.weight.flatten(), first.bias, shrink * second.weight.flatten(), second.bias * shrink]
        self.weights = nn.Parameter(torch.cat(fresh).detach().view(heads, -1).clone())
        self.mean: Tensor
        self.square: Tensor
        self.register_buffer("mean", self.weights.detach().clone())
        self.register_buffer("square", self.weights.detach().square())

    def forward(self, scores: Tensor) -> Tensor:
        """(N, K) scores of the surrogate -> (N, K) of the heads together."""
        return self.together(self.each(scores, self.weights))

    def each(self, scores: Tensor, weights: Tensor) -> Tensor:
        """(N, K) scores of the surrogate and (n, P) weights -> (n, N, K), of every set of weights on its own."""
        K = self.classes
        W1, b1, W2, b2 = weights.split([K * K, K, K * K, K], dim=1)
        x = scores.relu() if self.released else scores - scores.amin(dim=-1, keepdim=True)
        hidden = x @ W1.view(-1, K, K).transpose(1, 2) + b1[:, None]
        return x + (hidden @ W2.view(-1, K, K).transpose(1, 2) + b2[:, None]).relu()

    def together(self, scores: Tensor) -> Tensor:
        """(H, N, K) scores of the heads -> (N, K)."""
        return scores.sum(dim=0) if self.released else scores.mean(dim=0)

    def sample(self, noise: Tensor, scale: float) -> Tensor:
        """(H n, P) weights drawn from each head's normal distribution, head by head.

        Args:
            noise: (H n, P) standard normal.
            scale: of the deviation.
        """
        variance = (self.square - self.mean.square()).clamp(min=LEAST_VARIANCE) + LEAST_VARIANCE
        rows = len(noise) // self.heads
        return self.mean.repeat_interleave(rows, 0) + scale * variance.sqrt().repeat_interleave(rows, 0) * noise


def posterior_of(model: nn.Module) -> PosteriorHeads | None:
    """The heads of a model that went through the surgery ``posterior_heads``."""
    return next((module for module in model.modules() if isinstance(module, PosteriorHeads)), None)
