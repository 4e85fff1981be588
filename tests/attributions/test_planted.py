"""A joint that alone decides is found, damage to it is felt most, and random weights find nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from made import small_model
from torch import Tensor, nn

from mmcl.attributions.base import build_attribution
from mmcl.attributions.released import joint_sets
from mmcl.attributions.view import View
from mmcl.common.draws import uniform
from mmcl.encoders.edge_gcn.perturb import perturb_edges, scores_with_edges
from mmcl.evaluation.faithfulness.choices import ranked_choices, signed_choices
from mmcl.evaluation.faithfulness.damage import deleted, edges_changed, inserted
from mmcl.evaluation.faithfulness.stability import randomised, rank_correlation
from mmcl.evaluation.faithfulness.summary import Damage
from mmcl.models.model import Model
from mmcl.skeletons.layout import load_layout

LAYOUT, PLANTED, T = load_layout("utd_mhad_20"), 11, 16  # the right hand


def made_clips(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """People who sway, each joint on its own; the right hand swings aside in one class, and up in the other."""
    draw = torch.Generator().manual_seed(seed)
    pose = torch.randn(LAYOUT.joint_count, 3, generator=torch.Generator().manual_seed(9)) * 0.4
    steps = 0.02 * torch.randn(count, 1, T, LAYOUT.joint_count, 3, generator=draw)
    joints, labels = pose + steps.cumsum(dim=2), torch.randint(0, 2, (count,), generator=draw)
    swing = 0.4 * torch.sin(torch.linspace(0, 6.28, T) + 6.28 * torch.rand(count, 1, generator=draw))
    joints[torch.arange(count), 0, :, PLANTED, labels] += swing
    return joints, labels


@pytest.fixture(scope="module")
def trained() -> tuple[Model, Tensor, Tensor, Tensor]:
    """A small network that tells the two apart, and clips that it answers right."""
    options = {"width": 8, "main_width": 12, "last_width": 12, "input_window": 3, "main_window": 3, "dropout": 0.0,
               "inputs": ["joint", "velocity"]}  # fmt: skip
    model = small_model(LAYOUT, ["aside", "up"], "edge_gcn", T, **options)
    joints, labels = made_clips(256, 0)
    x = model.preprocess(joints)
    optimiser = torch.optim.Adam(model.encoder.parameters(), 5e-3)
    model.encoder.train()
    torch.manual_seed(0)
    for step in range(60):
        rows = torch.arange(32) + 32 * (step % 8)
        loss = nn.functional.cross_entropy(model.encoder(x[rows]), labels[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    model.encoder.eval()
    clips, truth = made_clips(24, 1)
    right = model(clips).argmax(dim=1) == truth
    assert right.float().mean() > 0.9
    return model, clips[right], truth[right], made_clips(4, 2)[0]


@pytest.fixture(scope="module")
def explained(trained) -> tuple[View, Tensor]:
    model, clips, labels, background = trained
    view = View.of(model, (clips, None), (background, None), labels)
    return view, build_attribution("deep_lift").run(model, clips, None, labels, background).over_time


@pytest.mark.parametrize(
    ("name", "options"),
    [("shapley", {"permutations": 8}), ("deep_lift", {}), ("expected_gradients", {"samples": 16})],
)
def test_the_planted_joint_is_found_and_nothing_of_the_score_is_lost(name, options, trained) -> None:
    model, clips, labels, background = trained
    few = 12 if name == "shapley" else len(clips)
    found = build_attribution(name, options).run(model, clips[:few], None, labels[:few], background)
    assert (found.over_time.argmax(dim=1) == PLANTED).float().mean() >= 0.9
    shared = (found.scores - found.baseline).abs().mean()
    assert found.residual.abs().mean() < (0.05 if name == "expected_gradients" else 0.01) * shared


def test_random_weights_and_random_numbers_do_not_find_it(trained, explained) -> None:
    model, clips, labels, background = trained
    bare = build_attribution("deep_lift").run(randomised(model, "all", 1), clips, None, labels, background).over_time
    assert (bare.argmax(dim=1) == PLANTED).float().mean() < 0.6
    assert rank_correlation(explained[1], bare).mean() < 0.7
    chance = build_attribution("random").run(model, clips, None, labels, background).over_time
    assert (chance.argmax(dim=1) == PLANTED).float().mean() < 0.3
    head = randomised(model, "head", 1)
    assert torch.equal(head.features(clips), model.features(clips)) and not torch.equal(head(clips), model(clips))
    same = {name: torch.equal(tensor, model.encoder.state_dict()[name]) for name, tensor in
            head.encoder.state_dict().items()}  # fmt: skip
    assert {name for name in same if not same[name]} <= {"classifier.weight", "classifier.bias"}


def test_damage_to_named_joints_is_felt_and_to_others_is_not(trained, explained) -> None:
    model, clips, labels, background = trained
    view, values = explained
    there, counts = view.mask.any(dim=(1, 2)), (1, 3)
    ranked = ranked_choices(values, there, counts, view.keys, 8)
    signed = signed_choices(values, there, counts, view.keys, 8, released=False)
    whole = model(clips).softmax(dim=1).gather(1, labels[:, None])[:, 0].numpy()
    for method, choices, sign in (
        (deleted, ranked, 1.0), (inserted, ranked, -1.0), (edges_changed("zero", 0.0, False), signed, 1.0)
    ):  # fmt: skip
        sets = choices.stacked()
        scores = method(view, sets.flatten(1, 2), choices.stacked_places().flatten(1, 2))
        probability = scores.softmax(dim=2).gather(2, labels[:, None, None].expand(-1, scores.shape[1], 1))
        shape = sets.shape[:3]
        damage = Damage(
            probability.view(shape).numpy(), scores.argmax(dim=2).view(shape).numpy(), whole, counts
        ).metrics(labels.numpy(), sign, 0)
        if method in (deleted, inserted):
            assert damage["gap"]["low"] > 0.1, damage["gap"]
        if sign > 0:
            assert damage["pgi"]["mean"] > damage["pgu"]["mean"]


def test_deletion_is_a_clip_with_joints_of_the_background(trained, explained) -> None:
    view, values = explained
    sets = torch.zeros(len(values), 2, LAYOUT.joint_count, dtype=torch.bool)
    sets[:, 1, [2, PLANTED]] = True
    mixed = view.x.clone()
    mixed[:, :, :, [2, PLANTED]] = view.background.mean(dim=0)[:, :, [2, PLANTED]]
    with torch.no_grad():
        expected = torch.stack([view.encoder(view.x), view.encoder(mixed)], dim=1)
    torch.testing.assert_close(deleted(view, sets, sets), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(inserted(view, ~sets, sets), expected, rtol=1e-4, atol=1e-5)


def test_edges_are_changed_as_by_reloading_weights(trained, explained) -> None:
    """One clip, one set: E of each layer set to zero by hand, and the network run as it is."""
    model, view, values = trained[0], *explained
    view = replace(view, x=view.x[:2], mask=view.mask[:2])
    sets = torch.zeros(2, 2, LAYOUT.joint_count, dtype=torch.bool)
    sets[0, 0, 3] = sets[0, 1, [1, PLANTED]] = True  # of the second clip none: nothing changes
    places = (-values[:2]).argsort(dim=1).argsort(dim=1)[:, None].expand(-1, 2, -1)
    found = edges_changed("zero", 0.0, False)(view, sets, places)
    kept = {name: edge.detach().clone() for name, edge in model.encoder.edges().items()}
    for clip in range(2):
        for number in range(2):
            with torch.no_grad():
                for edge in model.encoder.edges().values():
                    for joint in torch.nonzero(sets[clip, number])[:, 0]:
                        edge[0, joint, joint] = 0.0
                expected = model.encoder(view.x[clip : clip + 1])[0]
                for name, edge in model.encoder.edges().items():
                    edge.copy_(kept[name])
            torch.testing.assert_close(found[clip, number], expected, rtol=1e-4, atol=1e-5)


def test_released_edges_are_changed_in_the_order_of_each_set(trained, explained) -> None:
    """By shares where these chose the joints, and as drawn where they are random: each change widens the next one."""
    encoder, view, values = trained[0].encoder, *explained
    view, count = replace(view, x=view.x[:2], mask=view.mask[:2], target=view.target[:2]), 4
    there = torch.ones(2, LAYOUT.joint_count, dtype=torch.bool)
    keys = torch.tensor([5, 6])
    choices = signed_choices(values[:2], there, (count,), keys, 3, released=True)
    sets, places = choices.stacked(), choices.stacked_places()
    found = edges_changed("away", 0.5, True)(view, sets.flatten(1, 2), places.flatten(1, 2))
    drawn = uniform(keys, "random joints", (3, LAYOUT.joint_count)).argsort(dim=2, stable=True)[..., :count]
    for clip in range(2):
        good, bad = (joint_sets(values[clip : clip + 1], count, important)[0] for important in (True, False))
        for number, joints in enumerate([good, bad, *drawn[clip].tolist()]):
            assert sorted(joints) == torch.nonzero(sets[clip, number, 0])[:, 0].tolist()
            edges = perturb_edges(encoder.edges(), [joints], "away", 0.5, released=True)
            expected = scores_with_edges(encoder, view.x[clip : clip + 1], edges)[0, 0]
            torch.testing.assert_close(found[clip, number], expected, rtol=1e-5, atol=1e-6)
