"""Mixing by body parts: equal to the released Shap-Mix, and what it leaves alone."""

from __future__ import annotations

import random
import re

import pytest
import torch
from golden import load_arrays, load_json
from released_mamp import as_batch

from mmcl.common.errors import UserError
from mmcl.skeletons.layout import load_layout
from mmcl.tasks.long_tail.coalitions import Coalitions, draw_context
from mmcl.tasks.long_tail.part_mix import (
    Window,
    draw_window,
    mixup,
    partners,
    paste,
    pasted_share,
    tail_aware_coalitions,
)

LENGTHS = {"ntu": (7, 11), "k400": (13, 20)}  # of windows, as each of the released functions draws them
KINDS = {"warm/cut", "warm/mixup", "tail/cut", "tail/mixup"}


def kind_of(key):
    """The kind of a case: "warm/cut" of "ntu/warm/cut0"."""
    return re.fullmatch(r"\w+?/(\w+/[a-z]+)\d+", key)[1]


@pytest.fixture(scope="module", params=list(LENGTHS))
def flavour(request):
    """Name, arrays and facts of one of the released functions, its coalitions, and the batch."""
    arrays, facts = load_arrays("shap_mix", "mix"), load_json("shap_mix", "mix")
    name = request.param
    assert {key.partition("/")[0] for key in facts["cases"]} <= set(LENGTHS)
    assert {kind_of(key) for key in facts["cases"]} <= KINDS
    if f"{name}/x" not in arrays:
        pytest.skip(f"the arrays have no cases of {name}")
    x = as_batch(torch.from_numpy(arrays[f"{name}/x"]))
    coalitions = Coalitions(facts[f"parts_{name}"], x.shape[3])
    assert [list(some) for some in coalitions.names] == facts["coalitions"]
    return name, arrays, facts, coalitions, x


def cases(flavour, kind):
    """(name, draws, seed, arrays) of the cases of one kind, "warm/cut" for example."""
    name, arrays, facts, *_ = flavour
    found = [key for key in facts["cases"] if key.startswith(f"{name}/") and kind_of(key) == kind]
    if not found:  # which of the two kinds a call is, is drawn
        pytest.skip(f"the arrays have no cases {name}/{kind}")
    for key in found:
        case = facts["cases"][key]
        given = {entry[len(key) + 1 :]: torch.from_numpy(array) for entry, array in arrays.items()
                 if entry.startswith(key + "/")}  # fmt: skip
        yield [value for _, value in case["draws"]], case["python_and_torch_seed"], given


def shifted(count, offset):
    """Our partners for a released offset."""
    return partners(count, (offset - 0.5) / (count - 1))


def test_parts_pasted_in_the_warm_up_equal_the_released_ones(flavour):
    *_, coalitions, x = flavour
    for draws, _, given in cases(flavour, "warm/cut"):
        offset, _, parts, length, start, _, source, source_start = draws
        partner = shifted(len(x), offset)
        assert torch.equal(partner, given["partner"])
        window = Window(4 * start, 4 * length, 4 * source_start, 4 * source)
        numbers = [next(n for n, part in enumerate(coalitions.parts) if part[joints].all()) for joints in parts]
        joints = coalitions.joints_of(numbers)
        assert torch.equal(paste(x, partner, window, joints), as_batch(given["mixed"]))
        mask = torch.zeros_like(given["mask_quarter"])
        mask[start : start + length, joints] = 1
        assert torch.equal(mask, given["mask_quarter"])
        torch.testing.assert_close(
            pasted_share(window, joints, x.shape[2]).double(), given["lambda"], rtol=1e-6, atol=0
        )


