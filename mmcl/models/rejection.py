"""When a classifier is to say "none of these": that a clip shows no class that it knows.

The score is the largest probability of a clip (maximum softmax probability: Hendrycks and Gimpel, A Baseline for
Detecting Misclassified and Out-of-Distribution Examples, ICLR 2017). The threshold is set on clips that were held out
of training, so that of those answered right, hardly any are rejected. Clips of unknown classes play no part in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mmcl.common.errors import UserError
from mmcl.common.options import fill

FEWEST = 20  # clips that are answered right, below which a threshold means nothing
SHARE = 0.01  # of these that may be rejected


@dataclass(frozen=True)
class Rejection:
    """A threshold, and what it was set on.

    Attributes:
        threshold: probability below which an answer is none of the classes.
        share: of the clips that were answered right, which may be rejected.
        clips: how many were answered right.
        side: protocol and side that they are from.
        weights: digest of the network's weights, whose threshold this is.
    """

    threshold: float
    share: float
    clips: int
    side: str
    weights: str

    def __post_init__(self) -> None:
        if not (0 <= self.threshold <= 1 and 0 <= self.share < 1 and self.clips >= 1):
            raise UserError(f"a rejection of threshold {self.threshold}, share {self.share} and {self.clips} clips")

    def __call__(self, probability: float) -> bool:
        """Whether an answer of that probability is to be taken for none of the classes."""
        return probability < self.threshold

    def to_json(self) -> dict[str, Any]:
        """As a bundle's description holds it."""
        return asdict(self)


def read_rejection(facts: Mapping[str, Any] | None, where: str) -> Rejection | None:
    """What a description holds, checked; None where it holds nothing.

    Raises:
        UserError: it is damaged.
    """
    return None if facts is None else fill(f"{where} rejection", facts, Rejection)


def fit_rejection(
    probabilities: np.ndarray, labels: np.ndarray, side: str, weights: str, share: float = SHARE
) -> Rejection:
    """Set the threshold.

    Args:
        probabilities: (n, K) of clips that the network did not learn from.
        labels: (n,) their classes.
        side: protocol and side that they are from.
        weights: digest of the network's weights.
        share: of the clips answered right that may be rejected.

    Raises:
        UserError: too few clips are answered right.
    """
    if not 0 <= share < 1:
        raise UserError(f"the share of right answers that may be rejected is {share:g}: it must be from 0 to below 1")
    right = np.sort(probabilities.max(axis=1)[probabilities.argmax(axis=1) == labels])
    if len(right) < FEWEST:
        raise UserError(f"{len(right)} clips of {side} are answered right: a threshold needs {FEWEST} or more")
    lost = int(np.floor(share * len(right)))  # so many lie below, and no more
    return Rejection(float(right[lost]), share, len(right), side, weights)
