"""Exchanges what a clip has twice: left and right of a body, which makes a mirror image, or the first two bodies."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mmcl.common.errors import UserError
from mmcl.skeletons.layout import Layout
from mmcl.skeletons.masks import Skeletons
from mmcl.skeletons.transform import Transform
from mmcl.skeletons.window import Timing


@dataclass(frozen=True)
class Flip(Transform):
    """Mirror image: the first coordinate changes sign, left and right joints change places.

    Attributes:
        flip: probability of swapping left and right (mirror image).
    """

    flip: float = 0.0

    name = "flip"
    example = {"flip": 1.0}

    def __post_init__(self) -> None:
        self.require("flip", 0 <= self.flip <= 1, "a probability")

    @property
    def active(self) -> bool:
        """Whether it ever happens."""
        return self.flip > 0

    def check(self, layout: Layout, timing: Timing) -> None:
        """A mirror image must exchange all that belongs to a side."""
        what = f"augmentation.flip is {self.flip}, but"
        if not layout.left_right:
            raise UserError(
                f"{what} no joints of layout '{layout.name}' begin with left_ and right_: a mirror image would not "
                "exchange its sides"
            )
        if single := one_sided(layout):
            raise UserError(
                f"{what} layout '{layout.name}' has no counterpart of {', '.join(single)}: a mirror image would tear "
                "a body apart; name both sides' joints left_… and right_…"
            )

    def apply(self, keys: Tensor, clips: Skeletons, layout: Layout) -> Skeletons:
        """Mirror some of the clips."""
        chosen = self.uniform(keys) < self.flip

        def pick(old: Tensor, new: Tensor) -> Tensor:
            return torch.where(chosen.view(-1, *[1] * (old.dim() - 1)), new, old)

        mirrored = mirror(clips, layout)
        sure = None if clips.confidence is None else pick(clips.confidence, mirrored.confidence)  # type: ignore[arg-type]
        return Skeletons(pick(clips.joints, mirrored.joints), pick(clips.mask, mirrored.mask), sure)


@dataclass(frozen=True)
class Swap(Transform):
    """The first two bodies change places, as ARN-LSTM is trained.

    Attributes:
        swap: probability that the first two bodies change places.
    """

    swap: float = 0.0

    name = "swap"
    example = {"swap": 1.0}

    def __post_init__(self) -> None:
        self.require("swap", 0 <= self.swap <= 1, "a probability")

    @property
    def active(self) -> bool:
        """Whether it ever happens."""
        return self.swap > 0

    def apply(self, keys: Tensor, clips: Skeletons, layout: Layout) -> Skeletons:
        """Only where both are there, so that empty bodies stay last."""
        if clips.joints.shape[1] < 2:
            return clips
        both = clips.mask[:, :2].flatten(2).any(dim=2).all(dim=1)
        places = torch.arange(clips.joints.shape[1], device=keys.device).repeat(len(keys), 1)
        chosen = (self.uniform(keys) < self.swap) & both
        places[:, :2] = torch.where(chosen[:, None], places[:, :2].flip(1), places[:, :2])
        rows = torch.arange(len(keys), device=keys.device)[:, None]
        return Skeletons(*(None if part is None else part[rows, places] for part in clips))  # type: ignore[arg-type]


def mirror(clips: Skeletons, layout: Layout) -> Skeletons:
    """Mirror image of every clip."""
    order = list(range(layout.joint_count))
    for left, right in layout.left_right:
        order[left], order[right] = right, left
    joints = clips.joints[..., order]
    joints[:, :, 0] *= -1
    sure = None if clips.confidence is None else clips.confidence[..., order]
    return Skeletons(joints, clips.mask[..., order], sure)


def one_sided(layout: Layout) -> list[str]:
    """Joints that a mirror image would leave on the wrong side.

    Those named ``left_…`` or ``right_…`` without a counterpart, and those without a side in their name that hang on one
    that has one: a limb's end belongs to the limb's side.
    """
    paired = {joint for pair in layout.left_right for joint in pair}
    found = []
    for joint, name in enumerate(layout.joints):
        sided = name.startswith(("left_", "right_")) or layout.parents[joint] in paired
        if joint not in paired and sided:
            found.append(name)
    return found
