"""From one layout to another, by joint name. A conversion is a fixed (V_target, V_source) matrix.

That makes 20 -> 25 interpolation, 25 -> 20 selection and COCO -> Kinect one batched matrix product that runs on any
device and exports to any graph format. Joints that the source lacks come from the target layout's ``derived`` rules
(Kinect v1 -> v2: the neck is the midpoint of spine-shoulder and head, the thumb the midpoint of wrist and hand, the
hand tip lies half a hand length beyond the hand; our choice, the published script was never released). Rules that most
layouts share are in ``joints.yaml``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmcl.common.errors import UserError
from mmcl.skeletons.layout import Layout

MOST_NAMED = 6  # joints in a complaint
TINY = 1e-6  # a share of weights below it is none


def conversion_matrix(source: Layout, target: Layout) -> Tensor:
    """Weights that make the target's joints out of the source's.

    Returns:
        (V_target, V_source) float32, rows sum to 1.

    Raises:
        UserError: a target joint is neither in the source nor derivable from it.
    """
    known = dict(zip(source.joints, torch.eye(source.joint_count), strict=True))
    pending = {joint: rules for joint, rules in target.derived.items() if joint not in known}
    found = True
    while found:  # rules may build on each other; those that lead back to themselves never get their ingredients
        made = {}
        for joint, rules in pending.items():
            rule = next((rule for rule in rules if all(name in known for name in rule)), None)
            if rule is not None:
                made[joint] = torch.stack([weight * known[name] for name, weight in rule.items()]).sum(dim=0)
        known.update(made)
        pending = {joint: rules for joint, rules in pending.items() if joint not in made}
        found = bool(made)
    if missing := [joint for joint in target.joints if joint not in known]:
        more = f" and {len(missing) - MOST_NAMED} more" if len(missing) > MOST_NAMED else ""
        raise UserError(
            f"layout '{source.name}' cannot become '{target.name}': no joint and no 'derived' rule for "
            f"{', '.join(missing[:MOST_NAMED])}{more}"
        )
    return torch.stack([known[joint] for joint in target.joints])


def convert(x: Tensor, mask: Tensor, matrix: Tensor, width: int | None = None) -> tuple[Tensor, Tensor]:
    """Apply :func:`conversion_matrix`.

    A joint that is made of several is made of those that are there. Where its rule goes beyond joints (a crown lies
    above the ears, away from the shoulders), the joints that it starts from and those that it goes away from are
    averaged apart, each over those that are there: if one ear is hidden, the other one stands for both. Without any
    joint to go away from, the place is that of the joints to start from; without any to start from, the joint is
    missing. Its confidence is the mean of its joints', weighted by how much of each is in it.

    Args:
        x: (N, M, C, T, V_source) joints, zero where missing.
        mask: (N, M, T, V_source) bool.
        matrix: (V_target, V_source).
        width: how many of the C are coordinates, confidences behind them; None: all.

    Returns:
        joints (N, M, C, T, V_target) and their mask (N, M, T, V_target).
    """
    weights, seen, places = matrix.to(x).T, mask.to(x), x[:, :, :width]
    start, away = weights.clamp(min=0), (-weights).clamp(min=0)
    share, opposite = seen @ start, seen @ away  # of each joint's weights, what is there
    there = share > TINY
    both = there & (opposite > TINY)
    begin = places @ start / torch.where(there, share, 1)[:, :, None]
    end = places @ away / torch.where(both, opposite, 1)[:, :, None]
    made = torch.where(both[:, :, None], begin * start.sum(dim=0) - end * away.sum(dim=0), begin)
    if width is not None and x.shape[2] > width:
        amounts = weights.abs()
        whole = torch.where(there, seen @ amounts, 1)
        made = torch.cat([made, x[:, :, width:] @ amounts / whole[:, :, None]], dim=2)
    return torch.where(there[:, :, None], made, 0), there
