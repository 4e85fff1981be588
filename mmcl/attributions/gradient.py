"""Gradient times input: the first-order share of every joint in a score."""

from __future__ import annotations

import torch
from torch import Tensor

from mmcl.attributions.base import Attribution
from mmcl.attributions.view import View


class Gradient(Attribution):
    """The gradient of the target's score by a joint, times the joint less the background's mean one.

    For a linear model it is exact; the residual says how far the network is from one (Shrikumar et al., "Learning
    important features through propagating activation differences", ICML 2017, section 2.2).
    """

    def attribute(self, view: View) -> Tensor:
        """(N, M, W, V, C)."""
        found = [
            view.gradient(x[None], target[None])[0] * (x - view.background_of(clip).mean(dim=0))
            for clip, (x, target) in enumerate(zip(view.x, view.target, strict=True))
        ]
        return torch.stack(found)
