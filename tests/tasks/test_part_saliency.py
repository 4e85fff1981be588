"""Saliency of body parts: equal to the released estimator, and unbiased without its ReLU."""

from __future__ import annotations

import re
from itertools import combinations
from math import comb

import numpy as np
import pytest
import torch
from golden import load_arrays, load_json
from released_mamp import as_batch

from mmcl.tasks.long_tail.coalitions import Coalitions, draw_context
from mmcl.tasks.long_tail.saliency import MEMORY, START, PartSaliency, added_chance, only


@pytest.fixture(scope="module")
def released():
    """Arrays, facts, NTU's coalitions, clips, background, and a function that makes the case's classifiers."""
    arrays, facts = load_arrays("shap_mix", "saliency"), load_json("shap_mix", "saliency")
    x = as_batch(torch.from_numpy(arrays["x"]))
    coalitions = Coalitions(load_json("shap_mix", "mix")["parts_ntu"], x.shape[3])
    background = torch.from_numpy(arrays["background"]).permute(3, 1, 2, 0)
    sharp = told(r"logits = (\S+) \* Linear", facts["net"], 3.0)
    return arrays, facts, coalitions, x, background, lambda prefix: net(arrays, prefix, sharp)


def told(pattern, text, otherwise):
    """The number that a case's words tell, or what the release has by default."""
    found = re.search(pattern, text)
    return float(found[1]) if found else otherwise


def net(arrays, prefix, sharp):
    """A factor times a linear layer behind the mean over frames, channels first, as the case's classifier."""
    weight, bias = (torch.from_numpy(arrays[f"{prefix}f.{kind}"]) for kind in ("weight", "bias"))

    def chances(x):
        flat = x.mean(dim=2).permute(0, 3, 2, 1).flatten(1)  # (N, C * V * M)
        return (sharp * torch.nn.functional.linear(flat, weight, bias)).softmax(dim=1)

    return chances


def test_updates_equal_the_released_ones(released):
    arrays, facts, coalitions, x, background, classifier = released
    labels, chances = torch.from_numpy(arrays["labels"]), classifier("net/sd/")
    saliency = PartSaliency(len(arrays["net/sd/f.bias"]), len(coalitions))
    saliency.values.fill_(told(r"v starts at ([\d.e-]+)", facts["note"], START))
    nothing = torch.zeros(x.shape[3], dtype=torch.bool)
    memory = told(r"\bema (\d*\.?\d+)", facts["note"], MEMORY)
    replaced = told(r"\bnaive_estimate_epoch (\d+)", facts["note"], 5)  # the last epoch that replaces values
    assert len(facts["steps"]) == sum(re.fullmatch(r"step\d+/v_after", key) is not None for key in arrays)
    for number, step in enumerate(facts["steps"]):
        coalition = coalitions.names.index(tuple(sorted(step["parts"])))
        assert coalition == step["coalition"]
        context = coalitions.joints_of(step["context_parts"][0]) if step["context_parts"] else nothing
        whole = context | coalitions.joints[coalition]
        added = added_chance(chances(only(x, background, whole)), chances(only(x, background, context)), labels, True)
        np.testing.assert_allclose(added, arrays[f"step{number}/marginal_after_relu"], rtol=1e-5, atol=1e-7)
        joints = int(coalitions.joints[coalition].sum())
        np.testing.assert_allclose(10 * added / joints, arrays[f"step{number}/weight"], rtol=1e-5, atol=1e-7)
        saliency.update(coalition, joints, labels, added, memory=memory if step["epoch"] > replaced else 0.0)
        np.testing.assert_allclose(saliency.values, arrays[f"step{number}/v_after"], rtol=1e-5, atol=1e-8)


