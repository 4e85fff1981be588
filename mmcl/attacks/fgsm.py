"""FGSM: one step along the sign of the gradient, as far as the budget goes."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from torch import Tensor

from mmcl.attacks.base import Attack, AttackOptions
from mmcl.attacks.scene import Scene
from mmcl.models.model import Model


class FGSM(Attack):
    """Fast gradient sign method: Goodfellow, Shlens, Szegedy, arXiv 1412.6572, section 4."""

    options_type = AttackOptions
    tiny: ClassVar[Mapping[str, Any]] = MappingProxyType({})

    def perturb(
        self, model: Model, joints: Tensor, lengths: Tensor, labels: Tensor, mask: Tensor, limit: Tensor
    ) -> Tensor:
        """Every coordinate at one end of its budget; those without a gradient stay."""
        scene = Scene(model, joints, lengths, labels, mask, limit, self.options.targeted)
        return joints + scene.inside(limit * scene.gradient(joints).sign())
