"""MIG: gradients averaged along a path from nothing to the clip, with momentum."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor

from mmcl.attacks.base import AXES
from mmcl.attacks.iterative import Ascent
from mmcl.attacks.mifgsm import MIFGSM, MomentumOptions
from mmcl.attacks.scene import Scene
from mmcl.common.errors import UserError


@dataclass(frozen=True)
class MIGOptions(MomentumOptions):
    """Options of :class:`MIG`.

    Attributes:
        points: of the path; each costs a pass through the model.
    """

    points: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.points < 1:
            raise UserError(f"mig needs at least one point, not {self.points}")


class MIG(MIFGSM):
    """Momentum integrated gradients: Ma, Tao, Wang, Chen, Zhang, ICCV 2023.

    The path is the clip scaled from its origin, points 1/n to n/n; confidences stay as they are. The factor of
    integrated gradients, the distance to the path's begin, is left out: of a coordinate it is the place in the room,
    which says nothing of where to move.
    Under ``released`` the mean probability of the label along the path is made small, or its score large where
    targeted.
    """

    options_type = MIGOptions
    tiny: ClassVar[Mapping[str, Any]] = MappingProxyType({"steps": 2, "points": 3})

    def slope(self, scene: Scene) -> Ascent:
        """The gradient of the mean loss along the path."""
        points = self.options.points

        def whole(joints: Tensor, number: int) -> Tensor:
            total = torch.zeros_like(joints)
            for point in range(1, points + 1):
                leaf = joints.detach().requires_grad_(True)
                with torch.enable_grad():
                    loss = self._losses(scene, scene.scores(scaled(leaf, point / points))).sum()
                    total += torch.autograd.grad(loss, leaf)[0]
            return total * scene.movable / points

        return whole

    def _losses(self, scene: Scene, scores: Tensor) -> Tensor:
        if not self.options.released:
            return scene.losses(scores)
        values = scores if scene.targeted else -scores.softmax(dim=-1)
        return values.gather(1, scene.labels[:, None])


def scaled(joints: Tensor, factor: float) -> Tensor:
    """Clips (N, M, T, V, C) whose coordinates are multiplied, and whose confidences are not."""
    if joints.shape[-1] <= AXES:
        return joints * factor
    return torch.cat([joints[..., :AXES] * factor, joints[..., AXES:]], dim=-1)
