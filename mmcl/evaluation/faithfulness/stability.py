"""How much an explanation changes when the clip hardly does, and whether it needs the weights that were trained.

Stability after Agarwal et al., "Rethinking stability for attribution-based explanations", 2022, equations 2, 3 and 5;
the check of randomised weights after Adebayo et al., "Sanity checks for saliency maps", NeurIPS 2018.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmcl.attributions.base import Attribution
from mmcl.attributions.view import content_keys
from mmcl.common.draws import derived_keys, normal
from mmcl.models.bundle import build_network
from mmcl.models.model import Model

FLOOR = 1e-3  # least size of what a relative change is relative to, as a part of the mean size
LEAST = 1e-6  # least change of what an explanation's change is divided by
NAMES = ("relative_input", "relative_output", "relative_representation")


def stability(
    attribution: Attribution, model: Model, clips: tuple[Tensor, Tensor | None], values: Tensor, target: Tensor,
    background: tuple[Tensor, Tensor], neighbours: int, noise: float,
) -> Tensor:  # fmt: skip
    """The largest relative change of an explanation over that of input, scores or features, among noisy neighbours.

    Args:
        attribution: what explains.
        model: what is explained.
        clips: joints (N, M, T, V, C) and lengths.
        values: (N, V) shares of the clips.
        target: (N,) classes.
        background: joints and lengths.
        neighbours: noisy versions of each clip; those with another answer do not count.
        noise: standard deviation, metres.

    Returns:
        (N, 3): RIS, ROS and RRS; NaN of a clip whose neighbours all have other answers.
    """
    (joints, lengths), keys = clips, content_keys(*clips, 0)
    there = (joints != 0).any(dim=-1, keepdim=True)
    scores, features = model(joints, lengths), model.features(joints, lengths)
    x = model.preprocess(joints, lengths)
    worst = torch.full((len(joints), 3), torch.nan, device=joints.device)
    for number in range(neighbours):
        drawn = torch.stack([normal(derived_keys(key[None], f"neighbour {number}"), "noise", tuple(clip.shape))[0]
                             for key, clip in zip(keys, joints, strict=True)])  # fmt: skip
        near = joints + noise * drawn * there
        after = model(near, lengths)
        found = attribution.run(model, near, lengths, target, *background).over_time
        change = _relative(values, found)
        divisors = (_relative(x.flatten(1), model.preprocess(near, lengths).flatten(1)), (scores - after).norm(dim=1),
                    _relative(features, model.features(near, lengths)))  # fmt: skip
        ratio = torch.stack([change / divisor.clamp(min=LEAST) for divisor in divisors], dim=1)
        same = (scores.argmax(dim=1) == after.argmax(dim=1))[:, None]
        worst = torch.where(same, torch.fmax(worst, ratio), worst)
    return worst


def _relative(before: Tensor, after: Tensor) -> Tensor:
    """(N,) size of the changes of entries (N, n), each relative to the entry."""
    size = before.abs()
    return ((before - after) / size.clamp(min=FLOOR * size.mean(dim=1, keepdim=True).clamp(min=LEAST))).norm(dim=1)


def randomised(model: Model, part: str, seed: int) -> Model:
    """A model of the same kind with fresh random weights: in its head, or in all of it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder, _ = build_network(model.description, str(model.path))
    if part == "head":
        state = encoder.state_dict()
        own = model.encoder.state_dict()
        encoder.load_state_dict({name: state[name] if encoder.in_head(name) else own[name] for name in state})
    return Model(model.description, encoder.to(model.device).eval(), model.preprocess, None, model.path)


def rank_correlation(one: Tensor, other: Tensor) -> Tensor:
    """(N,) Spearman correlation of the sizes of shares (N, V); equal sizes share the mean of their ranks."""
    from scipy.stats import rankdata

    ranks = [torch.from_numpy(rankdata(values.abs().cpu().numpy(), axis=1)) for values in (one, other)]
    centred = [rank - rank.mean(dim=1, keepdim=True) for rank in ranks]
    sizes = centred[0].norm(dim=1) * centred[1].norm(dim=1)
    return torch.where(sizes > 0, (centred[0] * centred[1]).sum(dim=1) / sizes, torch.nan).to(one.device)
