"""DeepLIFT: differences of a clip from background clips, passed back operation by operation."""

from __future__ import annotations

import torch
from torch import Tensor

from mmcl.attributions.base import Attribution
from mmcl.attributions.differences import difference_gradient
from mmcl.attributions.view import View


class DeepLift(Attribution):
    """The mean over background clips of DeepLIFT's multipliers times differences.

    Shrikumar et al., "Learning important features through propagating activation differences", ICML 2017, with the
    rescale rule; the mean over background clips is DeepSHAP (Lundberg and Lee, NeurIPS 2017). The published rules are
    for layers with one input. Graph convolutions and attention multiply what they compute by each other; here products
    have a rule, too (see :mod:`mmcl.attributions.differences`), so that shares sum to the score less its mean over the
    background for every encoder. The residual says how nearly.
    """

    def attribute(self, view: View) -> Tensor:
        """(N, M, W, V, C)."""
        total = torch.zeros_like(view.x)
        for clip, _, x, start in view.pairs():
            gradient = difference_gradient(view.encoder, x, start, view.target[clip])
            total.index_add_(0, clip, gradient * (x - start) / len(view.background))
        return total
