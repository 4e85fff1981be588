"""Training-time augmentation of whole batches, on the device the batch is on.

Randomness comes in from outside as one key a clip (:func:`mmcl.common.draws.clip_keys`), a pure function of (run seed,
epoch, clip), and each augmentation draws from it under its own name. So no two epochs and no two seeds repeat a draw,
one augmentation more shifts no other, and the result depends neither on the number of loader workers nor on how clips
are spread over processes. (The CTR-GCN lineage seeds loader workers with their worker id: every epoch repeats the same
draws there, and ``--seed`` has no effect on them.)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mmcl.common.draws import normal, uniform
from mmcl.common.errors import UserError
from mmcl.skeletons.layout import Layout
from mmcl.skeletons.window import present


@dataclass(frozen=True)
class Augmentation:
    """How strongly training clips are varied. The defaults are MMCL's / CTR-GCN's: temporal crop and rotation.

    Attributes:
        crop_min: shortest share of a clip that the temporal crop keeps.
        crop_max: longest share.
        crop_floor: shortest crop in frames, where the clip has as many.
        uneven: sample the crop at random times (in order) instead of evenly spaced ones, as CTR-GCN does on NW-UCLA.
        rotation: largest rotation about each axis, radians, one rotation a clip; or three numbers, for x, y and z.
        scale: largest relative change of body size.
        shear: largest shear coefficient.
        flip: probability of swapping left and right (mirror image).
        noise: standard deviation of Gaussian noise on present joints, metres.
    """

    crop_min: float = 0.5
    crop_max: float = 1.0
    crop_floor: int = 64
    uneven: bool = False
    rotation: float | tuple[float, float, float] = 0.3
    scale: float = 0.0
    shear: float = 0.0
    flip: float = 0.0
    noise: float = 0.0

    def check(self) -> None:
        """Fail on numbers out of range.

        Raises:
            UserError: naming the key, its value and what it should be.
        """
        angles = self.rotation if isinstance(self.rotation, tuple) else (self.rotation,)
        checks = [
            ("crop_min", 0 < self.crop_min <= self.crop_max <= 1, "in (0, crop_max], and crop_max at most 1"),
            ("crop_floor", self.crop_floor >= 1, "at least 1"),
            ("rotation", all(angle >= 0 for angle in angles), "radians, 0 or more"),
            ("scale", 0 <= self.scale < 1, "in [0, 1)"),
            ("shear", self.shear >= 0, "0 or more"),
            ("flip", 0 <= self.flip <= 1, "a probability"),
            ("noise", self.noise >= 0, "metres, 0 or more"),
        ]
        for key, good, wanted in checks:
            if not good:
                raise UserError(f"augmentation.{key} is {getattr(self, key)}: it must be {wanted}")


def crop_span(keys: Tensor, options: Augmentation) -> tuple[Tensor, Tensor]:
    """Share of the clip to keep and where it lies, both (N,)."""
    share, position = uniform(keys, "augmentation.crop", (2,)).unbind(1)
    return options.crop_min + share * (options.crop_max - options.crop_min), position


def time_positions(keys: Tensor, window: int) -> Tensor:
    """(N, window) ascending random numbers in [0, 1): when an unevenly sampled clip is looked at."""
    return uniform(keys, "augmentation.uneven", (window,)).sort(dim=1).values


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


def shear_matrices(amounts: Tensor) -> Tensor:
    """(N, 6) coefficients -> (N, 3, 3): ones on the diagonal, the coefficients off it, row by row."""
    matrix = torch.eye(3, device=amounts.device).repeat(len(amounts), 1, 1)
    rows, columns = torch.tensor([[0, 0, 1, 1, 2, 2], [1, 2, 0, 2, 0, 1]], device=amounts.device)
    matrix[:, rows, columns] = amounts
    return matrix


def mirror(x: Tensor, layout: Layout) -> Tensor:
    """Mirror image of (N, M, T, V, C): the first coordinate changes sign, left and right joints change places."""
    order = list(range(layout.joint_count))
    for left, right in layout.left_right:
        order[left], order[right] = right, left
    mirrored = x[:, :, :, order].clone()
    mirrored[..., 0] = -mirrored[..., 0]
    return mirrored


def augment(x: Tensor, keys: Tensor, options: Augmentation, layout: Layout) -> Tensor:
    """Rotate, scale, shear, mirror and jitter a batch; one draw a clip, both persons alike.

    Args:
        x: (N, M, T, V, 3) joints, centred. All-zero (absent) joints stay zero.
        keys: (N,) from :func:`mmcl.common.draws.clip_keys`.
        options: how strongly.
        layout: of ``x``, for left and right.

    Returns:
        (N, M, T, V, 3).
    """

    def signed(name: str, count: int, amount: float | tuple[float, ...]) -> Tensor:
        return (2.0 * uniform(keys, f"augmentation.{name}", (count,)) - 1.0) * torch.tensor(amount, device=keys.device)

    matrix = rotation_matrices(signed("rotation", 3, options.rotation))
    if options.shear:
        matrix = shear_matrices(signed("shear", 6, options.shear)) @ matrix
    if options.scale:
        matrix = matrix * (1.0 + signed("scale", 1, options.scale))[:, :, None]
    x = x @ matrix.to(x.dtype).transpose(1, 2)[:, None, None]
    if options.flip:
        flipped = uniform(keys, "augmentation.flip") < options.flip
        x = torch.where(flipped[:, None, None, None, None], mirror(x, layout), x)
    if options.noise:
        x = x + options.noise * normal(keys, "augmentation.noise", tuple(x.shape[1:])) * present(x)
    return x
