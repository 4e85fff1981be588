"""What every attack works on: clips, the model that judges them, and how far they may move."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from mmcl.attacks.base import AXES
from mmcl.common.draws import Draws, derived_keys, step_key, uniform
from mmcl.models.model import Model

Scores = Callable[[Tensor], Tensor]  # joints (N, M, T, V, C) -> (N, K)


@dataclass(frozen=True)
class Scene:
    """The arguments of :meth:`mmcl.attacks.base.Attack.perturb`, with the steps that attacks share.

    Attributes:
        model: that is attacked.
        joints: (N, M, T, V, C) clean clips, zero outside the mask.
        lengths: (N,).
        labels: (N,) classes that the model shall leave, or with ``targeted`` answer.
        mask: (N, M, T, V) bool.
        limit: (N, 1, 1, 1, C) metres.
        targeted: see ``labels``.
    """

    model: Model
    joints: Tensor
    lengths: Tensor
    labels: Tensor
    mask: Tensor
    limit: Tensor
    targeted: bool = False

    def scores(self, joints: Tensor) -> Tensor:
        """Scores of the model, with gradients."""
        return self.model(joints, self.lengths, grad=True)

    def losses(self, scores: Tensor) -> Tensor:
        """(…, N) what the attack makes large, of scores (…, N, K): the cross-entropy, minus it where targeted."""
        labels = self.labels.expand(scores.shape[:-1])
        found = F.cross_entropy(scores.flatten(0, -2), labels.flatten(), reduction="none").view(labels.shape)
        return -found if self.targeted else found

    def fooled(self, scores: Tensor) -> Tensor:
        """(N,) bool, of scores (N, K)."""
        right = scores.argmax(dim=-1) == self.labels
        return right if self.targeted else ~right

    def gradient(self, joints: Tensor, scores: Scores | None = None) -> Tensor:
        """(N, M, T, V, C) direction in which each clip's loss grows fastest; zero where nobody is.

        Args:
            joints: where, (N, M, T, V, C).
            scores: other scores than the model's.
        """
        leaf = joints.detach().requires_grad_(True)
        with torch.enable_grad():
            (found,) = torch.autograd.grad(self.losses((scores or self.scores)(leaf)).sum(), leaf)
        return found * self.movable

    @cached_property
    def movable(self) -> Tensor:
        """(N, M, T, V, C) what may move at all: 1 or 0."""
        return (self.mask[..., None] & (self.limit > 0)).to(self.joints.dtype).expand_as(self.joints)

    def inside(self, moved: Tensor) -> Tensor:
        """The nearest displacement (N, M, T, V, C) within the budget that moves only what is there."""
        return torch.minimum(torch.maximum(moved, -self.limit), self.limit) * self.mask[..., None]

    def mean_size(self, x: Tensor) -> Tensor:
        """(N, 1, 1, 1, 1) mean absolute value over the coordinates of each clip that are there."""
        movable = self.movable
        return per_clip((x.abs() * movable).flatten(1).sum(dim=1) / movable.flatten(1).sum(dim=1).clamp(min=1))

    def draws(self, seed: int, name: str) -> Draws:
        """Random numbers of each clip: a function of the seed and of the clip itself, whichever batch it is in."""
        return Draws(derived_keys(content_keys(self.joints), f"{seed}"), name)


def fitted_to(scene: Scene, joints: Tensor, lengths: Tensor) -> Tensor:
    """Other clips in the clean ones' place: their length, their middle, and their joints that are there.

    Args:
        scene: with the clean clips (N, M, T, V, C); one that shows nobody, with length 0, takes nothing.
        joints: (N, M', T', V, C').
        lengths: (N,).
    """
    clean, there = scene.joints, scene.mask[..., None]
    time = (torch.arange(clean.shape[2], device=clean.device)[None] + 0.5) / scene.lengths[:, None].clamp(min=1)
    frames = (time * lengths[:, None]).long().clamp(max=joints.shape[2] - 1)
    bodies = torch.arange(clean.shape[1], device=clean.device).clamp(max=joints.shape[1] - 1)
    rows = torch.arange(len(joints), device=clean.device)
    taken = joints[rows[:, None, None], bodies[None, :, None], frames[:, None]]
    other = clean.clone()
    axes = min(AXES, clean.shape[-1])
    other[..., :axes] = taken[..., :axes].to(clean)
    known = there & (other[..., :axes] != 0).any(dim=-1, keepdim=True)
    count = known.sum(dim=(1, 2, 3), keepdim=True).clamp(min=1)
    shift = ((clean - other) * known).sum(dim=(1, 2, 3), keepdim=True) / count
    return torch.where(known, other + shift * (scene.limit >= 0), clean)


def per_clip(values: Tensor) -> Tensor:
    """(N,) -> (N, 1, 1, 1, 1), to go with clips."""
    return values.view(-1, 1, 1, 1, 1)


def normalised(x: Tensor, size: Tensor) -> Tensor:
    """``x`` over its size, and zero where that is zero: a model that is saturated has no gradient."""
    return torch.where(size > 0, x / torch.where(size > 0, size, torch.ones_like(size)), torch.zeros_like(x))


def content_keys(joints: Tensor) -> Tensor:
    """(N,) int64, keys that are a function of each clip's numbers, and not of the zeros that it is padded with."""
    bits = joints.float().contiguous().view(torch.int32).long()
    total = bits
    for axis, size in enumerate(joints.shape[1:], start=1):
        shape = [1] * joints.dim()
        shape[axis] = size
        place = (uniform(step_key(axis, 0), "places", (size,))[0] * 2**24).long().to(joints.device) * 2 + 1
        total = total * place.view(shape)
    return total.flatten(1).sum(dim=1)


def per_coordinate(draws: Draws, joints: Tensor, normal: bool = False) -> Tensor:
    """Random numbers for every coordinate (N, M, T, V, C), uniform or normal, however far a clip is padded."""
    own = [Draws(draws.keys, f"{draws.name} of body {body}") for body in range(joints.shape[1])]
    frames = tuple(joints.shape[2:])
    if not normal:
        return torch.stack([one.uniform(*frames) for one in own], dim=1).to(joints.dtype)
    pairs = torch.stack([one.uniform(*frames, 2) for one in own], dim=1).to(joints.dtype)
    return torch.sqrt(-2.0 * torch.log1p(-pairs[..., 0])) * torch.cos(2.0 * torch.pi * pairs[..., 1])
