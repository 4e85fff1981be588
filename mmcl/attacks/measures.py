"""How far a changed clip is from the clean one, in what a body can do."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmcl.attacks.base import AXES, shown
from mmcl.attacks.smart import accelerations, bone_lengths

MEASURES = ("bone", "acceleration", "position", "largest")


def measures(changed: Tensor, clean: Tensor, parents: Sequence[int]) -> Tensor:
    """(N, 4) of each clip, over joints that are there.

    ``bone``: mean change of a bone's length as a share of the clip's mean bone; ``acceleration``: mean length of the
    change of second differences, metres per frame squared; ``position``: mean distance of a joint from its place,
    metres; ``largest``: largest change of a coordinate, metres.

    Args:
        changed: (N, M, T, V, C).
        clean: the same; joints are there by :func:`mmcl.attacks.base.shown`.
        parents: of the layout.
    """
    there = shown(clean)
    changed, clean = (x[..., :AXES].nan_to_num(0.0) * there[..., None] for x in (changed, clean))
    tree = torch.tensor(parents, device=clean.device)
    own = torch.arange(len(parents), device=clean.device) != tree
    bones = there & there[..., tree] & own
    before = bone_lengths(clean, tree)
    bent = _mean((bone_lengths(changed, tree) - before).abs(), bones) / _mean(before, bones).clamp(min=1e-9)
    steady = there[:, :, 2:] & there[:, :, 1:-1] & there[:, :, :-2]
    shaken = _mean((accelerations(changed) - accelerations(clean)).norm(dim=-1), steady)
    moved = _mean((changed - clean).norm(dim=-1), there)
    return torch.stack([bent, shaken, moved, (changed - clean).abs().flatten(1).amax(dim=1)], dim=1)


def _mean(values: Tensor, there: Tensor) -> Tensor:
    """(N,) mean over what is there; zero where nothing is."""
    return (values * there).flatten(1).sum(dim=1) / there.flatten(1).sum(dim=1).clamp(min=1)
