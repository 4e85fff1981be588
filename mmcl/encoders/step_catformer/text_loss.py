"""Features meet texts: both ways, each row is pulled to the rows of its class, as STEP-CATFormer is trained.

The texts of a batch are those of its clips' classes, one a clip, so that several may be of the same class. Cosines,
times a scale, are compared with a target that softens "same class or not" (as in ActionCLIP's KL loss). The scale is
learned as a logarithm; the released code forgets to raise it, so that cosines are multiplied with 2.66, not with 14.3.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

SHARPNESS = 10.0  # of the target: softmax of 10 for the same class and 0 for others


def text_logits(features: Tensor, texts: Tensor, scale: Tensor, released: bool = False) -> Tensor:
    """(B, E) twice and the logarithm of a scale -> (B, B) scaled cosines; ``released`` takes the logarithm as scale."""
    scale = scale if released else scale.exp()
    return scale * F.normalize(features, dim=1) @ F.normalize(texts, dim=1).T


def text_loss(features: Tensor, texts: Tensor, labels: Tensor, scale: Tensor, released: bool = False) -> Tensor:
    """Mean over both directions of the KL divergence from targets to softmaxed cosines, summed over a row.

    Args:
        features: (B, E) of clips, one of ``outputs(x)["text_features"]``.
        texts: (B, E) of a text of each clip's class.
        labels: (B,).
        scale: one of ``outputs(x)["text_scales"]``.
        released: multiply cosines with ``scale`` itself.
    """
    logits = text_logits(features, texts, scale, released)
    target = torch.softmax(SHARPNESS * (labels[:, None] == labels).to(logits.dtype), dim=1)
    both = [F.kl_div(rows.log_softmax(dim=1), target, reduction="batchmean") for rows in (logits, logits.T)]
    return torch.stack(both).mean()
