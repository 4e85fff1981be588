"""Changes the coordinates of joints: bodies are turned, sheared, scaled, or their joints jittered."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mmcl.skeletons.layout import Layout
from mmcl.skeletons.masks import Skeletons
from mmcl.skeletons.transform import Transform


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
