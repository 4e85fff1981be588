"""Which joints are damaged, and what is made of it, against naive loops."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from mmcl.common.draws import clip_keys
from mmcl.common.errors import UserError
from mmcl.evaluation.base import build_evaluation
from mmcl.evaluation.faithfulness.choices import ranked_choices, signed_choices
from mmcl.evaluation.faithfulness.stability import rank_correlation
from mmcl.evaluation.faithfulness.summary import Damage, interval, one_against_others

N, V, COUNTS, DRAWS = 3, 7, (1, 3, 9), 25


@pytest.fixture(scope="module")
def shares() -> tuple[Tensor, Tensor, Tensor]:
    """Values, which joints are there, keys."""
    torch.manual_seed(0)
    values = torch.randn(N, V)
    values[1, 1:] = -values[1, 1:].abs()  # one joint at most speaks for the class
    there = torch.ones(N, V, dtype=torch.bool)
    there[2, 4] = False
    values[2, 4] = 0
    return values, there, torch.from_numpy(clip_keys(0, 0, range(N)))


def members(marks: Tensor) -> set[int]:
    return set(torch.nonzero(marks)[:, 0].tolist())


def test_ranked_sets_are_the_ends_of_the_order_and_random_ones_have_their_size(shares) -> None:
    values, there, keys = shares
    found = ranked_choices(values, there, COUNTS, keys, DRAWS)
    for clip in range(N):
        order = sorted(members(there[clip]), key=lambda joint: -float(values[clip, joint]))
        for place, count in enumerate(COUNTS):
            size = min(count, len(order))
            assert members(found.important[clip, place]) == set(order[:size])
            assert members(found.unimportant[clip, place]) == set(order[-size:])
            drawn = [members(each) for each in found.random[clip, :, place]]
            assert all(len(each) == size and each <= set(order) for each in drawn)
    assert len({tuple(row.tolist()) for row in found.random[0, :, 1]}) > 10  # many draws, and not one
    again = ranked_choices(values[1:], there[1:], COUNTS, keys[1:], DRAWS)
    assert torch.equal(again.random, found.random[1:])  # whatever else is in the batch


def test_tied_joints_are_at_one_end_of_the_order_alone() -> None:
    """Joints whose shares are equal, or all zero, are important or unimportant, and not both."""
    values = torch.tensor([[0.0] * V, [0.9] + [0.0] * (V - 1), [0.5, 0.5, -0.1, -0.1, -0.1, 0.0, 0.0]])
    there = torch.ones(N, V, dtype=torch.bool)
    there[1, [0, V - 1]] = False
    found = ranked_choices(values, there, (1, 2, 3, 9), torch.arange(N), 2)
    for clip in range(N):
        shown = members(there[clip])
        for place, count in enumerate((1, 2, 3, 9)):
            first, last = members(found.important[clip, place]), members(found.unimportant[clip, place])
            assert len(first) == len(last) == min(count, len(shown)) and first | last <= shown
            assert not first & last or 2 * count > len(shown)
            own = values[clip].tolist()
            assert all(own[one] >= own[other] for one in first for other in shown - first)
            assert all(own[one] <= own[other] for one in last for other in shown - last)


def test_signed_sets_have_one_size_and_released_ones_need_not(shares) -> None:
    values, there, keys = shares
    found = signed_choices(values, there, COUNTS, keys, DRAWS, released=False)
    released = signed_choices(values, there, COUNTS, keys, DRAWS, released=True)
    for clip in range(N):
        order = sorted(range(V), key=lambda joint: -float(values[clip, joint]))
        for place, count in enumerate(COUNTS):
            good = [joint for joint in order[:count] if values[clip, joint] > 0]
            bad = [joint for joint in order[-count:] if values[clip, joint] < 0]
            size = min(len(good), len(bad))
            assert members(found.important[clip, place]) == set(good[:size])
            assert members(found.unimportant[clip, place]) == set(bad[len(bad) - size :])
            assert {len(members(each)) for each in found.random[clip, :, place]} == {size}
            assert members(released.important[clip, place]) == set(good)
            assert members(released.unimportant[clip, place]) == set(bad)
            assert {len(members(each)) for each in released.random[clip, :, place]} == {min(count, V)}


def test_sensitivity_and_specificity_are_counted_one_class_against_the_others() -> None:
    draw = np.random.default_rng(0)
    labels, answers = draw.integers(4, size=50), draw.integers(5, size=(50, 3))
    sensitivity, specificity = [], []
    for label in range(4):
        hits = [(labels == label) & (answers[:, number] == label) for number in range(3)]
        misses = [(labels != label) & (answers[:, number] != label) for number in range(3)]
        sensitivity.append(np.mean([each.sum() / (labels == label).sum() for each in hits]))
        specificity.append(np.mean([each.sum() / (labels != label).sum() for each in misses]))
    found = one_against_others(answers, labels)
    assert found["sensitivity"] == pytest.approx(np.mean(sensitivity))
    assert found["specificity"] == pytest.approx(np.mean(specificity))
    assert found["accuracy"] == pytest.approx(np.mean([answers[:, n] == labels for n in range(3)]))


def test_gaps_and_moves_of_the_probability() -> None:
    draw = np.random.default_rng(1)
    probability, whole = draw.random((6, 2 + 4, 2)), draw.random(6)
    damage = Damage(probability, draw.integers(3, size=probability.shape), whole, (1, 2))
    found = damage.metrics(draw.integers(3, size=6), 1.0, 0)
    gaps = [probability[n, 2:, k].mean() - probability[n, 0, k] for n in range(6) for k in range(2)]
    moved = [abs(whole[n] - probability[n, 1, k]) for n in range(6) for k in range(2)]
    chance = [abs(whole[n] - probability[n, d, k]) for n in range(6) for d in range(2, 6) for k in range(2)]
    assert found["gap"]["mean"] == pytest.approx(np.mean(gaps))
    assert found["pgu"]["mean"] == pytest.approx(np.mean(moved))
    assert found["pg_random"]["mean"] == pytest.approx(np.mean(chance))
    assert damage.metrics(draw.integers(3, size=6), -1.0, 0)["gap"]["mean"] == pytest.approx(-np.mean(gaps))


def test_an_interval_covers_the_mean_as_often_as_it_says() -> None:
    draw = np.random.default_rng(2)
    inside = 0
    for seed in range(200):
        found = interval(draw.exponential(size=60), seed)
        inside += found["low"] <= 1.0 <= found["high"]
    assert 0.88 <= inside / 200 <= 0.985
    assert interval(np.array([np.nan, np.nan]), 0)["mean"] is None


def test_rank_correlation_is_that_of_scipy() -> None:
    from scipy.stats import spearmanr

    torch.manual_seed(1)
    one, other = torch.randn(4, 12), torch.randn(4, 12)
    one[1:3, 3:], other[2:, :9] = 0.0, 0.0  # few joints speak, or others were never there: ties
    expected = [spearmanr(a.abs(), b.abs()).statistic for a, b in zip(one, other, strict=True)]
    np.testing.assert_allclose(rank_correlation(one, other), expected, atol=1e-9)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"draws": 0}, "must be 1 or more"),
        ({"counts": [2, 2]}, r"counts is \[2, 2\]: .* once"),
        ({"stable": -1}, "stable is -1"),
        ({"shift": -0.5}, "shift is -0.5"),
        ({"noise": 0.0}, "noise is 0"),
    ],
)
def test_options_out_of_range_are_refused(options: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        build_evaluation("faithfulness", options)


def test_a_side_without_clips_is_named() -> None:
    for side, train, clips in (("validation", [0], []), ("test", [], [0])):
        data = SimpleNamespace(
            side=side, protocol="own/split", clips=np.array(clips, dtype=int),
            sides=SimpleNamespace(train=np.array(train, dtype=int)), targets=lambda clips, names: clips,
            store=SimpleNamespace(numbers=lambda clip: np.zeros((1, 4, 3, 3), dtype=np.float32)),
        )  # fmt: skip
        model = SimpleNamespace(encoder=None, altered=False, class_names=["a"], device=torch.device("cpu"))
        with pytest.raises(UserError, match=f"own/split has no clips on its {'train' if clips else side} side"):
            build_evaluation("faithfulness").run(model, data, lambda function, clips: clips)
