"""Decision-based steps: the released arithmetic, and what they promise of lengths and directions."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from golden import check_double, load_doubles, under
from torch import Tensor

from mmcl.attacks.basar import fitted_to
from mmcl.attacks.scene import Scene
from mmcl.attacks.walk import around, distances, frame_distance, keep_bones, outwards, released_around, towards
from mmcl.skeletons.layout import load_layout

TIES = ((5, 0), (10, 0), (17, 19), (22, 24))  # joints of the released HDM05 that are at one place


def one_body(x: Tensor) -> Tensor:
    """(C, T, V) -> (1, 1, T, V, C)."""
    return x.permute(1, 2, 0)[None, None]


def test_steps_are_the_released_ones() -> None:
    given = load_doubles("tasar", "decision_based_primitives")
    cases, short = sorted({key.partition("/")[0] for key in given}), []
    assert cases
    for case in cases:
        arrays = under(given, f"{case}/")
        if arrays["current"].shape[1] < arrays["current"].shape[2]:
            short.append(case)
        else:
            compare_steps(case, arrays)
    if short:
        pytest.skip(f"{short}: fewer frames than joints, for which the released noise has no column for every joint")


def compare_steps(case: str, arrays: dict[str, Tensor]) -> None:
    """Distances and all displacements of one case; those of HDM05 know of joints at one place."""
    current, clean, noise = (one_body(arrays[key]) for key in ("current", "target", "noise"))
    close = 1e-5  # the released distances are float32
    check_double(distances(current, clean).flatten(), arrays["distance_per_axis"], "distance", close)
    check_double(towards(current, clean, 0.95), one_body(arrays["forward_step"]), "towards", close)
    found = released_around(current, clean, noise, float(arrays["delta"]), TIES if case.endswith("hdm05") else ())
    check_double(found, one_body(arrays["orthogonal_step"]), "around", close)
    check_double(frame_distance(current, clean)[0], arrays["mean_joint_distance_as_stopping_value"], "stop", close)


def test_a_step_around_stays_as_far_away() -> None:
    generator = torch.Generator().manual_seed(0)
    current, clean, noise = (torch.randn(3, 2, 10, 5, 3, dtype=torch.float64, generator=generator) for _ in range(3))
    step = around(current, clean, noise, 0.1)
    inner = (step * (clean - current)).sum(dim=(1, 2, 3))
    torch.testing.assert_close(inner, torch.zeros_like(inner), rtol=0, atol=1e-9)
    lengths = distances(step, torch.zeros_like(step)).flatten(1)
    mean = distances(current, clean).flatten(1).mean(dim=1, keepdim=True)
    assert bool((lengths < 0.1 * mean + 1e-9).all()) and bool((lengths > 0.09 * mean).all())


def test_bones_keep_their_lengths_and_their_directions() -> None:
    layout, generator = load_layout("kinect_v2_25"), torch.Generator().manual_seed(0)
    clean = torch.randn(2, 1, 4, 25, 3, dtype=torch.float64, generator=generator)
    changed = clean + 0.3 * torch.randn(clean.shape, dtype=torch.float64, generator=generator)
    mask = torch.ones(clean.shape[:4], dtype=torch.bool)
    mask[0, 0, 1, 3] = False
    found = keep_bones(changed, clean, mask, layout.parents)
    for joint, parent in layout.edges:
        bone, before = (x[:, :, :, joint] - x[:, :, :, parent] for x in (found, changed))
        length = (clean[:, :, :, joint] - clean[:, :, :, parent]).norm(dim=-1)
        there = mask[:, :, :, joint] & mask[:, :, :, parent]
        torch.testing.assert_close(bone.norm(dim=-1)[there], length[there])
        same = torch.nn.functional.cosine_similarity(bone, before, dim=-1)[there]
        torch.testing.assert_close(same, torch.ones_like(same))
    assert torch.equal(found[0, 0, 1, 3], changed[0, 0, 1, 3])
    order = [next(joint for joint, parent in enumerate(layout.parents) if joint == parent), *outwards(layout.parents)]
    assert sorted(order) == [*range(25)] and all(order.index(b) < order.index(a) for a, b in layout.edges)


def test_another_clip_takes_the_place_of_a_clean_one_and_not_of_nobody() -> None:
    """Twice as many frames of it are spread over those that the clean clip has, around the same middle."""
    clean, other = (torch.randn(2, 1, T, 4, 3, generator=torch.Generator().manual_seed(T)) for T in (5, 6))
    clean[0, 0, 3:] = clean[1] = 0.0
    mask = (clean != 0).any(dim=-1)
    limit, lengths = torch.ones(2, 1, 1, 1, 3), torch.tensor([3, 0])
    scene = Scene(SimpleNamespace(), clean, lengths, torch.zeros(2, dtype=torch.long), mask, limit)
    found = fitted_to(scene, other, torch.tensor([6, 0]))
    taken = other[0, 0, [1, 3, 5]]
    torch.testing.assert_close(found[0, 0, :3], taken + (clean[0, 0, :3] - taken).mean(dim=(0, 1)))
    assert not found[0, 0, 3:].any() and not found[1].any()
    assert torch.equal(fitted_to(scene, other, torch.tensor([6, 6]))[1], found[1])
