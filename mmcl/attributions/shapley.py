"""Shapley values of joints, parts, or joints in segments of time: what each adds to a score, whoever came before."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from mmcl.attributions.base import Attribution, AttributionOptions
from mmcl.attributions.coalitions import all_coalitions, antithetic_orders, chains, exact_shares, order_shares
from mmcl.attributions.players import Players, membership, spread
from mmcl.attributions.view import View
from mmcl.common.draws import named_seed
from mmcl.common.errors import UserError

MOST_EXACT = 16  # players: 65,536 coalitions with every background clip


@dataclass(frozen=True)
class ShapleyOptions(AttributionOptions):
    """Options of :class:`Shapley`.

    Attributes:
        players: joints; parts of the body; segments: every joint in every part of the clip's time.
        segments: parts of the time.
        permutations: random orders in which players join, half of them the others backwards; as many more as make the
            same number of pairs for every background clip.
        exact: up to so many players, all coalitions are evaluated with every background clip, and nothing is drawn.
    """

    players: Players = "joints"
    segments: int = 4
    permutations: int = 200
    exact: int = 10

    def __post_init__(self) -> None:
        if self.segments < 1 or self.permutations < 1:
            raise UserError(
                f"shapley.segments and shapley.permutations must be 1 or more, not {self.segments} and "
                f"{self.permutations}"
            )
        if not 0 <= self.exact <= MOST_EXACT:
            raise UserError(f"shapley.exact is {self.exact}: it must be from 0 to {MOST_EXACT}")


class Shapley(Attribution):
    """The mean, over orders in which players join, of what a player adds to the score of those before it.

    Players who have not joined move as in a background clip. The worth of a coalition is the mean of the target's
    score over background clips; each order is played with one of them, all of them equally often, so that shares sum
    to the score less its mean over the background without any sampling error.

    Strumbelj and Kononenko, "Explaining prediction models and individual predictions with feature contributions", KAIS
    2014, algorithm 2. A player's share is spread evenly over the joints and frames that it holds.
    """

    options_type = ShapleyOptions
    tiny = MappingProxyType({"permutations": 4})

    @property
    def timed(self) -> bool:
        """Whether players are segments of time."""
        return bool(self.options.players == "segments")

    def attribute(self, view: View) -> Tensor:
        """(N, W, V) where players are segments of time, or (N, V)."""
        found = []
        for clip in range(len(view.x)):
            options, layout = self.options, view.encoder.layout
            member, players = membership(options.players, view.mask[clip], layout, options.segments)
            shares = spread(self._shares(view, clip, member, players), member)
            found.append(shares if options.players == "segments" else shares.sum(dim=0))
        return torch.stack(found)

    def _shares(self, view: View, clip: int, member: Tensor, players: int) -> Tensor:
        """(P,) Shapley values of the players of one clip."""
        B = len(view.background)
        if players <= self.options.exact:
            coalitions = all_coalitions(players).repeat(B, 1)
            behind = torch.arange(B).repeat_interleave(2**players)
            return exact_shares(self._worth(view, clip, member, coalitions, behind).unflatten(0, (B, -1)).mean(dim=0))
        generator = torch.Generator().manual_seed(named_seed(int(view.keys[clip]), "shapley"))
        pairs = -(-self.options.permutations // (2 * B))  # of each background clip
        orders = antithetic_orders(players, B * pairs, generator)
        behind = torch.arange(B).repeat_interleave(2 * pairs)
        steps = chains(orders)
        worth = self._worth(view, clip, member, steps.flatten(0, 1), behind.repeat_interleave(players + 1))
        return order_shares(orders.to(worth.device), worth.unflatten(0, (-1, players + 1))).mean(dim=0)

    def _worth(self, view: View, clip: int, member: Tensor, coalitions: Tensor, behind: Tensor) -> Tensor:
        """(R,) target scores of coalitions (R, P), each with the background clip (R,); every one is computed once."""
        behind = torch.where(coalitions.all(dim=1), 0, behind)  # with all players there, no background shows
        different, place = torch.unique(
            torch.cat([behind[:, None], coalitions.long()], dim=1), dim=0, return_inverse=True
        )
        device, x, background = view.x.device, view.x[clip], view.background_of(clip)
        joined = torch.cat([different[:, 1:] > 0, torch.ones(len(different), 1, dtype=torch.bool)], dim=1).to(device)
        found = []
        for rows in view.watched(list(torch.arange(len(different), device=device).split(view.together))):
            own = joined[rows][:, member]  # the last column is what -1 finds: a missing joint is as the clip has it
            clips = torch.where(own[..., None], x, background[different[:, 0].to(device)[rows]])
            found.append(view.scores(clips, view.target[clip].expand(len(rows))))
        return torch.cat(found)[place.to(device)]
