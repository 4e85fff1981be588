"""Attributions against closed forms, the definition of Shapley values, and Captum."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
from torch import Tensor, nn

from mmcl.attributions import ATTRIBUTIONS
from mmcl.attributions.base import build_attribution
from mmcl.attributions.coalitions import all_coalitions, antithetic_orders, chains, exact_shares, order_shares
from mmcl.attributions.differences import difference_gradient
from mmcl.attributions.players import membership, part_numbers, spread
from mmcl.attributions.view import View, content_keys
from mmcl.benchmarks.any_encoder import enliven
from mmcl.common.errors import UserError
from mmcl.encoders import ENCODERS
from mmcl.encoders.building import build_encoder
from mmcl.skeletons.layout import load_layout

LAYOUT = load_layout("utd_mhad_20")
# Networks that see an absent person as zeros; in others one is switched off, which is no difference of coordinates.
WITHOUT_A_SWITCH = ("ctrgcn", "edge_gcn", "hyperformer", "step_catformer")
N, M, W, V, C, B, K = 3, 2, 6, LAYOUT.joint_count, 3, 4, 5


class Network(nn.Module):
    """A network of (N, M, W, V, C) with the joints' layout, linear or not."""

    layout = LAYOUT

    def __init__(self, deep: bool) -> None:
        super().__init__()
        torch.manual_seed(1)
        width = M * W * V * C
        hidden = [nn.Linear(width, 12), nn.ReLU(), nn.Linear(12, 12), nn.Sigmoid()]
        self.layers = nn.Sequential(*hidden, nn.Linear(12, K)) if deep else nn.Linear(width, K)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.flatten(1))


@pytest.fixture(scope="module")
def clips() -> tuple[Tensor, Tensor, Tensor]:
    """Clips, their mask and background: in the first clip a joint is missing, in the second a body."""
    torch.manual_seed(0)
    x, background = torch.randn(N, M, W, V, C), torch.randn(B, M, W, V, C) + 0.5
    mask = torch.ones(N, M, W, V, dtype=torch.bool)
    mask[0, :, :, 3] = mask[1, 1] = mask[2, 0, 2, 7] = False
    return x * mask[..., None], mask, background


def view(network: nn.Module, clips: tuple[Tensor, Tensor, Tensor], rows: int = 64) -> View:
    return View(network, network, *clips, torch.tensor([0, 4, 2]), torch.arange(N), rows)


def shares(name: str, found: View, **options: object) -> Tensor:
    """(N, V) of an attribution."""
    values = build_attribution(name, {**ATTRIBUTIONS[name].tiny, **options}).attribute(found).detach()
    values = values.sum(dim=(1, 4)) if values.dim() == 5 else values
    return values.sum(dim=1) if values.dim() == 3 else values


@pytest.mark.parametrize("name", [name for name in ATTRIBUTIONS if name != "random"])
def test_of_a_linear_model_every_attribution_is_weight_times_difference(name, clips) -> None:
    network = Network(deep=False)
    x, mask, background = clips
    weight = network.layers.weight[torch.tensor([0, 4, 2])].view(N, M, W, V, C)
    expected = (weight * (x - background.mean(dim=0)) * mask[..., None]).sum(dim=(1, 2, 4)).detach()
    torch.testing.assert_close(shares(name, view(network, clips)), expected, rtol=1e-4, atol=1e-5)
    assert not expected[0, 3] and not shares(name, view(network, clips))[0, 3]


def test_shares_of_a_game_are_the_mean_over_all_orders() -> None:
    players, worth = 5, torch.randn(2**5, dtype=torch.float64)
    naive = torch.zeros(players, dtype=torch.float64)
    orders = list(permutations(range(players)))
    for order in orders:
        before = 0
        for player in order:
            naive[player] += (worth[before + 2**player] - worth[before]) / len(orders)
            before += 2**player
    torch.testing.assert_close(exact_shares(worth), naive)
    every = torch.tensor(orders)
    number = (chains(every) * 2 ** torch.arange(players)).sum(dim=2)
    torch.testing.assert_close(order_shares(every, worth[number]).mean(dim=0), naive)
    assert (all_coalitions(players) * 2 ** torch.arange(players)).sum(dim=1).tolist() == list(range(2**players))


def test_orders_come_in_pairs_that_are_each_other_backwards() -> None:
    orders = antithetic_orders(9, 6, torch.Generator().manual_seed(0))
    assert orders.shape == (12, 9) and orders.sort(dim=1).values.eq(torch.arange(9)).all()
    assert torch.equal(orders[0::2], orders[1::2].flip(1)) and len(orders.unique(dim=0)) == 12


def test_sampling_agrees_with_enumeration_and_loses_nothing_of_the_score(clips) -> None:
    found = view(Network(deep=True), clips)
    scores, baseline = found.scores(found.x, found.target), found.background_scores().mean(dim=1)
    exact = shares("shapley", found, players="parts")
    sampled = shares("shapley", found, players="parts", exact=0, permutations=400)
    assert 0 < (exact - sampled).abs().max() < 0.1 * exact.abs().max()
    for options in ({"players": "parts"}, {"permutations": 3}, {"permutations": 20}, {"players": "segments"}):
        total = shares("shapley", found, **options).sum(dim=1)
        torch.testing.assert_close(total, scores - baseline, rtol=1e-4, atol=1e-5)
    few = shares("shapley", view(Network(deep=True), clips, rows=5), permutations=20)
    torch.testing.assert_close(few, shares("shapley", found, permutations=20), rtol=1e-4, atol=1e-6)


