"""Two variational autoencoders that meet in the meaning r of a skeleton and of a text, and what they pay.

A skeleton's feature becomes r, which texts share, and v, the way in which somebody does it, which they do not. Encoders
are those of :class:`~mmcl.models.vae_head.VAEHead`; decoders are needed in training only.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcl.models.gaussian import Gaussian, dense
from mmcl.models.vae_head import VAEHead


class Noise(NamedTuple):
    """Standard normal numbers for a batch of clips: (N, Z) each, or (N, 1) as released."""

    meaning: Tensor
    manner: Tensor
    text: Tensor


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


class Decoders(nn.Module):
    """From latent numbers back to what a text head reads.

    Args:
        head: whose encoders they belong to.

    Attributes:
        skeleton: (N, Z + Z') meaning and manner side by side -> (N, Df).
        text: (N, Z) -> (N, D).
    """

    def __init__(self, head: VAEHead) -> None:
        super().__init__()
        options = head.options
        self.skeleton = nn.Sequential(dense(options.meaning + options.manner, head.features))
        self.text = nn.Sequential(dense(options.meaning, head.width))
        # Text rows are signed, and so are features of networks that end in a layer norm: a ReLU never reaches them.
        if options.released:
            self.skeleton.append(nn.ReLU())
            self.text.append(nn.ReLU())

    def forward(self, meaning: Tensor, manner: Tensor) -> Tensor:
        """(N, Z) and (N, Z') -> (N, Df), features over the head's scale."""
        found: Tensor = self.skeleton(torch.cat([meaning, manner], dim=1))
        return found


def vae_terms(
    head: VAEHead, decoders: Decoders, features: Tensor, texts: Tensor, noise: Noise
) -> tuple[Terms, Latents]:
    """Terms of the loss for a batch of clips.

    Args:
        head: the encoders.
        decoders: that belong to them.
        features: (N, Df) of skeletons.
        texts: (N, D) rows of the clips' classes, of length 1.
        noise: for the samples.

    Returns:
        The terms, and the distributions and samples that a critic judges.
    """
    meaning, manner = head.read(features)
    text = head.text_encoder(texts)
    scaled = features / head.scale
    r, v, y = meaning.sample(noise.meaning), manner.sample(noise.manner), text.sample(noise.text)
    terms = Terms(
        skeleton=F.mse_loss(decoders(r, v), scaled),
        text=F.mse_loss(decoders.text(y), texts),
        skeleton_divergence=meaning.divergence() + manner.divergence(),
        text_divergence=text.divergence(),
        crossed=F.mse_loss(decoders(y, v), scaled) + F.mse_loss(decoders.text(r), texts),
    )
    return terms, Latents(meaning, manner, text, r, v)
