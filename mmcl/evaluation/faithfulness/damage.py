"""Scores of clips whose joints were damaged: in the input of any encoder, or inside ``edge_gcn``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from mmcl.attributions.view import View
from mmcl.encoders.edge_gcn.network import EdgeGCN
from mmcl.encoders.edge_gcn.perturb import perturb_edges, scores_with_edges

Method = Callable[[View, Tensor, Tensor], Tensor]  # (view, sets (N, S, V), places (N, S, V)) -> scores (N, S, K)


@torch.no_grad()
def deleted(view: View, sets: Tensor, places: Tensor) -> Tensor:
    """(N, S, K) scores of clips whose chosen joints (N, S, V) move as the mean of the background."""
    return _mixed(view, ~sets)


@torch.no_grad()
def inserted(view: View, sets: Tensor, places: Tensor) -> Tensor:
    """(N, S, K) scores of the background's mean, in which the chosen joints (N, S, V) move as in the clip."""
    return _mixed(view, sets)


def _mixed(view: View, own: Tensor) -> Tensor:
    found = []
    for clip, sets in enumerate(own):
        start = view.background_of(clip).mean(dim=0)
        for part in sets.split(view.rows):
            found.append(view.lean(torch.where(part[:, None, None, :, None], view.x[clip], start)))
    return torch.cat(found).unflatten(0, own.shape[:2])


def edges_changed(method: Literal["zero", "away"], amount: float, released: bool) -> Method:
    """Scores of an ``edge_gcn`` whose edge importance E[0, j, j] of chosen joints j is changed.

    Released, joints are changed one after the other, and their order matters: it is that of shares where a set was
    chosen by them, and that of the draw where it is random.

    Args:
        method: zero or away, as :func:`mmcl.encoders.edge_gcn.perturb.perturb_edges` has them.
        amount: of the move, in ranges of E.
        released: as released.
    """

    def scores(view: View, sets: Tensor, places: Tensor) -> Tensor:
        encoder, (N, S, _) = view.encoder, sets.shape
        assert isinstance(encoder, EdgeGCN)
        orders = places.argsort(dim=2).flatten(0, 1).tolist()
        joints = [[joint for joint in order if chosen[joint]]
                  for order, chosen in zip(orders, sets.flatten(0, 1).tolist(), strict=True)]  # fmt: skip
        clip, found = torch.arange(N, device=sets.device).repeat_interleave(S), []
        for rows in torch.arange(N * S, device=sets.device).split(view.rows):
            some = [joints[row] for row in rows.tolist()]
            edges = perturb_edges(encoder.edges(), some, method, amount, released=released)
            found.append(scores_with_edges(encoder, view.x[clip[rows]], edges, paired=True, rows=view.rows))
        return torch.cat(found).unflatten(0, (N, S))

    return scores
