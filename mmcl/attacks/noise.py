"""Random noise in the budget: what every attack must beat."""

from __future__ import annotations

import torch
from torch import Tensor

from mmcl.attacks.base import Attack
from mmcl.common.draws import clip_keys, uniform
from mmcl.models.model import Model


class Noise(Attack):
    """Every coordinate of a joint that is there moves to either end of the budget, by the toss of a coin."""

    def perturb(
        self, model: Model, joints: Tensor, lengths: Tensor, labels: Tensor, mask: Tensor, limit: Tensor
    ) -> Tensor:
        """One draw by the seed and the place of a clip in the batch; the model is not looked at."""
        keys = torch.from_numpy(clip_keys(self.options.seed, 0, range(len(joints)))).to(joints.device)
        coin = uniform(keys, "noise attack", tuple(joints.shape[1:]))
        return joints + (2.0 * (coin >= 0.5) - 1.0) * limit * mask[..., None]
