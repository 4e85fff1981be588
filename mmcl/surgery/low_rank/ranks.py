"""From a policy to the rank of every layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from mmcl.common.errors import UserError
from mmcl.surgery.low_rank.layers import Site

Ranks = dict[str, tuple[int, ...]]  # layer -> rank of each part
Energies = Mapping[str, Sequence[Tensor]]  # layer -> of each part what its directions are worth, falling
Weights = Mapping[str, float]  # layer -> cost of one of its numbers
STEPS, OCTAVES = 60, 80  # halvings of the interval, in octaves, in which the price of a budget lies


def by_rule(sites: Sequence[Site], energies: Energies, policy: str, amount: float) -> Ranks:
    """Ranks of all layers by one of the rules "rank", "ratio", "energy".

    Args:
        sites: the layers.
        energies: are looked at for the rule "energy" alone.
        policy: the rule.
        amount: its number.
    """
    if policy == "energy":
        return {site.name: tuple(_enough(part, amount) for part in energies[site.name]) for site in sites}
    if policy == "rank":
        return {site.name: (min(int(amount), site.most),) * site.parts for site in sites}
    return {site.name: (max(1, int(amount * site.most + 1e-9)),) * site.parts for site in sites}


def _enough(energies: Tensor, share: float) -> int:
    """The smallest rank that keeps a share of the energy."""
    kept = energies.double().cumsum(0)
    return min(len(kept), 1 + int((kept < share * kept[-1] * (1 - 1e-12)).sum()))


def saving(sites: Sequence[Site], ranks: Ranks) -> Ranks:
    """Those ranks with which a layer holds fewer numbers than now."""
    return {site.name: ranks[site.name] for site in sites if site.cost(ranks[site.name]) < site.now}


def within(sites: Sequence[Site], energies: Energies, budget: float, whole: float, weights: Weights) -> Ranks:
    """Ranks that lose the least within a budget.

    What a layer loses is the share of its energy that is left out. A price is put on cost, and every layer takes the
    rank, or stays whole, where loss + price x cost is least (Everett, 1963). So no other ranks of the same total cost
    lose less in sum, and a layer whose directions are cheap, as the first one's, keeps more of them than one whose
    directions are dear. The price is the lowest with which the budget is kept.

    Args:
        sites: the layers.
        energies: of each.
        budget: the most that the network may cost.
        whole: what it costs now.
        weights: layer -> cost of one number of it: 1 for parameters, how often it is multiplied for
            multiply-accumulates.

    Raises:
        UserError: the smallest ranks of all layers are not within the budget.
    """
    measure = cost_by(sites, whole, weights)
    if measure({}) <= budget:
        return {}
    used = [site for site in sites if weights[site.name] > 0]
    # With a price of 2 parts / the smallest weight, one number fewer is worth more than anything that can be lost.
    high = max((2.0 * site.parts / weights[site.name] for site in used), default=1.0)
    found = _at_price(used, energies, high, weights)
    if (least := measure(found)) > budget:
        raise UserError(_too_large(least, budget))
    low = high * 2.0**-OCTAVES
    for _ in range(STEPS):
        middle = (low * high) ** 0.5
        ranks = _at_price(used, energies, middle, weights)
        if measure(ranks) <= budget:
            high, found = middle, ranks
        else:
            low = middle
    return found


def _too_large(least: float, budget: float) -> str:
    least_words, most = (f"{cost:,.0f}" if cost >= 1000 else f"{cost:.4g}" for cost in (least, budget))
    return (
        f"low_rank: with rank 1 in every layer that may be factored the network still takes {least_words}, and at most "
        f"{most} are allowed: allow more, or let more layers be factored (--temporal: those over several frames, "
        "--option head=true: the head)"
    )


def _at_price(sites: Sequence[Site], energies: Energies, price: float, weights: Weights) -> Ranks:
    """What every layer takes where a unit of cost has this price; layers that stay whole are not named."""
    found = {}
    for site in sites:
        number = price * weights[site.name]
        ranks, total = [], 0.0
        for part in (some.double() for some in energies[site.name]):
            kept = part.cumsum(0)
            each = (kept[-1] - kept) / kept[-1].clamp(min=1e-300)  # what ranks 1, 2, … lose
            each = each + number * site.cost((1,)) * torch.arange(1, len(part) + 1, dtype=each.dtype)
            ranks.append(1 + int(each.argmin()))
            total += float(each.min())
        if total < number * site.now:
            found[site.name] = tuple(ranks)
    return found


def within_time(
    sites: Sequence[Site], energies: Energies, budget: float, whole: float, weights: Weights,
    measure: Callable[[Ranks], float], trials: int,
) -> Ranks:  # fmt: skip
    """As :func:`within` for what can only be measured: as much cost as the budget of ``measure`` allows.

    Args:
        sites: the layers.
        energies: of each.
        budget: the most that ``measure`` may say.
        whole: what the network costs now.
        weights: as above.
        measure: of a network with these ranks, for instance its time.
        trials: halvings of the interval between the least cost and the whole.
    """
    if measure({}) <= budget:
        return {}
    used = [site for site in sites if weights[site.name] > 0]
    smallest = saving(used, {site.name: (1,) * site.parts for site in used})
    least = cost_by(sites, whole, weights)(smallest)
    found = within(sites, energies, least, whole, weights)
    if (seen := measure(found)) > budget:
        raise UserError(_too_large(seen, budget))
    low, high = least, whole
    for _ in range(trials):
        middle = (low + high) / 2
        ranks = within(sites, energies, middle, whole, weights)
        if measure(ranks) <= budget:
            low, found = middle, ranks
        else:
            high = middle
    return found


def cost_by(sites: Sequence[Site], whole: float, weights: Weights) -> Callable[[Ranks], float]:
    """What a network costs with ranks, where every number of a layer costs the same.

    Args:
        sites: the layers.
        whole: what the network costs now.
        weights: layer -> cost of one number: 1 for parameters, how often it is multiplied for multiply-accumulates.
    """
    return lambda ranks: (
        whole
        - sum(weights[site.name] * (site.now - site.cost(ranks[site.name])) for site in sites if site.name in ranks)
    )
