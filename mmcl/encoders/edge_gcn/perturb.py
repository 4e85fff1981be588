"""Perturbation of edge importance: many changed sets of E tensors, evaluated in one pass.

ShapGCN damages what a joint passes on to itself and watches the scores; it loads the changed weights and evaluates one
clip at a time. Here E has a batch axis: :func:`perturb_edges` makes one set of tensors for each choice of joints, and
:func:`scores_with_edges` evaluates all of them at once, which gives exactly what one by one would.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.func import functional_call

from mmcl.common.errors import UserError
from mmcl.encoders.edge_gcn.network import EdgeGCN

NEARLY = 1e-5  # released: what stands for zero
Edges = dict[str, Tensor]


def perturb_edges(
    edges: Mapping[str, Tensor], joints: Sequence[Sequence[int]], method: Literal["zero", "away", "towards"] = "zero",
    amount: float = 0.5, relative: bool = True, cross: bool = True, hops: int = 1, released: bool = False,
) -> Edges:  # fmt: skip
    """Change E[h, j, j] of chosen joints j, the share of a joint's own features in what it collects.

    Args:
        edges: (K, V, V) tensors by name, as ``EdgeGCN.edges`` gives them.
        joints: P choices of joints, of any number each.
        method: ``zero`` sets it to zero; ``away`` moves it away from zero; ``towards`` moves it towards zero.
        amount: of a move.
        relative: in ranges (largest minus smallest entry) of E[h].
        cross: a move towards zero may go beyond.
        hops: number of matrices to change, from h = 0; all of a tensor that has fewer.
        released: change joints in their order, each by the range that changes before it have left; write 0.00001 for
            zero; and change no more matrices of a tensor than the tensors before it have.

    Returns:
        (P, K, V, V) tensors by name.

    Raises:
        UserError: a joint that is not there, or hops below 1.
    """
    if hops < 1 or amount < 0:
        raise UserError(f"edges are perturbed in at least 1 matrix and by 0 or more, not {hops} and {amount}")
    found: Edges = {}
    for name, edge in edges.items():
        hops = min(hops, len(edge)) if released else hops
        changed = edge.detach().expand(len(joints), *edge.shape).clone()
        for row, choice in zip(changed, joints, strict=True):
            if not all(0 <= joint < edge.shape[-1] for joint in choice):
                raise UserError(f"joints {list(choice)} to perturb are not all among the {edge.shape[-1]} there are")
            for step in ([joint] for joint in choice) if released else [list(choice)]:
                part = row[: min(hops, len(edge))]
                spread = part.flatten(1).amax(dim=1) - part.flatten(1).amin(dim=1)
                change = amount * (spread[:, None] if relative else torch.ones_like(spread[:, None]))
                part[:, step, step] = _changed(part[:, step, step], method, change, cross, NEARLY if released else 0.0)
        found[name] = changed
    return found


def _changed(value: Tensor, method: str, change: Tensor, cross: bool, zero: float) -> Tensor:
    """New values (hops, joints) of entries of E; what is not above zero counts as below."""
    if method == "zero":
        return torch.full_like(value, zero)
    sign = torch.where(value > 0, 1.0, -1.0).to(value)
    if method == "away":
        return value + sign * change
    if method != "towards":
        raise UserError(f"edges are perturbed by zero, away or towards, not {method!r}")
    moved = value.abs() - change
    return sign * (moved if cross else moved.clamp(min=zero))


@torch.no_grad()
def scores_with_edges(
    encoder: EdgeGCN, x: Tensor, edges: Mapping[str, Tensor], paired: bool = False, rows: int = 64
) -> Tensor:
    """Scores of clips under many sets of edge importance, in evaluation.

    Args:
        encoder: stays as it is.
        x: (N, M, T, V, C).
        edges: (P, K, V, V) tensors by name; those left out stay the encoder's own.
        paired: clip n has set n, and no other (P = N).
        rows: clips at once, each with its own set.

    Returns:
        (P, N, K) scores; paired: (N, K).

    Raises:
        UserError: a name that the encoder has not, or sets that do not fit.
    """
    own, sets = encoder.edges(), {len(tensor) for tensor in edges.values()}
    if not edges or set(edges) - set(own) or len(sets) != 1 or (paired and sets != {len(x)}):
        raise UserError(
            f"edges must be tensors of one number of sets{f', {len(x)}' if paired else ''}, by names of the encoder: "
            f"{', '.join(own)}"
        )
    if any(tensor.shape[1:] != own[name].shape for name, tensor in edges.items()):
        raise UserError("edges must have the shapes of the encoder's own behind the axis of sets")
    P, N = next(iter(sets)), len(x)
    number = torch.arange(N if paired else P * N, device=x.device)
    chosen, clips = (number, number) if paired else (number // N, number % N)
    training = encoder.training
    encoder.eval()
    try:
        parts = [
            functional_call(encoder, _sets(own, edges, which, encoder.options.persons), (x[clip],))
            for which, clip in zip(chosen.split(rows), clips.split(rows), strict=True)
        ]
    finally:
        encoder.train(training)
    scores = torch.cat(parts)
    return scores if paired else scores.unflatten(0, (P, N))


def _sets(own: Mapping[str, Tensor], edges: Mapping[str, Tensor], which: Tensor, persons: int) -> Edges:
    """E for each body of a batch of clips: (clips * persons, K, V, V)."""
    bodies = which.repeat_interleave(persons)
    return {
        name: edges[name][bodies] if name in edges else edge.expand(len(bodies), *edge.shape)
        for name, edge in own.items()
    }
