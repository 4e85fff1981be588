"""Training-time augmentation of whole batches, on the device the batch is on.

Randomness comes in from outside as one row of uniform numbers a clip (:func:`draw`), a pure function of
(run seed, epoch, clip). So no two epochs and no two seeds repeat a draw, and the result depends neither on the number
of loader workers nor on how clips are spread over processes. (The CTR-GCN lineage seeds loader workers with their
worker id: every epoch repeats the same draws there, and ``--seed`` has no effect on them.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mmcl.common.errors import UserError
from mmcl.skeletons.layout import Layout
from mmcl.skeletons.window import present

# What each of a clip's uniform numbers is for. Appending keeps old runs repeatable; reordering does not.
_SLOTS = {
    **{"crop": (0, 2), "rotation": (2, 5), "scale": (5, 6), "shear": (6, 12), "flip": (12, 13), "noise": (13, 14)},
    "time": (14, 15),
}
DRAWS = 16


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


def draw(seed: int, epoch: int, clip: int) -> np.ndarray:
    """(DRAWS,) float64 uniform numbers in [0, 1), the same for the same (seed, epoch, clip) everywhere."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, epoch, clip)))).random(DRAWS)


def uniform(draws: Tensor, slot: str) -> Tensor:
    """The numbers of one slot: (N, k) in [0, 1), float32."""
    return draws[:, slice(*_SLOTS[slot])].float()


def crop_span(draws: Tensor, options: Augmentation) -> tuple[Tensor, Tensor]:
    """Share of the clip to keep and where it lies, both (N,)."""
    share, position = uniform(draws, "crop").unbind(1)
    return options.crop_min + share * (options.crop_max - options.crop_min), position


def time_positions(draws: Tensor, window: int) -> Tensor:
    """(N, window) ascending random numbers in [0, 1): when an unevenly sampled clip is looked at."""
    rows = [torch.rand(window, generator=generator) for generator in _generators(draws, "time", torch.device("cpu"))]
    return torch.stack(rows).to(draws.device).sort(dim=1).values


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


def augment(x: Tensor, draws: Tensor, options: Augmentation, layout: Layout) -> Tensor:
    """Rotate, scale, shear, mirror and jitter a batch; one draw a clip, both persons alike.

    Args:
        x: (N, M, T, V, 3) joints, centred. All-zero (absent) joints stay zero.
        draws: (N, DRAWS) from :func:`draw`.
        options: how strongly.
        layout: of ``x``, for left and right.

    Returns:
        (N, M, T, V, 3).
    """

    def signed(slot: str, amount: float | tuple[float, ...]) -> Tensor:
        return (2.0 * uniform(draws, slot) - 1.0) * torch.tensor(amount, device=draws.device)

    matrix = rotation_matrices(signed("rotation", options.rotation))
    if options.shear:
        matrix = shear_matrices(signed("shear", options.shear)) @ matrix
    if options.scale:
        matrix = matrix * (1.0 + signed("scale", options.scale))[:, :, None]
    x = x @ matrix.to(x.dtype).transpose(1, 2)[:, None, None]
    if options.flip:
        flipped = uniform(draws, "flip") < options.flip
        x = torch.where(flipped[:, :, None, None, None], mirror(x, layout), x)
    if options.noise:
        x = x + options.noise * _normal(draws, x) * present(x)
    return x


def _normal(draws: Tensor, like: Tensor) -> Tensor:
    """Standard normal noise, one generator a clip, so that it does not depend on the batch a clip is in."""
    generators = _generators(draws, "noise", like.device)
    return torch.stack(
        [torch.randn(like.shape[1:], generator=g, device=like.device, dtype=like.dtype) for g in generators]
    )


def _generators(draws: Tensor, slot: str, device: torch.device) -> list[torch.Generator]:
    """One a clip, seeded by its own number: for what takes more random numbers than a row of draws has."""
    seeds = uniform(draws, slot).flatten().tolist()
    return [torch.Generator(device=device).manual_seed(int(seed * 2**24)) for seed in seeds]
