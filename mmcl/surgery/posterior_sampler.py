"""How posterior heads are trained: adaptive stochastic-gradient HMC on cached scores, and the dual Bayesian stage."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mmcl.surgery.posterior import PosteriorHeads

Noise = Callable[[int], Tensor]  # (P,) -> (inner, P) standard normal numbers for the next step
TAU, FRICTION, FIRST_VARIANCE = 2.0, 0.05, 1e-5  # window of the gradients' variance, share of the momentum that is lost
RELEASED_FRICTION = 1.0


@dataclass(frozen=True)
class SamplerOptions:
    """Options of the sampler.

    Attributes:
        rate: step size.
        inner: updates on a batch.
        temperature: of the noise.
        radius: how far weights are moved against the loss in the dual stage.
        sharpness: weight of the curvature in the dual stage; 0 for none of it.
        released: as the released code: momentum and variance begin anew in each update, the gradient is computed once a
            batch, and moments of all heads share a counter.
    """

    rate: float = 2e-3
    inner: int = 30
    temperature: float = 1e-5
    radius: float = 0.1
    sharpness: float = 1e-3
    released: bool = False


def gradient(heads: PosteriorHeads, weights: Tensor, scores: Tensor, labels: Tensor) -> Tensor:
    """(P,) gradient of the cross-entropy of one head with weights (P,), on scores (N, K) of the surrogate."""
    leaf = weights.detach().requires_grad_(True)
    with torch.enable_grad():
        (found,) = torch.autograd.grad(F.cross_entropy(heads.each(scores, leaf[None])[0], labels), leaf)
    return found


def dual_gradient(
    heads: PosteriorHeads, weights: Tensor, scores: Tensor, labels: Tensor, options: SamplerOptions
) -> Tensor:
    """(P,) gradient that goes where the loss is low and flat.

    It is g + sharpness * H g / |g| by a finite difference: the gradient of the loss plus sharpness times the norm of
    its own gradient.
    """
    plain = gradient(heads, weights, scores, labels)
    if not options.sharpness:
        return plain
    away = weights + options.radius * plain / plain.norm().clamp(min=torch.finfo(plain.dtype).tiny)
    beyond = gradient(heads, away, scores, labels)
    return plain + options.sharpness / options.radius * (beyond - plain)


class Sampler:
    """Moves one head's weights (P,) by adaptive stochastic-gradient Hamiltonian Monte Carlo.

    Springenberg, Klein, Falkner, Hutter, NeurIPS 2016, equation 9, with the friction as a share of the momentum that
    each update loses. Under ``released`` it is what the released optimiser does to a tensor.
    """

    def __init__(self, options: SamplerOptions) -> None:
        self.options = options
        self.momentum = self.variance = torch.zeros(0)

    def step(self, weights: Tensor, slope: Callable[[Tensor], Tensor], noise: Tensor) -> Tensor:
        """New weights after the inner updates on one batch.

        Args:
            weights: (P,).
            slope: gradient at some weights.
            noise: (inner, P) standard normal.
        """
        if self.options.released:
            return released_step(weights, slope(weights), noise, self.options)
        rate = self.options.rate
        if not len(self.momentum):
            self.momentum, self.variance = torch.zeros_like(weights), torch.full_like(weights, FIRST_VARIANCE)
        for row in noise:
            grad = slope(weights)
            self.variance = self.variance + (grad.square() - self.variance) / TAU
            inverse = (self.variance + FIRST_VARIANCE**2).rsqrt()
            spread = (2 * self.options.temperature * FRICTION * rate**2 * inverse).sqrt()
            self.momentum = (1 - FRICTION) * self.momentum - rate**2 * inverse * grad + spread * row
            weights = weights + self.momentum
        return weights


def released_step(weights: Tensor, grad: Tensor, noise: Tensor, options: SamplerOptions) -> Tensor:
    """The released optimiser's step: each inner update begins with no momentum and repeats the same gradient."""
    rate, friction = options.rate, RELEASED_FRICTION
    variance = FIRST_VARIANCE + (grad.square() - FIRST_VARIANCE) / TAU
    inverse = variance.rsqrt()
    spread = options.temperature * (2 * rate**3 * inverse * friction * inverse - rate**4)
    return weights + (spread * noise - rate**2 * inverse * grad).sum(dim=0)


@dataclass(frozen=True)
class Moments:
    """Running mean and mean square of heads' weights, both (H, P), and how often each was updated."""

    mean: Tensor
    square: Tensor
    counts: list[int]
    released: bool

    @classmethod
    def begin(cls, heads: PosteriorHeads) -> Moments:
        """From the heads as they are. Under ``released`` the squares begin with the weights themselves."""
        weights = heads.weights.detach()
        square = weights.clone() if heads.released else weights.square()
        return cls(weights.clone(), square, [0] * heads.heads, heads.released)

    def add(self, head: int, weights: Tensor) -> None:
        """One more snapshot (P,) of a head. Under ``released`` all heads are counted together."""
        seen = sum(self.counts) if self.released else self.counts[head]
        for rows, new in ((self.mean, weights), (self.square, weights.square())):
            rows[head] = (rows[head] * seen + new) / (seen + 1)
        self.counts[head] += 1


def epoch_batches(clips: int, batch: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Places of clips in a random order, in batches."""
    yield from torch.randperm(clips, generator=generator).split(batch)


def train_heads(
    heads: PosteriorHeads, scores: Tensor, labels: Tensor, options: SamplerOptions, epochs: tuple[int, int],
    snapshots: int, batch: int, seed: int,
) -> None:  # fmt: skip
    """Train the heads, then collect the moments of their weights; the heads are changed in place.

    Args:
        heads: fresh.
        scores: (n, K) of the frozen surrogate on the training clips.
        labels: (n,).
        options: of the sampler.
        epochs: of plain cross-entropy, and of the dual stage.
        snapshots: about how many of each head the moments are taken over.
        batch: clips of a step.
        seed: of orders and noise.
    """
    generator = torch.Generator().manual_seed(seed)
    interval = max(1, epochs[1] * -(-len(scores) // batch) // max(1, snapshots))
    rows = [heads.weights[head].detach().clone() for head in range(heads.heads)]
    samplers = [Sampler(options) for _ in rows]

    def run(head: int, chosen: Tensor, slope: Callable[..., Tensor]) -> None:
        noise = torch.randn(options.inner, len(rows[head]), generator=generator).to(scores)
        chosen = chosen.to(scores.device)
        rows[head] = samplers[head].step(rows[head], lambda at: slope(heads, at, scores[chosen], labels[chosen]), noise)

    for head in range(heads.heads):
        for _ in range(epochs[0]):
            for chosen in epoch_batches(len(scores), batch, generator):
                run(head, chosen, gradient)
    with torch.no_grad():
        heads.weights.copy_(torch.stack(rows))

    def dual(heads: PosteriorHeads, at: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return dual_gradient(heads, at, x, y, options)

    moments, done = Moments.begin(heads), [0] * heads.heads
    for _ in range(epochs[1]):
        for head in range(heads.heads):
            for chosen in epoch_batches(len(scores), batch, generator):
                run(head, chosen, dual)
                if done[head] % interval == 0:
                    moments.add(head, rows[head])
                done[head] += 1
    with torch.no_grad():
        heads.weights.copy_(torch.stack(rows))
        heads.mean.copy_(moments.mean)
        heads.square.copy_(moments.square)
