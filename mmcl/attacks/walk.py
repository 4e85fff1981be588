"""Steps of a decision-based attack: around the clean clip, towards it, and back to bodies whose bones fit."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmcl.attacks.base import AXES
from mmcl.attacks.scene import normalised


def distances(one: Tensor, two: Tensor) -> Tensor:
    """(N, 1, 1, 1, C) length of the difference of clips (N, M, T, V, C) along every axis."""
    return (one - two).square().sum(dim=(1, 2, 3), keepdim=True).sqrt()


def frame_distance(one: Tensor, two: Tensor, lengths: Tensor | None = None) -> Tensor:
    """(N,) mean over frames of the length of the difference of all coordinates of a frame.

    Args:
        one: (N, M, T, V, C).
        two: the same; frames behind a clip's length are equal.
        lengths: (N,) of the clips; None: they fill all frames.
    """
    apart = (one - two).square().sum(dim=(1, 3, 4)).sqrt()
    return apart.mean(dim=1) if lengths is None else apart.sum(dim=1) / lengths.clamp(min=1)


def towards(current: Tensor, clean: Tensor, share: Tensor | float) -> Tensor:
    """Displacement by a share of the way from one clip to another."""
    return share * (clean - current)


def around(current: Tensor, clean: Tensor, noise: Tensor, delta: Tensor | float) -> Tensor:
    """A random displacement along every axis that is orthogonal to the way to the clean clip.

    Args:
        current: (N, M, T, V, C).
        clean: the same.
        noise: (N, M, T, V, C) standard normal.
        delta: (N, 1, 1, 1, 1) length of the displacement, relative to the mean distance of an axis. A confidence, which
            never moves, is no axis.
    """
    far = distances(current, clean)
    way = normalised(clean - current, far)
    step = normalised(noise, distances(noise, torch.zeros_like(noise)))
    step = step - (step * way).sum(dim=(1, 2, 3), keepdim=True) * way
    return delta * far[..., :AXES].mean(dim=-1, keepdim=True) * step


def released_around(
    current: Tensor, clean: Tensor, noise: Tensor, delta: Tensor | float, ties: Sequence[tuple[int, int]] = (),
    rest: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """The same as the released code does it, for one body: noise is (N, 1, T, T, C), and V of its columns are used.

    What it takes off is no component along the way: it is the matrix product of noise and way, times the way. Where a
    clip has more joints than frames, the noise has no column for the last joints. They get a second noise over the
    length of the first one, which ``delta`` and the distance do not scale.

    Args:
        current: (N, 1, T, V, C).
        clean: the same.
        noise: see above.
        delta: as in :func:`around`.
        ties: (joint, other): a joint that has the other's noise, since both are at one place.
        rest: (N, 1, T, V, C) the second noise, whose first T columns are not used; needed where V > T.
    """
    T, V = current.shape[2:4]
    noise = noise.clone()
    for joint, other in ties:
        noise[:, :, :, joint] = noise[:, :, :, other]
    far = distances(current, clean)
    way = normalised(clean - current, far)
    size = distances(noise, torch.zeros_like(noise))
    step = delta * far[..., :AXES].mean(dim=-1, keepdim=True) * normalised(noise, size)
    crossed = torch.einsum("nmtsc,nmsvc->nmtvc", step, way)
    first = step[:, :, :, :V]
    if V > T:
        assert rest is not None, "more joints than frames take a second noise"
        first = torch.cat([first, normalised(rest, size)[:, :, :, T:]], dim=3)
    return first - crossed * way


def released_delta(delta: Tensor, far: Tensor) -> Tensor:
    """The released code explores little where the clean clip is near.

    A distance of at most 0.1 makes a delta above 0.2 to 0.1. Where that does not hold, a distance of at most 0.05 makes
    a delta above 0.1 to 0.05. Where that does not hold either, one below 0.025 makes a delta above 0.05 to 0.025.

    Args:
        delta: as in :func:`around`.
        far: the same shape, what :func:`frame_distance` says of the clip and the clean one.
    """
    third = torch.where((far < 0.025) & (delta > 0.05), 0.025, delta)
    second = torch.where((far <= 0.05) & (delta > 0.1), 0.05, third)
    return torch.where((far <= 0.1) & (delta > 0.2), 0.1, second)


def keep_bones(joints: Tensor, clean: Tensor, mask: Tensor, parents: Sequence[int]) -> Tensor:
    """The clip with every bone as long as in the clean one, frame by frame, from the root outwards.

    A bone keeps its direction; a joint whose parent is not there keeps its place. A confidence behind the coordinates
    is no part of a length, and is the clean clip's.

    Args:
        joints: (N, M, T, V, C) changed.
        clean: the same.
        mask: (N, M, T, V).
        parents: of the layout.
    """
    joints, others, clean = joints[..., :AXES], clean[..., AXES:], clean[..., :AXES]
    placed = list(joints.unbind(dim=3))
    for joint in outwards(parents):
        parent = parents[joint]
        bone = joints[:, :, :, joint] - joints[:, :, :, parent]
        length = (clean[:, :, :, joint] - clean[:, :, :, parent]).norm(dim=-1, keepdim=True)
        there = (mask[:, :, :, joint] & mask[:, :, :, parent])[..., None]
        fitted = placed[parent] + normalised(bone, bone.norm(dim=-1, keepdim=True)) * length
        placed[joint] = torch.where(there, fitted, placed[joint])
    return torch.cat([torch.stack(placed, dim=3), others], dim=-1)


def outwards(parents: Sequence[int]) -> list[int]:
    """All joints but the root, parents before their children."""
    known = {joint for joint, parent in enumerate(parents) if joint == parent}
    order: list[int] = []
    while len(order) < len(parents) - 1:
        new = [joint for joint, parent in enumerate(parents) if parent in known and joint not in known]
        order += new
        known |= set(new)
    return order
