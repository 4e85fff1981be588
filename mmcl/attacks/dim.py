"""DIM: every step's gradient is that of another variant of the clip, so that it fits more models than one."""

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
from mmcl.common.draws import Draws
from mmcl.common.errors import UserError


@dataclass(frozen=True)
class DIMOptions(MomentumOptions):
    """Options of :class:`DIM`.

    Attributes:
        probability: of a variant; else the clip itself. Under ``released`` every step has one.
        crop: least share of a clip's frames that are kept and stretched to its length. Under ``released`` 0.95.
        shear: largest share of one axis that is added to another.
    """

    probability: float = 0.7
    crop: float = 0.8
    shear: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (0 <= self.probability <= 1 and 0 < self.crop <= 1 and self.shear >= 0):
            raise UserError(
                f"dim needs a probability in [0, 1], a crop in (0, 1] and a shear of 0 or more, not "
                f"{self.probability}, {self.crop} and {self.shear}"
            )


class DIM(MIFGSM):
    """Diverse inputs with momentum: Xie, Zhang, Zhou, Bai, Wang, Ren, Yuille, CVPR 2019, for skeletons.

    A variant shows a part of the clip, stretched to its length, through a shear of space. Under ``released`` the
    gradient at the variant is taken for that at the clip, joint by joint and frame by frame; steps are along its sign.
    """

    options_type = DIMOptions
    tiny: ClassVar[Mapping[str, Any]] = MappingProxyType({"steps": 2})

    def slope(self, scene: Scene) -> Ascent:
        """The gradient through a variant that is drawn for each clip and step."""

        def whole(joints: Tensor, number: int) -> Tensor:
            draws = scene.draws(self.options.seed, f"variant {number}")
            if self.options.released:
                return scene.gradient(variant(joints, scene.lengths, draws, 1.0, 0.95, self.options.shear))
            options = self.options

            def seen(x: Tensor) -> Tensor:
                return scene.scores(variant(x, scene.lengths, draws, options.probability, options.crop, options.shear))

            return scene.gradient(joints, seen)

        return whole

    def stride(self, scene: Scene, direction: Tensor) -> Tensor:
        """Along the sign, released or not."""
        return direction.sign()


def variant(
    joints: Tensor, lengths: Tensor, draws: Draws, probability: float, crop: float, shear: float
) -> Tensor:  # fmt: skip
    """A variant of each clip, differentiable.

    Frames are taken as they are, so that a missing joint stays missing and no joint lies between there and nowhere. A
    confidence goes along with its joint, and the shear leaves it as it is.

    Args:
        joints: (N, M, T, V, C).
        lengths: (N,).
        draws: of the clips.
        probability: that a clip is changed.
        crop: least share of its frames.
        shear: largest entry of the shear.
    """
    C = min(joints.shape[-1], AXES)
    numbers = draws.uniform(3 + C * C).to(joints.dtype)
    changed = numbers[:, 0] < probability
    share = torch.where(changed, crop + (1 - crop) * numbers[:, 1], 1.0)
    start = (1 - share) * numbers[:, 2] * lengths
    time = torch.arange(joints.shape[2], device=joints.device)
    taken = torch.where(time < lengths[:, None], (start[:, None] + share[:, None] * (time + 0.5)).long(), time)
    places = taken.clamp(max=joints.shape[2] - 1)[:, None, :, None, None].expand_as(joints)
    own = torch.eye(C, dtype=joints.dtype, device=joints.device)
    mixed = shear * (2 * numbers[:, 3:].view(-1, C, C) - 1) * (1 - own) * changed[:, None, None]
    found = joints.gather(2, places)
    sheared = torch.einsum("nmtvc,ncd->nmtvd", found[..., :AXES], own + mixed)
    return torch.cat([sheared, found[..., AXES:]], dim=-1)
