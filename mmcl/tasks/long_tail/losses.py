"""Cross-entropy for classes of uneven size: balanced softmax, which is logit adjustment with the classes' counts.

Ren et al., "Balanced Meta-Softmax", NeurIPS 2020; Menon et al., "Long-tail learning via logit adjustment", ICLR 2021.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def log_prior(counts: Tensor) -> Tensor:
    """(K,) logarithm of each class's share of the training clips; (K,) counts, at least 1 each."""
    counts = counts.to(torch.get_default_dtype())
    return (counts / counts.sum()).log()


def soft_labels(labels: Tensor, other: Tensor, share: float | Tensor, classes: int) -> Tensor:
    """Labels of mixed clips.

    Args:
        labels: (N,) classes of the clips.
        other: (N,) classes of their partners.
        share: weight of the partner's class, of all clips or (N,) of each.
        classes: K.

    Returns:
        (N, K), rows that sum to 1.
    """
    own, theirs = (F.one_hot(some, classes).to(torch.get_default_dtype()) for some in (labels, other))
    part = torch.as_tensor(share, device=labels.device, dtype=own.dtype).view(-1, 1)
    return (1 - part) * own + part * theirs


def balanced_cross_entropy(scores: Tensor, labels: Tensor, prior: Tensor | float = 0.0) -> Tensor:
    """Cross-entropy of scores that are raised by the logarithm of the classes' shares, while training only.

    Args:
        scores: (N, K).
        labels: (N,) classes, or (N, K) soft labels.
        prior: (K,) from :func:`log_prior`; 0 is the plain cross-entropy.
    """
    return F.cross_entropy(scores + prior, labels)
