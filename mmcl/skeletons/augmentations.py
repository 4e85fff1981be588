"""The augmentations that come with mmcl. :mod:`mmcl.skeletons.augment` combines them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mmcl.common.errors import UserError
from mmcl.skeletons.layout import Layout
from mmcl.skeletons.masks import Skeletons
from mmcl.skeletons.transform import Transform
from mmcl.skeletons.window import Span, Timing, crop_span


@dataclass(frozen=True)
class Crop(Transform):
    """A random part of the clip in time.

    Attributes:
        crop_min: shortest share of a clip that the temporal crop keeps.
        crop_max: longest share.
        crop_floor: shortest crop in frames, where the clip has as many.
        uneven: sample the crop at random times (in order) instead of evenly spaced ones, as CTR-GCN does on NW-UCLA.
    """

    crop_min: float = 0.5
    crop_max: float = 1.0
    crop_floor: int = 64
    uneven: bool = False

    name = "crop"
    example = {"crop_min": 0.3, "crop_max": 0.5, "crop_floor": 1, "uneven": True}

    def __post_init__(self) -> None:
        self.require("crop_min", 0 < self.crop_min <= self.crop_max <= 1, "in (0, crop_max], and crop_max at most 1")
        self.require("crop_floor", self.crop_floor >= 1, "at least 1")

    def check(self, layout: Layout, timing: Timing) -> None:
        """Random times between frames need a clip that is resized."""
        if self.uneven and timing != "resize":
            raise UserError(f"augmentation.uneven is true, which goes with preprocess.timing resize, not {timing}")

    def when(self, keys: Tensor, span: Span, window: int) -> Span:
        """A part of random length at a random place."""
        share, position = self.uniform(keys, (2,)).unbind(1)
        ratio = self.crop_min + share * (self.crop_max - self.crop_min)
        start, frames, _ = crop_span(span.frames, ratio, position, self.crop_floor)
        return Span(span.start + start, frames, self.times(keys, window) if self.uneven else None)

    def times(self, keys: Tensor, window: int) -> Tensor:
        """(N, window) ascending random numbers in [0, 1)."""
        return self.uniform(keys, (2 + window,))[:, 2:].sort(dim=1).values


@dataclass(frozen=True)
class Rotation(Transform):
    """One random rotation a clip, about the origin; of clips in a plane, within the plane.

    Attributes:
        rotation: largest rotation about each axis, radians, one rotation a clip; or three numbers, for x, y and z.
    """

    rotation: float | tuple[float, float, float] = 0.3

    name = "rotation"
    example = {"rotation": 1.0}

    def __post_init__(self) -> None:
        angles = self.rotation if isinstance(self.rotation, tuple) else (self.rotation,)
        self.require("rotation", all(angle >= 0 for angle in angles), "radians, 0 or more")

    @property
    def active(self) -> bool:
        """Whether there is an angle."""
        return self.rotation not in (0, (0, 0, 0))

    def apply(self, keys: Tensor, clips: Skeletons, layout: Layout) -> Skeletons:
        """Turn all bodies alike."""
        angles = self.signed(keys, (3,)) * torch.tensor(self.rotation, device=keys.device)
        matrix = rotation_matrices(angles)
        return linear(clips, matrix if clips.joints.shape[2] == 3 else planar_matrices(angles[:, 2]))


@dataclass(frozen=True)
class Shear(Transform):
    """Each coordinate is moved in proportion to the others.

    Attributes:
        shear: largest shear coefficient.
    """

    shear: float = 0.0

    name = "shear"
    example = {"shear": 0.4}

    def __post_init__(self) -> None:
        self.require("shear", self.shear >= 0, "0 or more")

    @property
    def active(self) -> bool:
        """Whether there is a coefficient."""
        return self.shear > 0

    def apply(self, keys: Tensor, clips: Skeletons, layout: Layout) -> Skeletons:
        """Ones on the matrix's diagonal, coefficients off it."""
        width = clips.joints.shape[2]
        amounts = self.shear * self.signed(keys, (width * width,)).view(-1, width, width)
        unit = torch.eye(width, device=keys.device)
        return linear(clips, amounts * (1 - unit) + unit)


@dataclass(frozen=True)
class Scale(Transform):
    """Bodies of another size.

    Attributes:
        scale: largest relative change of body size.
    """

    scale: float = 0.0

    name = "scale"
    example = {"scale": 0.3}

    def __post_init__(self) -> None:
        self.require("scale", 0 <= self.scale < 1, "in [0, 1)")

    @property
    def active(self) -> bool:
        """Whether there is a change."""
        return self.scale > 0

    def apply(self, keys: Tensor, clips: Skeletons, layout: Layout) -> Skeletons:
        """One factor a clip."""
        factor = 1.0 + self.scale * self.signed(keys)
        return clips._replace(joints=clips.joints * factor[:, None, None, None, None])


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
class Noise(Transform):
    """Gaussian noise on joints that are there.

    Attributes:
        noise: standard deviation of Gaussian noise on present joints, metres.
    """

    noise: float = 0.0

    name = "noise"
    example = {"noise": 0.1}

    def __post_init__(self) -> None:
        self.require("noise", self.noise >= 0, "metres, 0 or more")

    @property
    def active(self) -> bool:
        """Whether there is any."""
        return self.noise > 0

    def apply(self, keys: Tensor, clips: Skeletons, layout: Layout) -> Skeletons:
        """Every coordinate on its own."""
        x = clips.joints
        return clips._replace(joints=x + self.noise * self.normal(keys, tuple(x.shape[1:])) * clips.mask[:, :, None])


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


def linear(clips: Skeletons, matrix: Tensor) -> Skeletons:
    """Apply one (N, C, C) matrix a clip to its joints; zero stays zero."""
    x = clips.joints
    return clips._replace(joints=(matrix.to(x)[:, None] @ x.flatten(3)).view_as(x))


def rotation_matrices(angles: Tensor) -> Tensor:
    """(N, 3) angles about x, y, z in radians -> (N, 3, 3) matrices Rz @ Ry @ Rx."""
    sin, cos = torch.sin(angles), torch.cos(angles)
    zero, one = torch.zeros_like(sin[:, 0]), torch.ones_like(sin[:, 0])

    def stack(*entries: Tensor) -> Tensor:
        return torch.stack(entries, dim=-1).reshape(-1, 3, 3)

    about_x = stack(one, zero, zero, zero, cos[:, 0], -sin[:, 0], zero, sin[:, 0], cos[:, 0])
    about_y = stack(cos[:, 1], zero, sin[:, 1], zero, one, zero, -sin[:, 1], zero, cos[:, 1])
    about_z = stack(cos[:, 2], -sin[:, 2], zero, sin[:, 2], cos[:, 2], zero, zero, zero, one)
    return about_z @ about_y @ about_x


def planar_matrices(angles: Tensor) -> Tensor:
    """(N,) angles about z in radians -> (N, 2, 2)."""
    zero = torch.zeros_like(angles)
    return rotation_matrices(torch.stack([zero, zero, angles], dim=1))[:, :2, :2]


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
