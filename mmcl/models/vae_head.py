"""The text head of SA-DVAE (Li et al., ECCV 2024): what a skeleton means, in the space that texts mean things in.

Two encoders of variational autoencoders read a skeleton's feature and a class's text. The part r of a skeleton's latent
numbers is what texts have as well; a linear classifier that was fitted on samples of the texts' meanings judges its
mean. The decoders and the critic are left behind in training (``mmcl/tasks/sa_dvae/``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from mmcl.common.errors import UserError
from mmcl.common.precision import widen
from mmcl.models.gaussian import Gaussian, TwoHeads
from mmcl.models.text_head import TextHead
from mmcl.models.unseen_classifier import REPEATS, STEPS, UnseenClassifier, fit_unseen_classifier

SEED = 5  # of the classifier's start and its samples, so that the same texts always give the same classifier
MOST = 100_000  # of anything that an option counts: a bundle is read that a stranger may have written
SAME = 1e-5  # rows of unit length that differ by less are the same texts


@dataclass(frozen=True)
class VAEOptions:
    """Options of :class:`VAEHead`.

    Attributes:
        meaning: latent numbers that skeletons and texts share.
        manner: latent numbers of the skeleton alone.
        repeats: samples of each text that a classifier is fitted on.
        steps: of Adam, that it is fitted in.
        kept: classes whose classifier is kept: those that were fitted in training.
        released: one random number a sample instead of one for each latent number, and no negative scores.
    """

    meaning: int = 160
    manner: int = 8
    repeats: int = REPEATS
    steps: int = STEPS
    kept: int = 0
    released: bool = False

    def __post_init__(self) -> None:
        for key, least in (("meaning", 1), ("manner", 1), ("repeats", 1), ("steps", 1), ("kept", 0)):
            if not least <= getattr(self, key) <= MOST:
                raise UserError(f"{key} of a VAE text head is {getattr(self, key)}: it must be from {least} to {MOST}")


class VAEHead(TextHead):
    """Encoders of skeletons and of texts, and the way from them to scores of classes.

    Args:
        features: Df.
        width: D.
        options: see :class:`VAEOptions`.

    Attributes:
        skeleton_encoder: (N, Df) -> meaning and manner, side by side.
        text_encoder: (n, D) -> meaning.
        scale: scalar that features are divided by.
        kept_rows: (kept, D) texts of the classes whose classifier is kept.
        kept_classifier: (kept, Z + 1) that classifier, as :meth:`fit` gives it.
    """

    options_type: ClassVar[type] = VAEOptions
    uncompared: ClassVar[tuple[str, ...]] = ("kept",)
    options: VAEOptions
    scale: Tensor
    kept_rows: Tensor
    kept_classifier: Tensor

    def __init__(self, features: int, width: int, options: VAEOptions | None = None) -> None:
        options = options or VAEOptions()
        super().__init__(features, width, options)
        self.skeleton_encoder = TwoHeads(features, options.meaning + options.manner)
        self.text_encoder = TwoHeads(width, options.meaning)
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("kept_rows", torch.zeros(options.kept, width))
        self.register_buffer("kept_classifier", torch.zeros(options.kept, options.meaning + 1))

    def read(self, features: Tensor) -> tuple[Gaussian, Gaussian]:
        """(N, Df) features of skeletons -> distributions of meaning (N, Z) and of manner (N, Z')."""
        both = self.skeleton_encoder(widen(features) / self.scale)
        (mean, manner_mean), (log_variance, manner_log_variance) = (
            part.tensor_split([self.options.meaning], dim=1) for part in both
        )
        return Gaussian(mean, log_variance), Gaussian(manner_mean, manner_log_variance)

    def embed(self, features: Tensor) -> Tensor:
        """(N, Df) -> (N, Z), the mean of the meaning: clips are judged without a sample."""
        return self.read(features)[0].mean

    def fit(self, rows: Tensor) -> Tensor:
        """Fit a linear classifier on samples of the texts' meanings.

        Args:
            rows: (n, D) of unit length.

        Returns:
            (n, Z + 1): weights, and the bias last. For the classes that were fitted in training, what was kept of it.
        """
        kept = self.kept_rows
        if rows.shape == kept.shape and torch.allclose(rows.to(kept), kept, rtol=0, atol=SAME):
            return self.kept_classifier.clone()
        return self.fitted(rows)

    def fitted(self, rows: Tensor) -> Tensor:
        """What :meth:`fit` gives, fitted anew whatever is kept. The global generator is left as it is."""
        options, weight = self.options, self.text_encoder.mean.weight
        rows = rows.to(weight)
        generator = torch.Generator().manual_seed(SEED)
        shape = options.repeats * len(rows), 1 if options.released else options.meaning
        noise = torch.randn(shape, generator=generator, dtype=weight.dtype).to(weight.device)
        with torch.inference_mode(False), torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            classifier = UnseenClassifier(options.meaning, len(rows), options.released).to(weight)
        fit_unseen_classifier(classifier, self.text_encoder, rows, noise, options.steps)
        layer = classifier.dense
        return torch.cat([layer.weight, layer.bias[:, None]], dim=1).detach()

    def keep(self, rows: Tensor) -> None:
        """Fit the classifier of as many classes as are kept, and keep it; (kept, D) of unit length."""
        self.kept_rows.copy_(rows)
        self.kept_classifier.copy_(self.fitted(rows))

    def scores(self, features: Tensor, fitted: Tensor) -> Tensor:
        """(N, Df) features and what :meth:`fit` gave -> (N, n) logits."""
        meaning = self.embed(features)
        fitted = fitted.to(meaning)
        scores = meaning @ fitted[:, :-1].T + fitted[:, -1]
        return scores.relu() if self.options.released else scores
