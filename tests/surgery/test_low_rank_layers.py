"""The factors against closed forms, and policies against what they promise."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mmcl.common.errors import UserError
from mmcl.encoders.base import build_encoder
from mmcl.encoders.counting import count_parameters
from mmcl.encoders.factored import factored
from mmcl.skeletons.layout import load_layout
from mmcl.surgery.low_rank.layers import Site, decompose, factors, find_sites
from mmcl.surgery.low_rank.options import LowRankOptions
from mmcl.surgery.low_rank.ranks import by_rule, cost_by, saving, within
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


def test_a_budget_is_kept_and_used_up_by_one_energy_for_all() -> None:
    whole = float(sum(site.now for site in SITES) + 100)
    measure = cost_by(SITES, whole, {"a": 1.0, "b": 2.0, "c": 1.0})
    levels = sorted({measure(saving(SITES, by_rule(SITES, ENERGIES, "energy", step / 1000))) for step in range(1001)})
    for budget in (levels[0], levels[0] + 1, levels[len(levels) // 2], levels[-1] - 1):
        found = measure(within(SITES, ENERGIES, budget, measure))
        assert found == max(level for level in levels if level <= budget)
    assert within(SITES, ENERGIES, whole, measure) == {}
    with pytest.raises(UserError, match="rank 1 in every layer"):
        within(SITES, ENERGIES, levels[0] - 1, measure)


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
