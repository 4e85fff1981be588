"""I-FGSM: many small steps along the sign of the gradient, back into the budget after each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from mmcl.attacks.base import Attack, AttackOptions
from mmcl.common.errors import UserError
from mmcl.models.model import Model


@dataclass(frozen=True)
class IFGSMOptions(AttackOptions):
    """Options of :class:`IFGSM`.

    Attributes:
        steps: how many.
        step: share of the budget that a coordinate moves in one.
    """

    steps: int = 10
    step: float = 0.25

    def __post_init__(self) -> None:
        if self.steps < 1 or not 0 < self.step <= 1:
            raise UserError(
                f"ifgsm needs steps of at least 1 and a step in (0, 1], not {self.steps} and {self.step}"
            )


class IFGSM(Attack):
    """Iterative fast gradient sign method on the cross-entropy, by raw joints.

    Kurakin, Goodfellow, Bengio, "Adversarial examples in the physical world", arXiv 1607.02533, section 2.2.
    """

    options_type: ClassVar[type] = IFGSMOptions
    tiny: ClassVar[Mapping[str, Any]] = MappingProxyType({"steps": 2})

    def perturb(
        self, model: Model, joints: Tensor, lengths: Tensor, labels: Tensor, mask: Tensor, limit: Tensor
    ) -> Tensor:
        """The last step's joints."""
        uphill = -1.0 if self.options.targeted else 1.0
        moved = torch.zeros_like(joints)
        for _ in range(self.options.steps):
            leaf = (joints + moved).requires_grad_(True)
            with torch.enable_grad():
                loss = F.cross_entropy(model(leaf, lengths, grad=True), labels, reduction="sum")
                (gradient,) = torch.autograd.grad(loss, leaf)
            step = uphill * self.options.step * limit * gradient.sign()
            moved = (moved + step).clamp(-limit, limit) * mask[..., None]
        return joints + moved
