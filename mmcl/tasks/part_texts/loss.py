"""Features meet texts: both ways, each row is pulled to the rows of its class, as STEP-CATFormer is trained.

The texts of a batch are those of its clips' classes, one a clip, so that several may be of the same class. Cosines,
times a scale, are compared with a target that softens "same class or not" (as in ActionCLIP's KL loss). The scale is
learned as a logarithm; the released code forgets to raise it, so that cosines are multiplied with 2.66, not with 14.3.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from mmcl.common.distributed import gather_rows
from mmcl.common.precision import widen

SHARPNESS = 10.0  # of the target: softmax of 10 for the same class and 0 for others


def text_losses(features: Tensor, texts: Tensor, labels: Tensor, scales: Tensor, released: bool = False) -> Tensor:
    """(P,) of each part: mean over both directions of the KL divergence from targets to softmaxed cosines.

    Rows are compared with those of all processes; the mean over processes is the loss of the whole batch.

    Args:
        features: (n, P, E) of this process's clips, ``outputs(x)["text_features"]`` of an encoder.
        texts: (n, P, E) of each clip's class.
        labels: (n,).
        scales: (P,) logarithms of what cosines are multiplied with, ``outputs(x)["text_scales"]``.
        released: multiply cosines with the logarithm itself.
    """
    with torch.autocast(features.device.type, enabled=False):  # cosines are multiplied with a large scale
        features, texts = F.normalize(widen(features), dim=2), F.normalize(widen(texts), dim=2)
        every_feature, every_text = gather_rows(torch.cat([features, texts], dim=2)).chunk(2, dim=2)
        same = (labels[:, None] == gather_rows(labels)).to(features.dtype)
        target = torch.softmax(SHARPNESS * same, dim=1)
        scales = widen(scales if released else scales.exp())
        ways = [_one_way(features, every_text, scales, target), _one_way(texts, every_feature, scales, target)]
    return torch.stack(ways).mean(dim=0)


def _one_way(rows: Tensor, others: Tensor, scales: Tensor, target: Tensor) -> Tensor:
    """(P,) of rows (n, P, E) that look for their class among others (N, P, E); target (n, N)."""
    scores = scales[:, None, None] * torch.einsum("npe,mpe->pnm", rows, others)
    found = scores.log_softmax(dim=2)
    return F.kl_div(found, target.expand_as(found), reduction="none").sum(dim=2).mean(dim=1)