def test_enumeration_is_the_definition_over_players_of_a_network(clips) -> None:
    """One clip, five parts: the worth of each coalition by an inner loop over clips of the background."""
    found, numbers = view(Network(deep=True), clips), part_numbers(LAYOUT)
    clip, worth = 1, []
    for members in all_coalitions(5):
        scores = []
        for behind in found.background:
            mixed = found.x[clip].clone()
            for joint in range(V):
                if not members[numbers[joint]]:
                    mixed[:, :, joint] = behind[:, :, joint] * found.mask[clip, :, :, joint, None]
            scores.append(found.encoder(mixed[None])[0, found.target[clip]])
        worth.append(torch.stack(scores).mean())
    expected = exact_shares(torch.stack(worth)).detach()
    member, players = membership("parts", found.mask[clip], LAYOUT, 1)
    naive = spread(expected, member).sum(dim=0)
    assert players == 5
    torch.testing.assert_close(shares("shapley", found, players="parts")[clip], naive, rtol=1e-4, atol=1e-5)


def test_players_hold_what_is_there(clips) -> None:
    mask = clips[1][0]
    for kind, count in (("joints", V - 1), ("segments", 3 * (V - 1)), ("parts", 5)):
        member, players = membership(kind, mask, LAYOUT, 3)
        assert players == count == len(member.unique()) - 1 and torch.equal(member >= 0, mask)
        values = torch.randn(players)
        torch.testing.assert_close(spread(values, member).sum(), values.sum())
    with pytest.raises(UserError, match="7 segments of a window of 6 frames"):
        membership("segments", mask, LAYOUT, 7)
    with pytest.raises(UserError, match="shapley.exact is 40"):
        build_attribution("shapley", {"exact": 40})


def test_integrated_gradients_are_complete_and_those_of_captum(clips) -> None:
    captum = pytest.importorskip("captum.attr", reason="captum is not installed")
    network = Network(deep=True)
    found = view(network, clips, rows=7)
    attribution = build_attribution("integrated_gradients", {"steps": 50})
    values, start = attribution.attribute(found), found.background.mean(dim=0)
    missing = found.scores(found.x, found.target) - attribution.baseline(found) - values.flatten(1).sum(dim=1)
    assert missing.abs().max() < 1e-3 * values.abs().sum()
    starts = torch.where(found.mask[..., None], start, 0)
    theirs = captum.IntegratedGradients(network).attribute(
        found.x.clone().requires_grad_(), starts, found.target, n_steps=50, method="gausslegendre"
    )
    torch.testing.assert_close(values, theirs.detach().to(values), rtol=1e-4, atol=1e-6)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_deep_lift_is_that_of_captum_where_captum_has_rules(clips) -> None:
    captum = pytest.importorskip("captum.attr", reason="captum is not installed")
    found, network = view(Network(deep=True), clips, rows=5), Network(deep=True)
    theirs = torch.zeros_like(found.x)
    for clip in range(N):
        x = found.x[clip : clip + 1].clone().requires_grad_()
        explained = captum.DeepLiftShap(network).attribute(x, found.background_of(clip), int(found.target[clip]))
        theirs[clip] = explained[0].detach()
    values = build_attribution("deep_lift").attribute(found)
    torch.testing.assert_close(values, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ENCODERS)
def test_deep_lift_loses_nothing_of_a_score_whatever_the_encoder(name) -> None:
    """Products, attention, norms and maxima of all networks have rules: multipliers times differences are additive."""
    torch.manual_seed(0)
    layout = load_layout("kinect_v2_25")
    encoder = build_encoder(name, layout, K, ENCODERS[name].tiny)
    enliven(encoder, 0.3 * torch.randn(encoder.example(16, 4).shape))
    encoder.eval().double()
    x, start = (0.3 * torch.randn(encoder.example(16, 2).shape, dtype=torch.float64) for _ in range(2))
    if encoder.options.persons > 1:
        x[0, 1] = start[0, 1] = 0
        if name in WITHOUT_A_SWITCH:
            start[1, 1] = 0  # a body leaves
    target = torch.tensor([1, 3])
    multipliers = difference_gradient(encoder, x, start, target)
    with torch.no_grad():
        difference = (encoder(x) - encoder(start)).gather(1, target[:, None])[:, 0]
    total = (multipliers * (x - start)).flatten(1).sum(dim=1)
    torch.testing.assert_close(total, difference, rtol=1e-3, atol=1e-9)


def test_what_is_drawn_for_a_clip_depends_on_the_clip_and_not_on_its_batch() -> None:
    clips, lengths = torch.randn(3, 2, 9, 4, 3), torch.tensor([9, 6, 9])
    clips[1, :, 6:] = clips[1, 1] = 0
    keys = content_keys(clips, lengths, 5)
    assert torch.equal(content_keys(clips[1:2, :1, :7], lengths[1:2], 5), keys[1:2])
    assert len({*keys.tolist(), *content_keys(clips, lengths, 6).tolist()}) == 6


@pytest.mark.parametrize("options", [{}, {"exact": 0}, {"players": "segments"}, {"players": "parts"}])
def test_a_clip_with_nobody_in_it_has_no_shares(clips, options) -> None:
    x, mask, background = (each.clone() for each in clips)
    x[1], mask[1] = 0.0, False
    found = shares("shapley", view(Network(deep=True), (x, mask, background)), **options)
    assert not found[1].any() and found[0].any() and found[2].any()
