"""SA-DVAE's classifier of classes that are known by text: a dense layer, fitted on samples of what the texts mean."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcl.models.gaussian import TwoHeads, dense

REPEATS, STEPS, RATE = 500, 300, 1e-3


class UnseenClassifier(nn.Module):
    """Scores of classes for a meaning.

    Args:
        meaning: latent numbers.
        classes: U.
        released: let no score be negative, as the released code does; a class whose scores are all 0 then stops
            learning.
    """

    def __init__(self, meaning: int, classes: int, released: bool = False) -> None:
        super().__init__()
        self.dense = dense(meaning, classes)
        self.released = released

    def forward(self, meaning: Tensor) -> Tensor:
        """(N, Z) -> (N, U); clips are judged by the mean of their meaning, without a sample."""
        scores = self.dense(meaning)
        return scores.relu() if self.released else scores


def fit_unseen_classifier(
    classifier: UnseenClassifier, text_encoder: TwoHeads, texts: Tensor, noise: Tensor, steps: int = STEPS,
    rate: float = RATE,
) -> None:  # fmt: skip
    """Fit by cross-entropy on samples of texts' meanings, all of them in every step of Adam.

    Args:
        classifier: changed in place.
        text_encoder: reads the texts.
        texts: (U, E) a row for each class.
        noise: (repeats * U, Z), or (…, 1) as released; standard normal. Its rows go through the classes in turn.
        steps: of Adam.
        rate: of Adam.
    """
    repeats = len(noise) // len(texts)
    with torch.inference_mode(False):
        with torch.no_grad():
            samples = text_encoder(texts.clone().repeat(repeats, 1)).sample(noise)
        labels = torch.arange(len(texts), device=texts.device).repeat(repeats)
        optimiser = torch.optim.Adam(classifier.parameters(), lr=rate)
        with torch.enable_grad():
            for _ in range(steps):
                optimiser.zero_grad()
                F.cross_entropy(classifier(samples), labels).backward()
                optimiser.step()
