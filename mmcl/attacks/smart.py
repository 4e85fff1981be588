"""SMART: the answer changes while bones, places and accelerations stay close to what they were."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mmcl.attacks.base import AXES
from mmcl.attacks.iterative import Ascent, Iterative, IterativeOptions
from mmcl.attacks.scene import Scene, normalised, per_clip
from mmcl.common.errors import UserError
from mmcl.skeletons.layout import Layout

LIMBS, TRUNK = 0.02, 0.04  # weights of joints' places
RELEASED_TRUNK = slice(10, 15)  # the released benchmark's trunk, whatever the layout's joints are
SHIFT = 1e-8  # on every coordinate of a bone: the length of a bone that is none has a gradient
FRAMES_PER_SECOND = 30.0
TOO_LONG = 5.0  # an update longer than the budget is brought to so many times the budget (released)


@dataclass(frozen=True)
class SMARTOptions(IterativeOptions):
    """Options of :class:`SMART`.

    Attributes:
        class_weight: of the classifier's gradient; the rest is the perceptual one's.
        bone_weight: of bones' lengths among the perceptual terms.
        recon_weight: of the first of the others.
        released: as the released benchmark has it: other weights of the terms, a step of unit length for all
            coordinates together, an update that is too long brought to five times the budget, joints 10 to 14 as trunk,
            and a clip that is fooled already stays as it is.
    """

    class_weight: float = 0.6
    bone_weight: float = 0.7
    recon_weight: float = 0.4

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("class_weight", "bone_weight", "recon_weight"):
            if not 0 <= getattr(self, key) <= 1:
                raise UserError(f"smart.{key} is {getattr(self, key)}: it must be in [0, 1]")


class SMART(Iterative):
    """Gradients of the classifier and of perceptual terms, mixed.

    Wang, He, Peng, Tan, Yuan, Wang, Zhu, "Understanding the robustness of skeleton-based action recognition under
    adversarial attack", CVPR 2021.
    """

    options_type = SMARTOptions

    def ascent(self, scene: Scene) -> Ascent:
        """Both gradients, each of length 1 for a clip, mixed."""
        weights = joint_weights(scene.model.layout, self.options.released).to(scene.joints)
        parents = torch.tensor(scene.model.layout.parents, device=scene.joints.device)
        share = self.options.class_weight

        def ascent(joints: Tensor, number: int) -> Tensor:
            leaf = joints.detach().requires_grad_(True)
            with torch.enable_grad():
                scores = scene.scores(leaf)
                (uphill,) = torch.autograd.grad(scene.losses(scores).sum(), leaf)
                loss = self.perceptual(terms(leaf, scene.joints, scene.mask, parents, weights))
                (away,) = torch.autograd.grad(loss.sum(), leaf)
            uphill, away = uphill * scene.movable, away * scene.movable
            mixed = share * unit(uphill) - (1 - share) * unit(away)
            return mixed * per_clip(~scene.fooled(scores)) if self.options.released else mixed

        return ascent

    def perceptual(self, found: dict[str, Tensor]) -> Tensor:
        """(N,) weighted sum of the terms; the weights of paper and benchmark differ."""
        bone, rest, recon = self.options.bone_weight, 1 - self.options.bone_weight, self.options.recon_weight
        if self.options.released:
            return bone * found["bone"] + rest * ((1 - recon) * found["position"] + recon * found["acceleration"])
        return (1 - recon) * (bone * found["bone"] + rest * found["acceleration"]) + recon * found["position"]

    def stride(self, scene: Scene, direction: Tensor) -> Tensor:
        """Mean absolute value 1; under ``released`` the direction itself, which is a step of length 1 at most."""
        if not self.options.released:
            return normalised(direction, scene.mean_size(direction))
        length = self.options.step * scene.limit * direction.flatten(1).norm(dim=1).view(-1, 1, 1, 1, 1)
        longer = normalised(direction, length) * TOO_LONG * scene.limit
        return torch.where(length > scene.limit, longer, direction)


def joint_weights(layout: Layout, released: bool = False) -> Tensor:
    """(V,) how much a joint's place counts: twice as much on the trunk."""
    weights = torch.full((layout.joint_count,), LIMBS)
    if released:
        weights[RELEASED_TRUNK] = TRUNK
    else:
        weights[list(layout.parts.get("torso", (layout.centre,)))] = TRUNK
    return weights


def terms(joints: Tensor, clean: Tensor, mask: Tensor, parents: Tensor, weights: Tensor) -> dict[str, Tensor]:
    """The perceptual terms of each clip, (N,) each, summed over persons, frames and joints that are there.

    Args:
        joints: (N, M, T, V, C) changed.
        clean: what they were.
        mask: (N, M, T, V).
        parents: (V,).
        weights: (V,) of joints' places.

    Returns:
        ``bone``: squared changes of bones' lengths; ``acceleration``: of second differences, in metres per second
        squared at 30 frames a second; ``position``: of places, weighted.
    """
    bones = bone_lengths(joints, parents) - bone_lengths(clean, parents)
    bone = bones.square() * (mask & mask[..., parents])
    steady = mask[:, :, 2:] & mask[:, :, 1:-1] & mask[:, :, :-2]
    change = accelerations(joints) - accelerations(clean)
    acceleration = (FRAMES_PER_SECOND**2 * change).square() * steady[..., None]
    place = (joints - clean).square() * weights[:, None] * mask[..., None]
    found = {"bone": bone, "acceleration": acceleration, "position": place}
    return {name: values.flatten(1).sum(dim=1) for name, values in found.items()}


def bone_lengths(joints: Tensor, parents: Tensor) -> Tensor:
    """(N, M, T, V) distance of every joint from its parent; the root's is almost zero. A confidence is no length."""
    joints = joints[..., :AXES]
    return (joints - joints[:, :, :, parents] + SHIFT).norm(dim=-1)


def accelerations(joints: Tensor) -> Tensor:
    """(N, M, T-2, V, C) second differences, per frame squared."""
    return joints[:, :, 2:] - 2 * joints[:, :, 1:-1] + joints[:, :, :-2]


def unit(x: Tensor) -> Tensor:
    """Each clip's numbers over their length; zero stays."""
    return normalised(x, per_clip(x.flatten(1).norm(dim=1)))
