"""Whether probabilities can be believed: expected calibration error and negative log-likelihood."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BINS = 15


@dataclass(frozen=True)
class Calibration:
    """How often answers given with some confidence are right.

    Attributes:
        ece: expected calibration error: the mean over clips of |accuracy - mean confidence| of the clip's bin.
        nll: mean negative log-probability of the true class, in nats.
        edges: (bins + 1,) ends of the bins, from 0 to 1.
        counts: (bins,) clips in each.
        confidence: (bins,) their mean confidence; NaN in empty bins.
        accuracy: (bins,) share of them answered right; NaN in empty bins.
    """

    ece: float
    nll: float
    edges: np.ndarray
    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray


def calibration(scores: np.ndarray, labels: np.ndarray, bins: int = BINS) -> Calibration:
    """Calibration of the answers, the largest softmax probability counting as confidence.

    Bins are of equal width and closed on the right, as in C. Guo et al., On Calibration of Modern Neural Networks
    (ICML 2017).

    Args:
        scores: (n, K) unnormalised scores, whose softmax is judged.
        labels: (n,) in [0, K).
        bins: how many.
    """
    from scipy.special import log_softmax

    logs = log_softmax(scores.astype(np.float64), axis=1)
    confidence, right = np.exp(logs.max(axis=1)), scores.argmax(axis=1) == labels
    edges = np.linspace(0, 1, bins + 1)
    bin_of = np.searchsorted(edges[1:-1], confidence, side="left")
    counts = np.bincount(bin_of, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean_confidence = np.bincount(bin_of, confidence, minlength=bins) / counts
        accuracy = np.bincount(bin_of, right, minlength=bins) / counts
    gaps = np.abs(np.nan_to_num(accuracy) - np.nan_to_num(mean_confidence))
    return Calibration(
        ece=float((counts * gaps).sum() / counts.sum()), nll=float(-logs[np.arange(len(labels)), labels].mean()),
        edges=edges, counts=counts, confidence=mean_confidence, accuracy=accuracy,
    )  # fmt: skip
