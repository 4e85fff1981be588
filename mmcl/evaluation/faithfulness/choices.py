"""Which joints are damaged: those an explanation names, those it names last, and as many at random."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mmcl.attributions.released import joint_sets
from mmcl.common.draws import uniform


@dataclass(frozen=True)
class Choices:
    """Sets of joints of some clips.

    Attributes:
        important: (N, k, V) bool, one set for each number of joints; those that speak most for the class.
        unimportant: the same of those that speak most against it, or least for it.
        random: (N, draws, k, V), as many joints in each as in the important one.
        places: (N, 2 + draws, V) at which place of its order a joint comes: that of shares, twice, and those drawn.
    """

    important: Tensor
    unimportant: Tensor
    random: Tensor
    places: Tensor

    def stacked(self) -> Tensor:
        """(N, 2 + draws, k, V): important, unimportant, random draws."""
        return torch.cat([self.important[:, None], self.unimportant[:, None], self.random], dim=1)

    def stacked_places(self) -> Tensor:
        """(N, 2 + draws, k, V): the order of each of these sets."""
        return self.places[:, :, None].expand(-1, -1, self.important.shape[1], -1)


def ranked_choices(values: Tensor, there: Tensor, counts: tuple[int, ...], keys: Tensor, draws: int) -> Choices:
    """The first and the last joints of a ranking, whatever their signs, among those that a clip shows.

    Args:
        values: (N, V) shares.
        there: (N, V) whether a clip ever shows a joint.
        counts: how many joints; no more than a clip has.
        keys: (N,) of the random draws.
        draws: of the control.
    """
    V = values.shape[1]
    first = _places(torch.where(there, -values, torch.inf))
    # The same order from its end: an order of its own would give tied joints to both sets, since it is stable, too.
    last = torch.where(there, there.sum(dim=1, keepdim=True) - 1 - first, V)
    chance = _chance(there, keys, draws)
    sizes = torch.tensor(counts, device=values.device).expand(len(values), -1).clamp(max=V)
    sizes = torch.minimum(sizes, there.sum(dim=1, keepdim=True))
    return Choices(_first(first, sizes), _first(last, sizes), _first(chance, sizes[:, None]), _orders(first, chance))


def signed_choices(
    values: Tensor, there: Tensor, counts: tuple[int, ...], keys: Tensor, draws: int, released: bool
) -> Choices:
    """Joints that speak for a class against those that speak against it, as ShapGCN chooses them.

    The released sets hold fewer joints where fewer have that sign, and random ones always k. Here the three sets of a
    clip have one size, the smallest of the three, so that none is damaged more than another; ``released`` leaves them.

    Args:
        values: (N, V) shares.
        there: (N, V) whether a clip ever shows a joint.
        counts: k, in turn.
        keys: (N,) of the random draws.
        draws: of the control.
        released: as released.
    """
    V, chance = values.shape[1], _chance(there, keys, draws)
    important, unimportant, random = [], [], []
    for count in counts:
        sets = [joint_sets(values, count, good) for good in (True, False)]
        size = torch.tensor([min(len(one), len(other)) for one, other in zip(*sets, strict=True)])
        if released:
            size = torch.full_like(size, count)
        else:  # the loudest on either side stay
            sets = [[row[:n] if good else row[len(row) - n :] for row, n in zip(rows, size.tolist(), strict=True)]
                    for good, rows in zip((True, False), sets, strict=True)]  # fmt: skip
        important.append(_marked(sets[0], V))
        unimportant.append(_marked(sets[1], V))
        random.append(_first(chance, size.to(chance.device)[:, None, None])[:, :, 0])
    return Choices(
        torch.stack(important, dim=1).to(values.device), torch.stack(unimportant, dim=1).to(values.device),
        torch.stack(random, dim=2), _orders(_places(-values), chance),
    )  # fmt: skip


def _places(order: Tensor) -> Tensor:
    """At which place of an ascending order each entry of the last axis stands."""
    return order.argsort(dim=-1, stable=True).argsort(dim=-1)


def _chance(there: Tensor, keys: Tensor, draws: int) -> Tensor:
    """(N, draws, V) places in random orders; joints that are not there come last."""
    drawn = uniform(keys, "random joints", (draws, there.shape[1]))
    return _places(torch.where(there[:, None], drawn, 2.0))


def _orders(shares: Tensor, chance: Tensor) -> Tensor:
    """(N, V) and (N, draws, V) places -> (N, 2 + draws, V), of the important, the unimportant and the random joints."""
    return torch.cat([shares[:, None].expand(-1, 2, -1), chance], dim=1)


def _first(places: Tensor, sizes: Tensor) -> Tensor:
    """(…, V) places and (…, k) sizes -> (…, k, V), the first so many."""
    return places[..., None, :] < sizes[..., :, None]


def _marked(sets: list[list[int]], count: int) -> Tensor:
    marked = torch.zeros(len(sets), count, dtype=torch.bool)
    for row, joints in zip(marked, sets, strict=True):
        row[joints] = True
    return marked