@pytest.mark.parametrize("kind", ["warm/mixup", "tail/mixup"])
def test_whole_clips_mixed_equal_the_released_ones(flavour, kind):
    x = flavour[-1]
    for draws, _, given in cases(flavour, kind):
        partner, share = shifted(len(x), draws[0]), draws[-1]
        assert torch.equal(partner, given["partner"])
        torch.testing.assert_close(mixup(x, partner, share), as_batch(given["mixed"]), rtol=0, atol=1e-6)
        assert given["lambda"].flatten()[0].item() == pytest.approx(share, rel=1e-6)


def test_tail_aware_parts_equal_the_released_ones(flavour):
    name, arrays, _, coalitions, x = flavour
    keys = ("v", "labels", "frequency_rank")
    saliency, labels, rank = (torch.from_numpy(arrays[f"{name}/tail/{key}"]) for key in keys)
    (key,) = [key for key in arrays if key.startswith(f"{name}/tail/softmax_v_over_")]
    sharpness, expected = float(key.rpartition("_")[2]), torch.from_numpy(arrays[key])
    torch.testing.assert_close((saliency / sharpness).softmax(dim=1), expected, rtol=1e-5, atol=1e-7)
    for draws, seed, given in cases(flavour, "tail/cut"):
        offset, length, start, _, _, source, source_start = draws[:7]
        window = Window(4 * start, 4 * length, 4 * source_start, 4 * source)
        partner = shifted(len(x), offset)
        pasted = tail_aware_coalitions(
            saliency,
            labels,
            partner,
            rank,
            python_draws(seed, LENGTHS[name], x.shape[2] // 4, len(x)),
            coalitions,
            sharpness,
        )
        assert torch.equal(pasted, given["pasted_coalition"])
        drawn = torch.where(given["complement_used"], coalitions.complement[pasted], pasted)
        assert torch.equal(drawn, given["drawn_coalition"]) and drawn.tolist() == [one for (one,) in draws[7:]]
        joints = coalitions.joints[pasted]
        assert torch.equal(paste(x, partner, window, joints), as_batch(given["mixed"]))
        torch.testing.assert_close(
            pasted_share(window, joints, x.shape[2]).float()[:, None], given["lambda"], rtol=1e-6, atol=0
        )


def python_draws(seed, lengths, cells, count):
    """The uniform numbers behind the released choices: its generator, after all that it draws before them."""
    draws = random.Random(seed)
    length = draws.randint(*lengths)
    draws.randint(0, cells - length)
    draws.random()
    draws.randint(2, 3)
    source = draws.randint(length, cells)
    draws.randint(0, cells - source)
    return torch.tensor([draws.random() for _ in range(count)], dtype=torch.float64)


def test_coalitions_of_a_layout_and_their_complements():
    layout = load_layout("kinect_v2_25")
    coalitions = Coalitions(list(layout.parts.values()), layout.joint_count)
    assert len(coalitions) == 20
    back = coalitions.complement[coalitions.complement]
    assert torch.equal(back, torch.arange(20))
    assert (coalitions.joints ^ coalitions.joints[coalitions.complement]).all()
    assert torch.equal(coalitions.joints_of([0, 3]), coalitions.joints[coalitions.names.index((0, 3))])
    assert len(Coalitions([[n] for n in range(6)], 6)) == 15 + 20 + 15
    with pytest.raises(UserError, match="at least 4"):
        Coalitions([[0], [1], [2]], 3)


def test_what_is_not_pasted_stays_and_what_is_comes_from_the_partner():
    torch.manual_seed(0)
    x = torch.randn(4, 2, 16, 6, 3)
    coalitions = Coalitions([[0, 1], [2], [3], [4, 5]], 6)
    window, partner = Window(4, 8, 2, 12), partners(4, 0.5)
    chosen = torch.tensor([0, 1, 2, 3])
    joints = coalitions.joints[chosen]
    mixed = paste(x, partner, window, joints)
    changed = torch.zeros(4, 2, 16, 6, 3, dtype=torch.bool)
    changed[:, :, 4:12] = joints[:, None, None, :, None]
    assert torch.equal(mixed[~changed], x[~changed])
    for i in range(4):
        for t in range(8):
            expected = x[partner[i], :, 2 + int(t * 1.5)]
            assert torch.equal(mixed[i, :, 4 + t][:, joints[i]], expected[:, joints[i]])
    share = pasted_share(window, joints, 16)
    torch.testing.assert_close(share, changed[:, 0, :, :, 0].float().mean(dim=(1, 2)))
    there = torch.rand(4, 2, 16, 6) > 0.3  # which joints are there travels with the joints
    masked = torch.where(there[..., None], x, 0.0)
    assert torch.equal(paste(masked, partner, window, joints)[..., 0] != 0, paste(there, partner, window, joints))


def test_the_rarer_class_keeps_or_gives_its_parts():
    coalitions = Coalitions([[0], [1], [2], [3], [4]], 5)
    saliency = torch.full((2, 20), -100.0)
    saliency[0, 2], saliency[1, 5] = 100.0, 100.0  # of the frequent class 0, and of the rare class 1
    counts, draws = torch.tensor([50, 3]), torch.rand(3)
    found = tail_aware_coalitions(saliency, torch.tensor([0, 1, 0]), torch.tensor([1, 2, 2]), counts, draws, coalitions)
    assert found[0] == 5  # the partner is rare: it gives what it is recognised by
    assert found[1] == coalitions.complement[5]  # the clip is rare: it keeps that, everything else is pasted
    assert found[2] == coalitions.complement[2]  # equally frequent: the clip keeps its own


def test_coalitions_are_drawn_by_their_saliency():
    coalitions = Coalitions([[0], [1], [2], [3], [4]], 5)
    saliency = 0.1 * torch.randn(2, 20, generator=torch.Generator().manual_seed(0))
    labels = torch.zeros(4000, dtype=torch.long)
    partner = torch.arange(4000)
    draws = (torch.arange(4000) + 0.5) / 4000
    found = tail_aware_coalitions(saliency, labels, partner, torch.tensor([5, 5]), draws, coalitions)
    share = torch.bincount(coalitions.complement[found], minlength=20) / 4000
    torch.testing.assert_close(share, (saliency[0] / 0.2).softmax(dim=0), rtol=0, atol=1e-3)


def test_windows_and_partners_stay_within_the_clip_and_the_batch():
    draws, lengths = torch.Generator().manual_seed(0), set()
    for frames in (64, 32, 100, 8, 4):
        for _ in range(200):
            window = draw_window(frames, torch.rand(4, generator=draws))
            assert window.start >= 0 and window.start + window.length <= frames
            assert window.source_start >= 0 and window.source_start + window.source_length <= frames
            assert 4 <= window.length <= window.source_length and all(value % 4 == 0 for value in window)
            if frames == 64:
                lengths.add(window.length)
    assert lengths == {28, 32, 36, 40, 44}
    offsets = {int(partners(6, draw / 100)[0]) for draw in range(100)}
    assert offsets == {1, 2, 3, 4, 5}
    assert {int(partners(6, draw / 100, released=True)[0]) for draw in range(100)} == {1, 2, 3, 4}
    longer = {draw_window(100, torch.rand(4, generator=draws), 13 / 25, 20 / 25).length for _ in range(300)}
    assert longer == set(range(52, 84, 4))


def test_contexts_are_drawn_evenly_by_size_then_by_member():
    members, draws, found = torch.tensor([True, False, True, False, False]), torch.Generator().manual_seed(0), {}
    for _ in range(8000):
        first, *order = torch.rand(6, generator=draws).tolist()
        context = tuple(sorted(draw_context(members, first, torch.tensor(order))))
        found[context] = found.get(context, 0) + 1 / 8000
    assert set(found) == {(), (1,), (3,), (4,), (1, 3), (1, 4), (3, 4), (1, 3, 4)}
    for context, share in found.items():
        assert abs(share - 0.25 / (3 if len(context) in (1, 2) else 1)) < 0.02
