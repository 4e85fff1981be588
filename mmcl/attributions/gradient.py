"""Gradient times input: the first-order share of every joint in a score."""

from __future__ import annotations

from torch import Tensor

from mmcl.attributions.base import Attribution, target_gradient
from mmcl.models.model import Model


class Gradient(Attribution):
    """The gradient of the target's score by a joint, times the joint less the background's mean one.

    For a linear model it is exact; the residual says how far the network is from one (Shrikumar et al., "Learning
    important features through propagating activation differences", ICML 2017, section 2.2).
    """

    def attribute(
        self, model: Model, joints: Tensor, lengths: Tensor | None, target: Tensor, background: Tensor
    ) -> Tensor:
        """(N, T, V): summed over persons and coordinates."""
        gradient = target_gradient(model, joints, lengths, target)
        return (gradient * (joints - background.mean(dim=0))).sum(dim=(1, 4))
