"""Normal distributions that a dense layer speaks of: the latent side of a variational autoencoder."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

GAIN = 0.5  # of Xavier's uniform initialisation, as SA-DVAE starts its layers


class Gaussian(NamedTuple):
    """Independent normal distributions, one for each latent number of each clip.

    Attributes:
        mean: (N, Z).
        log_variance: (N, Z).
    """

    mean: Tensor
    log_variance: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """(N, Z) for standard normal noise (N, Z); (N, 1) uses one number for all of a clip, as the released code."""
        return self.mean + noise * (0.5 * self.log_variance).exp()

    def divergence(self) -> Tensor:
        """Kullback-Leibler divergence to the standard normal distribution, summed over Z, averaged over clips."""
        square = self.mean.square() + self.log_variance.exp() - 1.0 - self.log_variance
        return 0.5 * square.sum() / len(self.mean)


class TwoHeads(nn.Module):
    """Mean and log-variance, a dense layer each.

    Args:
        width: of the features that come in.
        latent: Z.
    """

    def __init__(self, width: int, latent: int) -> None:
        super().__init__()
        self.mean, self.log_variance = dense(width, latent), dense(width, latent)

    def forward(self, x: Tensor) -> Gaussian:
        """(N, D) -> distributions of (N, Z)."""
        return Gaussian(self.mean(x), self.log_variance(x))


def dense(width_in: int, width_out: int) -> nn.Linear:
    """A dense layer as SA-DVAE starts it."""
    layer = nn.Linear(width_in, width_out)
    nn.init.xavier_uniform_(layer.weight, gain=GAIN)
    nn.init.zeros_(layer.bias)
    return layer
