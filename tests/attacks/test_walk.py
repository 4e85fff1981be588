"""Decision-based steps: the released arithmetic, and what they promise of lengths and directions."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from golden import check_double, load_doubles, under
from torch import Tensor

from mmcl.attacks.base import build_attack
from mmcl.attacks.scene import Scene, fitted_to
from mmcl.attacks.walk import (
    around,
    distances,
    frame_distance,
    keep_bones,
    outwards,
    released_around,
    released_delta,
    towards,
)
from mmcl.skeletons.layout import load_layout

TIES = ((5, 0), (10, 0), (17, 19), (22, 24))  # joints of the released HDM05 that are at one place


def one_body(x: Tensor) -> Tensor:
    """(C, T, V) -> (1, 1, T, V, C)."""
    return x.permute(1, 2, 0)[None, None]


def test_steps_are_the_released_ones() -> None:
    given = load_doubles("tasar", "decision_based_primitives")
    cases = sorted({key.partition("/")[0] for key in given})
    assert cases
    for case in cases:
        compare_steps(case, under(given, f"{case}/"))


def compare_steps(case: str, arrays: dict[str, Tensor]) -> None:
    """Distances and all displacements of one case; those of HDM05 know of joints at one place."""
    current, clean, noise = (one_body(arrays[key]) for key in ("current", "target", "noise"))
    close = 1e-5  # the released distances are float32
    check_double(distances(current, clean).flatten(), arrays["distance_per_axis"], "distance", close)
    forward, way = one_body(arrays["forward_step"]), clean - current
    share = float((forward * way).sum() / way.square().sum())
    assert 0 < share <= 1
    check_double(towards(current, clean, share), forward, "towards", close)
    ties = TIES if "hdm05" in case else ()
    found = released_around(current, clean, noise, float(arrays["delta"]), ties, second_noise(case, arrays))
    check_double(found, one_body(arrays["orthogonal_step"]), "around", close)
    check_double(frame_distance(current, clean)[0], arrays["mean_joint_distance_as_stopping_value"], "stop", close)


def second_noise(case: str, arrays: dict[str, Tensor]) -> Tensor | None:
    """What a case with more joints than frames has beside all that every case has; None where there are no more."""
    known = {"current", "target", "noise", "forward_step", "orthogonal_step"}
    shape = arrays["current"].shape
    if shape[2] <= shape[1]:
        return None
    found = [key for key in arrays if key not in known and arrays[key].shape == shape]
    assert len(found) == 1, f"{case}: {found} of {sorted(arrays)} may be the second noise"
    return one_body(arrays[found[0]])


def test_joints_without_a_column_of_noise_get_another_one() -> None:
    """The released arithmetic of more joints than frames, axis by axis in NumPy."""
    random, T, V, delta = np.random.default_rng(0), 4, 7, 0.3
    current, clean, rest = (random.normal(size=(3, T, V)) for _ in range(3))
    noise = random.normal(size=(3, T, T))
    far = np.linalg.norm(clean - current, axis=(1, 2))
    expected = np.zeros((3, T, V))
    for axis in range(3):
        size = np.linalg.norm(noise[axis])
        scaled, way = noise[axis] / size * delta * far.mean(), (clean[axis] - current[axis]) / far[axis]
        expected[axis] = np.concatenate([scaled, rest[axis][:, T:] / size], axis=1) - scaled @ way * way
    bodies = [one_body(torch.from_numpy(each)) for each in (current, clean, noise, rest)]
    found = released_around(*bodies[:3], delta, rest=bodies[3])
    np.testing.assert_allclose(found, one_body(torch.from_numpy(expected)), rtol=1e-12)
    with pytest.raises(AssertionError, match="second noise"):
        released_around(*bodies[:3], delta)


@pytest.mark.parametrize(
    ("far", "delta", "expected"),
    [(0.11, 0.4, 0.4), (0.1, 0.4, 0.1), (0.1, 0.2, 0.2), (0.05, 0.15, 0.05), (0.05, 0.1, 0.1), (0.05, 0.4, 0.1),
     (0.02, 0.06, 0.025), (0.025, 0.06, 0.06), (0.02, 0.05, 0.05), (0.02, 0.4, 0.1), (0.02, 0.15, 0.05)],
)  # fmt: skip
def test_little_is_explored_near_the_clean_clip(far: float, delta: float, expected: float) -> None:
    """The released rules, of which the first that holds is followed."""
    found = released_delta(*(torch.tensor([each], dtype=torch.float64) for each in (delta, far)))
    assert found.tolist() == [expected]


class Leaning(torch.nn.Module):
    """Answers by where the first joint is beside the others, along the first axis."""

    def __init__(self, joints: int) -> None:
        super().__init__()
        self.class_names, self.layout = ["a", "b"], SimpleNamespace(parents=(0, *range(joints - 1)))

    def forward(self, x: Tensor, lengths: Tensor | None = None, grad: bool = False) -> Tensor:
        aside = (x[..., 0, 0] - x[..., 1:, 0].mean(dim=-1)).sum(dim=(1, 2))
        return torch.stack([aside, -aside], dim=1)


@pytest.mark.parametrize("released", [True, False])
def test_the_released_walk_takes_more_joints_than_frames_and_follows_its_rules(
    released: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every round asks how far away the clean clip is, over the frames that a clip has."""
    asked: list[tuple[Tensor, Tensor]] = []

    def watched(delta: Tensor, far: Tensor) -> Tensor:
        asked.append((delta, far))
        return torch.full_like(delta, 0.3)

    monkeypatch.setattr("mmcl.attacks.basar.released_delta", watched)
    joints = 0.01 * torch.randn(4, 1, 5, 9, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    joints[..., 0, 0] += torch.tensor([0.01, 0.02, -0.01, -0.02])[:, None, None]
    joints[0, 0, 3:] = 0.0
    lengths, model = torch.tensor([3, 5, 5, 5]), Leaning(9)
    mask = (joints != 0).any(dim=-1)
    labels, limit = model(joints).argmax(dim=1), torch.ones(4, 1, 1, 1, 3)
    attack = build_attack("basar", {"steps": 3, "fit_every": 9, "released": released})
    found = attack.perturb(model, joints, lengths, labels, mask, limit)
    assert bool(found.isfinite().all()) and bool((model(found).argmax(dim=1) != labels).all())
    assert len(asked) == (3 if released else 0)
    assert all(delta.shape == far.shape == (4, 1, 1, 1, 1) for delta, far in asked)
    for delta, _ in asked[1:]:  # what was said before, and what exploring makes of it
        assert all(min(abs(each - of) for of in (0.27, 0.3, 1 / 3)) < 1e-9 for each in delta.flatten().tolist())
    far = frame_distance(joints[:1], joints[:1] * 2, lengths[:1])
    torch.testing.assert_close(far, frame_distance(joints[:1, :, :3], joints[:1, :, :3] * 2))


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
