"""MI-FGSM: the gradients of earlier steps count, too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

from torch import Tensor

from mmcl.attacks.iterative import Ascent, Iterative, IterativeOptions
from mmcl.attacks.scene import Scene, normalised
from mmcl.common.errors import UserError


@dataclass(frozen=True)
class MomentumOptions(IterativeOptions):
    """Options of attacks with momentum.

    Attributes:
        decay: share of the last direction that the next one keeps. The paper has 1; the released benchmark 0.1.
    """

    decay: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.decay < float("inf"):
            raise UserError(f"the decay of an attack must be 0 or more, not {self.decay}")


class MIFGSM(Iterative):
    """Momentum iterative method: Dong, Liao, Pang, Su, Zhu, Hu, Li, CVPR 2018, algorithm 1.

    A gradient is divided by its mean absolute value before it is added to those of earlier steps. Under ``released``
    gradients are added as they are.
    """

    options_type = MomentumOptions
    tiny: ClassVar[Mapping[str, Any]] = MappingProxyType({"steps": 2})

    def ascent(self, scene: Scene) -> Ascent:
        """Gradients with momentum."""
        return with_momentum(scene, self.slope(scene), self.options.decay, normalise=not self.options.released)

    def slope(self, scene: Scene) -> Ascent:
        """What momentum is added to."""
        return lambda joints, number: scene.gradient(joints)


def with_momentum(scene: Scene, slope: Ascent, decay: float, normalise: bool) -> Ascent:
    """A direction to which the last one is added.

    Args:
        scene: what is attacked.
        slope: the direction of a step alone.
        decay: share of the last direction that is kept.
        normalise: bring each step's direction to a mean absolute value of 1 first.
    """
    last: list[Tensor] = []

    def ascent(joints: Tensor, number: int) -> Tensor:
        own = slope(joints, number)
        if normalise:
            own = normalised(own, scene.mean_size(own))
        whole = own + decay * last.pop() if last else own
        last.append(whole)
        return whole

    return ascent
