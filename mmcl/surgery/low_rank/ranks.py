"""From a policy to the rank of every layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from mmcl.common.errors import UserError
from mmcl.surgery.low_rank.layers import Site

Ranks = dict[str, tuple[int, ...]]  # layer -> rank of each part
Energies = Mapping[str, Sequence[Tensor]]  # layer -> of each part its squared singular values, falling
STEPS = 40  # halvings of the interval in which a budget's energy lies


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
    kept = energies.cumsum(0)
    return min(len(kept), 1 + int((kept < share * kept[-1] * (1 - 1e-12)).sum()))


def saving(sites: Sequence[Site], ranks: Ranks) -> Ranks:
    """Those ranks with which a layer holds fewer numbers than now."""
    return {site.name: ranks[site.name] for site in sites if site.cost(ranks[site.name]) < site.now}


def within(
    sites: Sequence[Site], energies: Energies, budget: float, measure: Callable[[Ranks], float], steps: int = STEPS
) -> Ranks:  # fmt: skip
    """The ranks of the largest energy, the same for all layers, whose network stays within a budget.

    Args:
        sites: the layers.
        energies: of each.
        budget: the most that ``measure`` may say.
        measure: what the network costs with these ranks; layers that are not named stay as they are.
        steps: halvings of the interval.

    Raises:
        UserError: rank 1 in all layers is not within the budget.
    """

    def at(energy: float) -> Ranks:
        return saving(sites, by_rule(sites, energies, "energy", energy))

    if measure({}) <= budget:
        return {}
    low, high, found = 0.0, 1.0, at(0.0)
    if (least := measure(found)) > budget:
        raise UserError(f"low_rank: with rank 1 in every layer the network still takes {least:,.4g} of {budget:,.4g}")
    for _ in range(steps):
        middle = (low + high) / 2
        ranks = at(middle)
        if measure(ranks) <= budget:
            low, found = middle, ranks
        else:
            high = middle
    return found


def cost_by(sites: Sequence[Site], whole: float, weights: Mapping[str, float]) -> Callable[[Ranks], float]:
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
