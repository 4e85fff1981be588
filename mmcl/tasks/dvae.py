"""SA-DVAE (Li et al., ECCV 2024): two variational autoencoders that meet in the meaning r of a skeleton and of a text.

A skeleton's feature becomes r, which texts share, and v, the way in which somebody does it, which they do not. A critic
tells pairs (r, v) from pairs of different clips; what it finds is what r and v still say of each other.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GAIN = 0.5  # of Xavier's uniform initialisation


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


class Noise(NamedTuple):
    """Standard normal numbers for a batch of clips: (N, Z) each, or (N, 1) as released."""

    meaning: Tensor
    manner: Tensor
    text: Tensor


class DisentangledVAEs(nn.Module):
    """Encoders and decoders of skeleton features and of texts.

    Args:
        skeleton: width of a skeleton's feature.
        text: width of a class's text row.
        meaning: latent numbers that skeletons and texts share.
        manner: latent numbers of the skeleton alone.
        released: end both decoders in a ReLU, as the released code does. Text rows are signed, and so are features of
            networks that end in a layer norm: a decoder that ends in a ReLU never reaches them.
    """

    def __init__(self, skeleton: int, text: int, meaning: int, manner: int, released: bool = False) -> None:
        super().__init__()
        self.meaning = meaning
        self.skeleton_encoder = TwoHeads(skeleton, meaning + manner)
        self.skeleton_decoder = nn.Sequential(dense(meaning + manner, skeleton))
        self.text_encoder = TwoHeads(text, meaning)
        self.text_decoder = nn.Sequential(dense(meaning, text))
        if released:
            self.skeleton_decoder.append(nn.ReLU())
            self.text_decoder.append(nn.ReLU())

    def read(self, features: Tensor) -> tuple[Gaussian, Gaussian]:
        """(N, D) features of skeletons -> distributions of meaning and of manner."""
        both = self.skeleton_encoder(features)
        (mean, manner_mean), (log_variance, manner_log_variance) = (
            part.tensor_split([self.meaning], dim=1) for part in both
        )
        return Gaussian(mean, log_variance), Gaussian(manner_mean, manner_log_variance)

    def forward(self, features: Tensor, texts: Tensor, noise: Noise) -> tuple[Terms, Latents]:
        """Terms of the loss for a batch of clips.

        Args:
            features: (N, D) of skeletons.
            texts: (N, E) rows of the clips' classes, of length 1.
            noise: for the samples.

        Returns:
            The terms, and the distributions and samples that a critic judges.
        """
        meaning, manner = self.read(features)
        text = self.text_encoder(texts)
        r, v, y = meaning.sample(noise.meaning), manner.sample(noise.manner), text.sample(noise.text)
        terms = Terms(
            skeleton=F.mse_loss(self.skeleton_decoder(torch.cat([r, v], dim=1)), features),
            text=F.mse_loss(self.text_decoder(y), texts),
            skeleton_divergence=meaning.divergence() + manner.divergence(),
            text_divergence=text.divergence(),
            crossed=F.mse_loss(self.skeleton_decoder(torch.cat([y, v], dim=1)), features)
            + F.mse_loss(self.text_decoder(r), texts),
        )
        return terms, Latents(meaning, manner, text, r, v)


class Terms(NamedTuple):
    """Scalars of a batch; reconstruction errors are means over all numbers.

    Attributes:
        skeleton: reconstruction of features from their own meaning and manner.
        text: reconstruction of text rows.
        skeleton_divergence: of meaning and manner.
        text_divergence: of texts.
        crossed: reconstruction of features from the text's meaning, and of texts from the skeleton's.
    """

    skeleton: Tensor
    text: Tensor
    skeleton_divergence: Tensor
    text_divergence: Tensor
    crossed: Tensor

    def total(self, beta_skeleton: float, beta_text: float, crossing: float) -> Tensor:
        """The VAEs' loss without the critic's part, with the weights of a moment of training."""
        return (
            self.skeleton + self.text + beta_skeleton * self.skeleton_divergence + beta_text * self.text_divergence
            + crossing * self.crossed
        )  # fmt: skip


class Latents(NamedTuple):
    """Distributions of a batch, and the samples (N, Z) of meaning and manner that were reconstructed."""

    meaning: Gaussian
    manner: Gaussian
    text: Gaussian
    r: Tensor
    v: Tensor


class Critic(nn.Module):
    """Probability that meaning and manner belong to one clip.

    Args:
        latent: numbers of both together.
    """

    def __init__(self, latent: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(dense(latent, latent // 4), nn.ReLU(), dense(latent // 4, 1))

    def forward(self, meaning: Tensor, manner: Tensor) -> Tensor:
        """(N, Z) and (N, Z') -> (N, 1) scores; their sigmoid is the probability."""
        return self.layers(torch.cat([meaning, manner], dim=1))


def entanglement(critic: Critic, meaning: Tensor, manner: Tensor) -> Tensor:
    """What the VAEs pay: the critic's mean probability, as released (the paper writes its logarithm)."""
    return critic(meaning, manner).sigmoid().mean()


def critic_loss(critic: Critic, meaning: Tensor, manner: Tensor, orders: Tensor) -> Tensor:
    """What the critic pays on one branch: the mean of its entropies on pairs of one clip and on shuffled pairs.

    The released critic learns from two branches, skeletons' and texts' meanings, each with samples of its own, and
    takes the mean of both. Let nothing flow back into the samples.

    Args:
        critic: which learns.
        meaning: (N, Z).
        manner: (N, Z').
        orders: (2, N) permutations, of the meanings and of the manners; the released code shuffles both.
    """
    true, false = critic(meaning, manner), critic(meaning[orders[0]], manner[orders[1]])
    return 0.5 * (-F.logsigmoid(true).mean() - F.logsigmoid(-false).mean())


def dense(width_in: int, width_out: int) -> nn.Linear:
    """A dense layer as SA-DVAE starts it."""
    layer = nn.Linear(width_in, width_out)
    nn.init.xavier_uniform_(layer.weight, gain=GAIN)
    nn.init.zeros_(layer.bias)
    return layer
