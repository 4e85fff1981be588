"""The factors against closed forms, and policies against what they promise."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from torch import nn

from mmcl.common.errors import UserError
from mmcl.encoders.building import build_encoder
from mmcl.encoders.counting import count_parameters
from mmcl.encoders.factored import factored
from mmcl.skeletons.layout import load_layout
from mmcl.surgery.low_rank.layers import Site, decompose, factors, find_sites
from mmcl.surgery.low_rank.options import LowRankOptions
from mmcl.surgery.low_rank.outputs import output_moments
from mmcl.surgery.low_rank.ranks import Ranks, by_rule, cost_by, saving, within, within_time
from mmcl.surgery.low_rank.surgery import LowRank

NTU = load_layout("kinect_v2_25")
LAYERS = {
    "linear": (lambda: nn.Linear(20, 12), 1), "fused": (lambda: nn.Linear(20, 24), 3),
    "groups": (lambda: nn.Conv2d(24, 36, 1, groups=3), 1), "taps": (lambda: nn.Conv2d(8, 10, (1, 5)), 1),
}  # fmt: skip


def truncated(layer: nn.Module, site: Site, rank: int, options: LowRankOptions) -> nn.Module:
    pairs = [factors(part, rank, options, f"{k}") for k, part in enumerate(decompose(layer, site))]
    found = factored(layer, [rank] * site.parts)
    found.fill([down for down, _ in pairs], [up for _, up in pairs])
    return found


def site_of(layer: nn.Module, parts: int) -> Site:
    weight, groups = layer.weight, getattr(layer, "groups", 1)
    return Site("x", len(weight) // groups // parts, weight[0].numel(), groups, parts, weight.numel())


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("balanced", [True, False])
def test_the_error_of_a_layer_is_the_energy_of_the_values_that_are_left_out(name: str, balanced: bool) -> None:
    """Eckart and Young, matrix by matrix; a random projection of the same rank is far worse."""
    torch.manual_seed(0)
    make, parts = LAYERS[name]
    layer = make()
    site, options = site_of(layer, parts), LowRankOptions(balanced=balanced)
    matrices = layer.weight.detach().double().reshape(-1, site.rows, site.columns)
    for rank in (1, 3, site.most):
        small = truncated(layer, site, rank, options)
        tail = sum(float(torch.linalg.svdvals(matrix)[rank:].square().sum()) for matrix in matrices)
        error = float((layer.weight - small.weight).detach().double().square().sum())
        assert error == pytest.approx(tail, rel=1e-5, abs=1e-5)
        if rank < site.most // 2:
            chance = truncated(layer, site, rank, LowRankOptions(basis="random"))
            assert float((layer.weight - chance.weight).detach().square().sum()) > 1.1 * error
    norms = [part.norm(dim=0) for part in small.up]
    rows = small.down.flatten(1).norm(dim=1).split(small.ranks) if site.groups == 1 else None
    if rows is not None:
        for up, down in zip(norms, rows, strict=True):  # whose are the singular values
            torch.testing.assert_close(up, down if balanced else torch.ones_like(up), rtol=1e-4, atol=1e-5)


def test_a_random_basis_is_the_same_again_and_another_with_another_seed() -> None:
    layer = nn.Linear(20, 12)
    site = site_of(layer, 1)
    one, again, other = (
        truncated(layer, site, 3, LowRankOptions(basis="random", seed=seed)).weight for seed in (0, 0, 1)
    )  # fmt: skip
    assert torch.equal(one, again) and not torch.allclose(one, other)


def planned(name: str, rank: int, include: tuple[str, ...], branches: bool = False) -> int:
    """Parameters of a full-size network, without allocating it, with layers factored to one rank.

    Args:
        name: of the network.
        rank: of each matrix; queries, keys and values in one count as one matrix.
        include: patterns of layers.
        branches: also the four convolutions in one that temporal units begin with, each for itself.
    """
    with torch.device("meta"):
        encoder = build_encoder(name, NTU, 60)
        plans = [LowRankOptions("rank", rank, include=include, apart=False)]
        plans += [LowRankOptions("rank", rank, include=("*.reduce",))] if branches else []
        for options in plans:
            sites = find_sites(encoder, options)
            ranks = saving(sites, by_rule(sites, {}, "rank", rank))
            LowRank.reshape(encoder, {"layers": {layer: list(part) for layer, part in ranks.items()}})
    return count_parameters(encoder)


def test_parameters_of_the_published_networks_at_known_ranks() -> None:
    """Counted by hand: nine blocks of 216 channels with q, kv and hyperedge; ten matrices of 6400 x 6400."""
    attention = ("*.query", "*.key_value", "*.hyperedge")
    for rank, expected in ((8, 1_158_442), (16, 1_267_306), (24, 1_376_170), (32, 1_485_034), (64, 1_920_490)):
        assert planned("hyperformer", rank, attention) == expected
    assert planned("hyperformer", 32, attention, branches=True) == 1_364_074
    assert planned("hyperformer", 8, attention, branches=True) == 778_282
    assert planned("hyperformer", 48, attention, branches=True) == 1_702_762  # more than 43 saves nothing in 216 x 54

    with torch.device("meta"):
        square = [n for n, m in build_encoder("step_catformer", NTU, 60).named_modules()
                  if isinstance(m, nn.Linear) and m.weight.shape == (6400, 6400)]  # fmt: skip
    assert len(square) == 10
    assert planned("step_catformer", 64, tuple(square)) == 417_977_435 - 409_600_000 + 10 * 64 * 12_800


SITES = [Site("a", 8, 6, 1, 1, 48), Site("b", 4, 12, 1, 2, 96), Site("c", 3, 4, 5, 1, 60)]
ENERGIES = {
    "a": [torch.tensor([9.0, 4.0, 2.0, 1.0, 0.5, 0.1])],
    "b": [torch.tensor([4.0, 3.0, 2.0, 1.0]), torch.tensor([8.0, 1.0, 0.5, 0.5])],
    "c": [torch.tensor([5.0, 4.0, 1.0])],
}


def test_a_share_of_energy_is_kept_of_thousands_of_directions_in_single_precision() -> None:
    """Energies of large matrices are float32; summed in it, 0.99999 of these seems to be there a rank too early."""
    torch.manual_seed(0)
    energies = (torch.rand(6400) ** 6).sort(descending=True).values + 1e-6
    kept = energies.double().cumsum(0) / energies.double().sum()
    site = Site("one", 6400, 6400, 1, 1, 6400**2)
    for share in (0.5, 0.99, 0.99999, 1.0):
        (rank,) = by_rule([site], {"one": [energies]}, "energy", share)["one"]
        assert kept[rank - 1] >= share * (1 - 1e-12) and (rank == 1 or kept[rank - 2] < share)


def test_rules_give_the_ranks_that_they_speak_of() -> None:
    assert by_rule(SITES, {}, "rank", 4) == {"a": (4,), "b": (4, 4), "c": (3,)}
    assert by_rule(SITES, {}, "ratio", 0.5) == {"a": (3,), "b": (2, 2), "c": (1,)}
    assert by_rule(SITES, {}, "ratio", 0.01) == {"a": (1,), "b": (1, 1), "c": (1,)}
    for share in (0.3, 0.5, 0.8, 0.9, 0.95, 1.0):
        for name, ranks in by_rule(SITES, ENERGIES, "energy", share).items():
            for rank, part in zip(ranks, ENERGIES[name], strict=True):
                naive = next(k for k in range(1, len(part) + 1) if part[:k].sum() >= share * part.sum() - 1e-6)
                assert rank == naive
    kept = saving(SITES, {"a": (4,), "b": (1, 2), "c": (2,)})
    assert kept == {"b": (1, 2)}  # 4 * 14 of 48, 3 * 16 of 96, 5 * 2 * 7 of 60


WEIGHTS = {"a": 1.0, "b": 2.0, "c": 1.0}
WHOLE = float(sum(WEIGHTS[site.name] * site.now for site in SITES) + 100)


def every_choice() -> list[tuple[float, float]]:
    """What every combination of ranks, and of layers that stay whole, costs and loses."""
    ways = []
    for site in SITES:
        ranks = itertools.product(*(range(1, len(part) + 1) for part in ENERGIES[site.name]))
        lost = [(WEIGHTS[site.name] * site.now, 0.0)]
        for some in ranks:
            tails = [float(p[k:].sum() / p.sum()) for p, k in zip(ENERGIES[site.name], some, strict=True)]
            lost.append((WEIGHTS[site.name] * site.cost(some), sum(tails)))
        ways.append(lost)
    return [(100 + sum(c for c, _ in some), sum(x for _, x in some)) for some in itertools.product(*ways)]


def lost_by(ranks: Ranks) -> float:
    """The shares of energy that ranks leave out, summed over layers and parts."""
    parts = [(part, k) for name, some in ranks.items() for part, k in zip(ENERGIES[name], some, strict=True)]
    return sum(float(part[k:].sum() / part.sum()) for part, k in parts)


def test_a_budget_is_kept_and_nothing_of_the_same_cost_loses_less() -> None:
    """Against all 7,000 combinations of ranks of three layers."""
    measure, choices = cost_by(SITES, WHOLE, WEIGHTS), every_choice()
    least = min(cost for cost, _ in choices)
    seen = set()
    for budget in range(int(least), int(WHOLE)):
        ranks = within(SITES, ENERGIES, budget, WHOLE, WEIGHTS)
        cost = measure(ranks)
        assert least <= cost <= budget
        assert lost_by(ranks) <= min(loss for spent, loss in choices if spent <= cost) + 1e-6
        seen.add(cost)
    assert len(seen) > 4 and min(seen) == least
    assert within(SITES, ENERGIES, WHOLE, WHOLE, WEIGHTS) == {}
    with pytest.raises(UserError, match="rank 1 in every layer"):
        within(SITES, ENERGIES, least - 1, WHOLE, WEIGHTS)
    dear = {name: 10_000 * weight for name, weight in WEIGHTS.items()}  # numbers that a reader can compare
    with pytest.raises(UserError, match=r"takes [\d,]+0,000, and at most [\d,]+0,000 are allowed: allow more, or"):
        within(SITES, ENERGIES, 10_000 * (least - 1), 10_000 * WHOLE, dear)


def test_a_layer_whose_numbers_cost_nothing_stays_and_one_without_energy_is_cut_first() -> None:
    free = {**WEIGHTS, "a": 0.0}
    whole = WHOLE - SITES[0].now
    for share in (0.6, 0.7, 0.9):
        assert "a" not in within(SITES, ENERGIES, share * whole, whole, free)
    dead = {**ENERGIES, "a": [torch.zeros(6)]}
    assert within(SITES, dead, WHOLE - 1, WHOLE, WEIGHTS) == {"a": (1,)}


def test_a_budget_that_is_measured_is_kept() -> None:
    """What is measured here is cost with an overhead for every layer that is cut, which makes a little more slower."""
    cost = cost_by(SITES, WHOLE, WEIGHTS)
    seen: list[float] = []

    def measure(ranks: Ranks) -> float:
        seen.append(cost(ranks) + 5 * len(ranks))
        return seen[-1]

    for budget in (0.6 * WHOLE, 0.8 * WHOLE):
        assert 0.45 * WHOLE < measure(within_time(SITES, ENERGIES, budget, WHOLE, WEIGHTS, measure, 8)) <= budget
    assert len(seen) == 2 * (1 + 2 + 8)
    assert within_time(SITES, ENERGIES, WHOLE, WHOLE, WEIGHTS, measure, 8) == {}
    with pytest.raises(UserError, match="rank 1 in every layer"):
        within_time(SITES, ENERGIES, 150, WHOLE, WEIGHTS, measure, 8)


@pytest.mark.parametrize("name", LAYERS)
def test_outputs_are_closer_with_their_own_directions_than_with_any_others(name: str) -> None:
    """The error of what a layer puts out is the energy that is left out; weights alone leave more."""
    torch.manual_seed(0)
    make, parts = LAYERS[name]
    layer = make()
    site = site_of(layer, parts)
    mixing = torch.randn(layer.weight.shape[1] * getattr(layer, "groups", 1), 3)
    shape = (50, 1) if isinstance(layer, nn.Linear) else (50, 7)
    inputs = torch.randn(*shape, 3) @ mixing.T + 0.1 * torch.randn(*shape, len(mixing))
    clips = inputs if isinstance(layer, nn.Linear) else inputs.transpose(1, 2)[:, :, None]
    network = nn.Sequential(layer)
    moments = output_moments(network, [replace(site, name="0")], [clips[:20], clips[20:]])["0"]  # type: ignore[arg-type]
    assert moments.shape == (site.groups, parts, site.rows, site.rows)
    with torch.no_grad():
        exact = layer(clips)
    for rank in (1, 2, site.most):
        errors = {}
        for basis, known in (("outputs", moments), ("svd", None), ("random", moments)):
            spectra = decompose(layer, site, known)
            pairs = [factors(part, rank, LowRankOptions(basis=basis), f"{k}") for k, part in enumerate(spectra)]
            small = factored(layer, [rank] * parts)
            small.fill([down for down, _ in pairs], [up for _, up in pairs])
            with torch.no_grad():
                errors[basis] = float((small(clips) - exact).double().square().sum())
            if basis == "outputs":
                tail = sum(float(part.energies[rank:].sum()) for part in spectra)
                assert errors[basis] == pytest.approx(tail, rel=1e-4, abs=1e-5)
        if rank < site.most // 2:
            assert errors["outputs"] < 0.99 * errors["svd"] < errors["random"]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"policy": "luck"}, "policy must be"), ({"basis": "qr"}, "basis must be"), ({"amount": 0.0}, "more than 0"),
        ({"amount": 1.5}, "share of 1"), ({"policy": "rank", "amount": 2.5}, "whole number"),
        ({"amount": float("nan")}, "more than 0"), ({"batch_size": 1}, "at least 2"),
    ],
)  # fmt: skip
def test_options_that_make_no_sense_are_refused(wrong: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        LowRankOptions(**wrong)


def test_patterns_that_fit_nothing_are_named() -> None:
    encoder = build_encoder("ctrgcn", NTU, 5, {"width": 8, "depth": 3})
    with pytest.raises(UserError, match=r"no layer fits '\*.querry'"):
        find_sites(encoder, LowRankOptions(include=("*.querry",)))
    with pytest.raises(UserError, match="no layer to factor"):
        find_sites(encoder, LowRankOptions(include=("classifier",)))
    names = [site.name for site in find_sites(encoder, LowRankOptions(exclude=("*.relate",), head=True))]
    assert "classifier" in names and not any(name.endswith(("relate", "near")) for name in names)
    assert any(site.name.endswith("near") for site in find_sites(encoder, LowRankOptions(temporal=True)))
