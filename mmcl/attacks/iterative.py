"""Attacks that take many steps, back into the budget after each."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor

from mmcl.attacks.base import Attack, AttackOptions
from mmcl.attacks.scene import Scene, normalised
from mmcl.common.errors import UserError
from mmcl.models.model import Model

Ascent = Callable[[Tensor, int], Tensor]  # (joints (N, M, T, V, C), number of the step) -> where to go, same shape


@dataclass(frozen=True)
class IterativeOptions(AttackOptions):
    """Options of attacks that take many steps.

    Attributes:
        steps: how many.
        step: share of the budget that a coordinate moves in one, on average.
        released: as the released benchmark steps: along the gradient over its mean absolute value, instead of along its
            sign. With ``epsilon=0.01, step=1`` that is its step of 0.01 in a budget of 0.01. Once all clips of a batch
            are fooled, none of them moves any more.
    """

    steps: int = 10
    step: float = 0.25
    released: bool = False

    def __post_init__(self) -> None:
        if self.steps < 1 or not 0 < self.step < float("inf"):
            raise UserError(f"an attack needs steps of at least 1 and a positive step, not {self.steps}, {self.step}")


class Iterative(Attack):
    """A loop of steps; a subclass says where each one goes."""

    options_type = IterativeOptions
    tiny: ClassVar[Mapping[str, Any]] = MappingProxyType({"steps": 2})

    @abstractmethod
    def ascent(self, scene: Scene) -> Ascent:
        """The direction of every step, as a function that may remember earlier ones; called once a run."""

    def stride(self, scene: Scene, direction: Tensor) -> Tensor:
        """A direction as a step whose coordinates are of size 1."""
        if self.options.released:
            return normalised(direction, scene.mean_size(direction))
        return direction.sign()

    def perturb(
        self, model: Model, joints: Tensor, lengths: Tensor, labels: Tensor, mask: Tensor, limit: Tensor
    ) -> Tensor:
        """The joints after the last step."""
        scene = Scene(model, joints, lengths, labels, mask, limit, self.options.targeted)
        ascent, moved = self.ascent(scene), torch.zeros_like(joints)
        for number in range(self.options.steps):
            if self.options.released and bool(scene.fooled(scene.scores(joints + moved)).all()):
                break
            direction = self.stride(scene, ascent(joints + moved, number))
            moved = scene.inside(moved + self.options.step * limit * direction)
        return joints + moved
