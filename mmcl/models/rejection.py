"""When a classifier is to say "none of these": that a clip shows no class that it knows.

Two scores can tell. The largest probability of a clip (maximum softmax probability: Hendrycks and Gimpel, A Baseline
for Detecting Misclassified and Out-of-Distribution Examples, ICLR 2017), and its familiarity, see
:mod:`mmcl.models.familiarity`. The threshold is set on clips that were held out of training, so that of those answered
right, hardly any are rejected. Clips of unknown classes play no part in it, and test clips neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mmcl.common.errors import UserError
from mmcl.common.options import fill

FEWEST = 20  # clips that are answered right, below which a threshold means nothing
SHARE = 0.005  # of such clips that may be rejected
TAIL, ENOUGH = 0.1, 10  # share of the clips that a tail is fitted to; so many below a threshold need none
PROBABILITY, FAMILIARITY = "probability", "familiarity"
LEAST = {PROBABILITY: 0.0, FAMILIARITY: -1.0}  # score -> its smallest value; the largest is 1


@dataclass(frozen=True)
class Rejection:
    """A threshold, and what it was set on.

    Attributes:
        threshold: score below which an answer is none of the classes.
        share: of the clips that were answered right, which may be rejected.
        clips: how many were answered right.
        side: protocol and side that they are from.
        weights: digest of the network's weights, whose threshold this is.
        score: that it is of, a key of :data:`LEAST`.
    """

    threshold: float
    share: float
    clips: int
    side: str
    weights: str
    score: str = PROBABILITY

    def __post_init__(self) -> None:
        if self.score not in LEAST:
            raise UserError(f"a rejection by '{self.score:.40}': it goes by {' or '.join(LEAST)}")
        if not (LEAST[self.score] <= self.threshold <= 1 and 0 <= self.share < 1 and self.clips >= 1):
            raise UserError(f"a rejection of threshold {self.threshold}, share {self.share} and {self.clips} clips")

    def __call__(self, probability: float, familiarity: float | None = None) -> bool:
        """Whether an answer of that probability, to a clip that familiar, is to be taken for none of the classes.

        Raises:
            UserError: it goes by familiarity, and nothing says it.
        """
        if self.score == FAMILIARITY and familiarity is None:
            raise UserError(
                "the bundle rejects by familiarity, which this graph does not give: export it again, or --no-reject"
            )
        return (probability if familiarity is None or self.score == PROBABILITY else familiarity) < self.threshold

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
    values: np.ndarray, right: np.ndarray, side: str, weights: str, share: float = SHARE, score: str = PROBABILITY
) -> Rejection:  # fmt: skip
    """Set the threshold.

    Args:
        values: (n,) scores of clips that the network did not learn from.
        right: (n,) bool, which of them are answered right.
        side: protocol and side that they are from.
        weights: digest of the network's weights.
        share: of clips like those answered right that may be rejected; 0 rejects none of these themselves.
        score: what the values are.

    Raises:
        UserError: too few clips are answered right.
    """
    if not 0 <= share < 1:
        raise UserError(f"the share of right answers that may be rejected is {share:g}: it must be from 0 to below 1")
    known = np.sort(values[right])
    if len(known) < FEWEST:
        raise UserError(f"{len(known)} clips of {side} are answered right: a threshold needs {FEWEST} or more")
    threshold = max(_quantile(known, share), LEAST[score])
    return Rejection(threshold, share, len(known), side, weights, score)


def _quantile(values: np.ndarray, share: float) -> float:
    """The number below which a share of what is like the values, (n,) ascending, lies.

    Where few of the values themselves would lie below, their smallest ones say little: of 88 clips, the smallest is one
    below which one in 89 others lies, give or take as much. An exponential tail through the lowest tenth goes on where
    they end (a generalised Pareto tail of shape 0: Pickands, Annals of Statistics 1975).
    """
    n = len(values)
    low = max(2, int(np.ceil(TAIL * n)))
    if share == 0 or share * n >= min(ENOUGH, low):
        return float(values[int(np.floor(share * n))])
    beyond = float(np.mean(values[low] - values[:low]))
    return float(values[low] - beyond * np.log(low / n / share))
