"""Shapley values of any game: all coalitions of a few players, or random orders of many, in antithetic pairs."""

from __future__ import annotations

from math import comb

import torch
from torch import Tensor


def all_coalitions(players: int) -> Tensor:
    """(2**P, P) bool; player p is in coalition s where bit p of s is set."""
    return (torch.arange(2**players)[:, None] >> torch.arange(players)) % 2 == 1


def exact_shares(worth: Tensor) -> Tensor:
    """Shapley values from the worth of every coalition.

    Args:
        worth: (2**P,) in the order of :func:`all_coalitions`.

    Returns:
        (P,): the mean over all orders of what a player adds to those before it. They sum to the worth of all players
        less that of none.
    """
    players = len(worth).bit_length() - 1
    members = all_coalitions(players).to(worth.device)
    weight = torch.tensor([1 / (players * comb(players - 1, size)) if size < players else 0.0 for size in
                           range(players + 1)], dtype=worth.dtype, device=worth.device)  # fmt: skip
    size = members.sum(dim=1)
    shares = []
    for player in range(players):
        without = torch.nonzero(~members[:, player])[:, 0]
        shares.append((weight[size[without]] * (worth[without + 2**player] - worth[without])).sum())
    return torch.stack(shares) if shares else worth.new_zeros(0)


def antithetic_orders(players: int, pairs: int, generator: torch.Generator) -> Tensor:
    """(2 * pairs, P) random orders of the players, each followed by itself backwards.

    A player that comes late in one of a pair comes early in the other, which cancels most of what depends on the place
    (Mitchell et al., "Sampling permutations for Shapley value estimation", JMLR 2022, section 4.1).
    """
    orders = torch.rand(pairs, players, generator=generator).argsort(dim=1)
    return torch.stack([orders, orders.flip(1)], dim=1).flatten(0, 1)


def chains(orders: Tensor) -> Tensor:
    """(R, P) orders -> (R, P + 1, P) bool: the coalition of the first 0, 1, … P players of each."""
    place = orders.argsort(dim=1)
    return place[:, None, :] < torch.arange(orders.shape[1] + 1)[:, None]


def order_shares(orders: Tensor, worth: Tensor) -> Tensor:
    """(R, P) what each player adds to those before it, from the worth (R, P + 1) of coalitions of :func:`chains`."""
    return torch.zeros(orders.shape, dtype=worth.dtype, device=worth.device).scatter(1, orders, worth.diff(dim=1))
