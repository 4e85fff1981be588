"""Random noise in the budget: what every attack must beat."""

from __future__ import annotations

from torch import Tensor

from mmcl.attacks.base import Attack
from mmcl.attacks.scene import Scene, per_coordinate
from mmcl.models.model import Model


class Noise(Attack):
    """Every coordinate of a joint that is there moves to either end of the budget, by the toss of a coin."""

    def perturb(
        self, model: Model, joints: Tensor, lengths: Tensor, labels: Tensor, mask: Tensor, limit: Tensor
    ) -> Tensor:
        """One draw by the seed and the clip; the model is not looked at."""
        scene = Scene(model, joints, lengths, labels, mask, limit)
        coin = per_coordinate(scene.draws(self.options.seed, "noise attack"), joints)
        return joints + (2.0 * (coin >= 0.5) - 1.0) * limit * mask[..., None]