def test_kinetics_with_its_64_real_frames(released):
    arrays, facts, *_, classifier = released
    x = as_batch(torch.from_numpy(arrays["k400/x"]))
    coalitions = Coalitions(load_json("shap_mix", "mix")["parts_k400"], x.shape[3])
    background = torch.from_numpy(arrays["k400/background"]).permute(3, 1, 2, 0)
    x = torch.cat([x[:, :, :64], background[None, :, 64:].expand(len(x), -1, -1, -1, -1)], dim=2)
    chances, labels = classifier("k400/net/sd/"), torch.from_numpy(arrays["k400/labels"])
    calls = [found for key in arrays if (found := re.fullmatch(r"k400/((naive|shapley)_parts_(\w+))", key))]
    assert sorted(found[2] for found in calls) == ["naive", "shapley"]
    for key, kind, words in (found.groups() for found in calls):
        parts = [int(part) for part in words.split("_")]
        context = facts["k400_shapley_draws"][-1][1] if kind == "shapley" else []
        others = coalitions.joints_of(context)
        whole = chances(only(x, background, coalitions.joints_of(parts) | others))
        found = added_chance(whole, chances(only(x, background, others)), labels, True)
        np.testing.assert_allclose(found, arrays[f"k400/{key}"], rtol=1e-5, atol=1e-7)


def merged_shapley(value, coalition, parts=5):
    """Exact value of a coalition as one player among the other parts, from all 2^(P - |coalition|) contexts."""
    others = [part for part in range(parts) if part not in coalition]
    total = 0.0
    for size in range(len(others) + 1):
        for context in combinations(others, size):
            gain = value[frozenset(context) | set(coalition)] - value[frozenset(context)]
            total += gain / comb(len(others), size) / (len(others) + 1)
    return total


def test_the_mean_over_drawn_contexts_is_the_shapley_value_of_a_random_game():
    random = np.random.default_rng(0)
    value = {frozenset(some): random.normal() for size in range(6) for some in combinations(range(5), size)}
    coalitions = Coalitions([[n] for n in range(5)], 5)
    draws = torch.Generator().manual_seed(0)
    for number in (1, 14):
        coalition = coalitions.names[number]
        gains = []
        for _ in range(4000):
            first, *order = torch.rand(6, generator=draws).tolist()
            context = frozenset(draw_context(coalitions.members[number], first, torch.tensor(order)))
            with_, without = value[context | set(coalition)], value[context]
            chances = torch.tensor([[with_, 1 - with_]], dtype=torch.float64)
            gains.append(added_chance(chances, torch.tensor([[without, 0.0]]).double(), torch.tensor([0])).item())
        error = np.std(gains) / np.sqrt(len(gains))
        assert abs(np.mean(gains) - merged_shapley(value, coalition)) < 3.5 * error
    singles = [merged_shapley(value, (part,)) for part in range(5)]  # the oracle itself: values add up to the whole
    assert sum(singles) == pytest.approx(value[frozenset(range(5))] - value[frozenset()])


def test_an_additive_game_gives_every_draw_the_same_gain():
    worth = torch.tensor([0.05, -0.1, 0.2, 0.15, 0.3], dtype=torch.float64)
    for context in ([], [1], [1, 4]):
        chance = lambda parts: torch.tensor([[worth[parts].sum().item(), 0.0]], dtype=torch.float64)  # noqa: E731
        gain = added_chance(chance([*context, 0, 2]), chance(context), torch.tensor([0]))
        assert gain.item() == pytest.approx(0.25)
    loss = added_chance(torch.tensor([[0.1, 0.9]]), torch.tensor([[0.4, 0.6]]), torch.tensor([0]))
    assert loss.item() == pytest.approx(-0.3)
    assert added_chance(torch.tensor([[0.1, 0.9]]), torch.tensor([[0.4, 0.6]]), torch.tensor([0]), True) == 0.0


def test_only_the_named_joints_are_the_clip_s_own():
    x, background = torch.randn(2, 1, 3, 4, 3), torch.randn(1, 3, 4, 3)
    found = only(x, background, torch.tensor([True, False, True, False]))
    assert torch.equal(found[:, :, :, [0, 2]], x[:, :, :, [0, 2]])
    assert torch.equal(found[1, :, :, [1, 3]], background[:, :, [1, 3]])


@pytest.mark.parametrize("memory", [0.9, 0.0])
def test_averages_against_a_loop_over_clips(memory):
    torch.manual_seed(0)
    saliency = PartSaliency(3, 4).double()
    labels, added = torch.tensor([0, 2, 0, 0, 2]), torch.rand(5, dtype=torch.float64)
    expected = saliency.values.clone()
    for label, value in zip(labels.tolist(), added.tolist(), strict=True):
        expected[label, 1] = memory * expected[label, 1] + (1 - memory) * 10 * value / 8
    saliency.update(1, 8, labels, added, memory)
    torch.testing.assert_close(saliency.values, expected)
