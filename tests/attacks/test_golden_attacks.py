"""Attacks under ``released`` against arrays that the released code made, step by step."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from attacks.stand_in import StandIn, clips, released_heads, scene_arguments
from golden import check_double, load_doubles, load_json
from torch import Tensor

from mmcl.attacks.base import build_attack
from mmcl.attacks.iterative import Iterative
from mmcl.attacks.mifgsm import with_momentum
from mmcl.attacks.motion import Carry, carried
from mmcl.attacks.scene import Scene
from mmcl.attacks.smart import terms, unit
from mmcl.attacks.tasar import separate_gradients


def watched(attack: Iterative) -> list[tuple[Tensor, Tensor]]:
    """The joints that every step of the next run begins at, and its direction."""
    seen: list[tuple[Tensor, Tensor]] = []
    inner = attack.ascent

    def ascent(scene: Scene) -> Callable[[Tensor, int], Tensor]:
        own = inner(scene)

        def watch(joints: Tensor, number: int) -> Tensor:
            direction = own(joints, number)
            seen.append((joints, direction))
            return direction

        return watch

    attack.ascent = ascent  # type: ignore[method-assign]
    return seen


def released_steps(model: StandIn, arrays: dict[str, Tensor], prefix: str, labels: Tensor, targeted: bool) -> int:
    """How many steps the released loop took: it looks at all clips first, and stops where all are fooled."""
    seen = sum(key.startswith(f"{prefix}iter") and key.endswith("/x_before") for key in arrays)
    right = model(clips(arrays[f"{prefix}iter{seen - 1}/x_before"])).argmax(dim=1) == labels
    return seen - int(bool((right if targeted else ~right).all()))


def test_a_batch_whose_clips_are_all_fooled_is_left_alone() -> None:
    """The released loop, written out, on those clips of the golden set that the last logged step found fooled."""
    arrays, facts = load_doubles("tasar", "fgsm"), load_json("tasar", "fgsm_config")
    model, steps, limit = StandIn(arrays), facts["iterations"], facts["clip"]
    everything = scene_arguments(arrays, arrays["in/y"], limit)
    last = len([key for key in arrays if re.fullmatch(r"untargeted/iter\d+/x_before", key)]) - 1
    late = model(clips(arrays[f"untargeted/iter{last}/x_before"])).argmax(dim=1) != arrays["in/y"]
    if not bool(late.any()):
        pytest.skip("the released attack has fooled no clip before its last step")
    joints, lengths, labels, mask, limits = (each[late] for each in everything)
    moved, taken = joints.clone(), 0
    while taken < steps and not bool((model(moved).argmax(dim=1) != labels).all()):
        leaf = moved.clone().requires_grad_(True)
        (slope,) = torch.autograd.grad(torch.nn.functional.cross_entropy(model(leaf), labels), leaf)
        size = slope.abs().mean(dim=(1, 2, 3, 4), keepdim=True)
        moved, taken = joints + (moved + facts["step"] * slope / size - joints).clamp(-limit, limit), taken + 1
    options = {"steps": steps, "step": facts["step"] / limit, "epsilon": limit, "released": True}
    attack = build_attack("ifgsm", options)
    seen = watched(attack)
    found = attack.perturb(model, joints, lengths, labels, mask, limits)
    assert len(labels) and len(seen) == taken < steps
    check_double(found, moved, "joints")


def runs(arrays: dict[str, Tensor]) -> list[str]:
    """Names of the attacks whose steps are in a file."""
    found = [key.removesuffix("/x_final") for key in arrays if key.endswith("/x_final")]
    assert found and set(found) == {key.partition("/iter")[0] for key in arrays if "/iter" in key}
    return found


@pytest.mark.parametrize("name", ["fgsm", "mifgsm", "mig"])
def test_gradient_attacks_take_the_released_steps(name: str) -> None:
    arrays, facts = load_doubles("tasar", name), load_json("tasar", "fgsm_config" if name != "mig" else "mig_config")
    kinds = runs(arrays)
    assert "untargeted" in kinds and set(kinds) <= {"untargeted", "targeted"}
    for kind in kinds:
        compare_run(name, kind, arrays, facts)


def compare_run(name: str, kind: str, arrays: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """Joints, directions and scores of every step of one attack."""
    step = facts.get("step", 0.01) / facts["clip"]
    options = {"steps": facts["iterations"], "step": step, "epsilon": facts["clip"], "released": True}
    options |= {
        "mifgsm": {"decay": facts.get("mi_decay")},
        "mig": {"decay": facts.get("momentum"), "points": facts.get("path_points")},
    }.get(name, {})
    attack = build_attack("ifgsm" if name == "fgsm" else name, {**options, "targeted": kind == "targeted"})
    seen = watched(attack)
    labels = arrays["in/target_labels" if kind == "targeted" else "in/y"]
    model, arguments = StandIn(arrays), scene_arguments(arrays, labels, facts["clip"])
    found = attack.perturb(model, *arguments)
    assert len(seen) == released_steps(model, arrays, f"{kind}/", labels, kind == "targeted")
    count = len(labels) * facts.get("path_points", 1)  # the released loss is a mean over clips, and over the path
    tight = 1e-7 if name == "mig" else 1e-9  # the released path's factors are float32
    for step, (joints, direction) in enumerate(seen):
        case = f"{kind}/iter{step}"
        check_double(joints, clips(arrays[f"{case}/x_before"]), f"{case} x", tight)
        check_double(-direction / count, clips(arrays[f"{case}/cgs"]), f"{case} direction", tight)
        if name != "mig":
            check_double(model(joints), arrays[f"{case}/logits"], f"{case} scores")
    check_double(found, clips(arrays[f"{kind}/x_final"]), "final", tight)
    check_double(model(found).argmax(dim=1), arrays[f"{kind}/predicted_final"], "answers")


@pytest.mark.parametrize("case", ["tasar_attack", "tasar_attack_no_temporal"])
def test_tasar_takes_the_released_steps(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays, facts = load_doubles("tasar", case), load_json("tasar", f"{case}_config")
    heads = released_heads(arrays)
    model, labels = StandIn(arrays, tail=heads), arrays["in/y"]
    carry = Carry(clips(arrays["in/ar1_aligned_first_lag"]), clips(arrays["in/ar2_two_step"]))
    mixed = re.match(r"(\d*\.?\d+) F \+", facts["mix"])
    assert bool(mixed) == facts["temporal"]
    attack = build_attack("tasar", {
        "share": float(mixed[1]) if mixed else 1.0,
        "steps": facts["iterations"], "step": facts["step"] / facts["clip"], "epsilon": facts["clip"],
        "scale": facts["scale"], "samples": facts["samples_per_head"], "motion": facts["temporal"], "released": True,
    })  # fmt: skip
    monkeypatch.setattr("mmcl.attacks.tasar.fit_motion", lambda *_: carry)
    drawn = [heads.sample(arrays[f"attack/iter{step}/weight_noise"], facts["scale"]).detach()
             for step in range(facts["iterations"]) if f"attack/iter{step}/weight_noise" in arrays]  # fmt: skip
    monkeypatch.setattr(attack, "weights", lambda heads, step: drawn[step])
    seen = watched(attack)
    arguments = scene_arguments(arrays, labels, facts["clip"])
    found = attack.perturb(model, *arguments)
    assert heads.heads == facts["heads"] and len(seen) == released_steps(model, arrays, "attack/", labels, False)
    momentum = summed = torch.zeros_like(found)
    N = len(labels)
    for step, (joints, _) in enumerate(seen):
        key = f"attack/iter{step}"
        check_double(joints, clips(arrays[f"{key}/x_before"]), f"{key} x")
        check_double(model(joints), arrays[f"{key}/logits"], f"{key} scores")
        own, posterior = separate_gradients(Scene(model, *arguments), heads, joints, drawn[step])
        share = carried(own, carry)
        check_double(-share / N, clips(arrays[f"{key}/AR_grad"]), f"{key} motion")
        momentum, summed = momentum + own + share, summed + posterior
        check_double(-momentum / N, clips(arrays[f"{key}/cgs"]), f"{key} momentum")
        check_double(-momentum / N, clips(arrays[f"{key}/momentum"]), f"{key} momentum")
        check_double(-summed / N, clips(arrays[f"{key}/ce_grad_sum"]), f"{key} posterior sum")
        check_double(-summed / N / len(drawn[step]), clips(arrays[f"{key}/final_grad"]), f"{key} posterior mean")
        rows = heads.each(_surrogate(model, joints), drawn[step])
        last = Scene(model, *arguments).losses(rows[-1]).mean()
        check_double(-last, arrays[f"{key}/classLoss"], f"{key} loss")
    check_double(found, clips(arrays["attack/x_final"]), "final")
    check_double(model(found).argmax(dim=1), arrays["attack/predicted_final"], "answers")
    shown = [key for key in arrays if "sampled_weights_first_two_of_head" in key]
    assert shown
    for key in shown:
        first = int(key.rpartition("head")[2]) * facts["samples_per_head"]
        check_double(drawn[-1][first : first + 2], arrays[key], "samples")
    check_double(drawn[-1].sum(dim=1), arrays["attack/last_iteration_sampled_weights_sum_each"], "samples")


def _surrogate(model: StandIn, joints: Tensor) -> Tensor:
    return StandIn({f"surrogate/{key}": value for key, value in model.own.items()})(joints)


def smart_weights(facts: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Options of the attack; accelerations are of the case's frame rate."""
    monkeypatch.setattr("mmcl.attacks.smart.FRAMES_PER_SECOND", 1 / facts["dt"])
    return {key: facts[key] for key in ("class_weight", "bone_weight", "recon_weight")}


def test_the_perceptual_terms_of_smart_are_the_released_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    arrays, facts = load_doubles("tasar", "smart"), load_json("tasar", "smart_config")
    clean, changed = clips(arrays["in/x"]), clips(arrays["terms/x_adversarial"])
    weights, parents = arrays["in/joint_weights"].flatten(), arrays["in/parents"]
    attack = build_attack("smart", {"released": True, **smart_weights(facts, monkeypatch)})
    total, leaf = 0.0, changed.clone().requires_grad_(True)
    assert clean.shape[1] == sum(re.fullmatch(r"terms/person\d+/bone", key) is not None for key in arrays)
    for person in range(clean.shape[1]):
        there = torch.ones(clean[:, [person]].shape[:4], dtype=torch.bool)
        found = terms(leaf[:, [person]], clean[:, [person]], there, parents, weights)
        for name, values in found.items():
            check_double(values.mean(), arrays[f"terms/person{person}/{name}"], name)
        own = attack.perceptual(found).mean()
        check_double(own, arrays[f"terms/person{person}/perceptual"], "together")
        total = total + own
    check_double(total, arrays["terms/perceptual_sum"], "sum")
    check_double(torch.autograd.grad(total, leaf)[0], clips(arrays["terms/perceptual_gradient"]), "gradient")


def test_the_papers_own_combination_of_smarts_terms() -> None:
    arrays = load_doubles("tasar", "smart_original_terms")
    joints = len(arrays["in/parents"])
    clean, changed = (arrays[f"in/{key}"].unflatten(2, (joints, -1))[:, None] for key in ("reference", "adversarial"))
    leaf = changed.clone().requires_grad_(True)
    there = torch.ones(clean.shape[:4], dtype=torch.bool)
    weights = torch.full((joints,), 0.02, dtype=torch.float64)
    weights[10:15] = 0.04
    weights = arrays["in/joint_weights"].flatten() if "in/joint_weights" in arrays else weights
    found = terms(leaf, clean, there, arrays["in/parents"], weights)
    for name, values in found.items():
        check_double(values.mean(), arrays[name], name, 1e-6)
    attack = build_attack("smart", {key: float(arrays[key]) for key in ("bone_weight", "recon_weight")})
    total = attack.perceptual(found).mean()
    check_double(total, arrays["perceptual"], "together")
    (gradient,) = torch.autograd.grad(total, leaf)
    check_double(gradient.flatten(3)[:, 0], arrays["gradient"], "gradient", 1e-6)


def test_smart_takes_the_released_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    arrays, facts = load_doubles("tasar", "smart"), load_json("tasar", "smart_config")
    weights = smart_weights(facts, monkeypatch)
    kinds = runs(arrays)
    assert set(kinds) <= {"untargeted", "targeted", "small_clip"}
    assert any(f"{kind}/iter1/pgs" in arrays for kind in kinds)
    for kind in kinds:
        compare_smart(kind, arrays, facts, weights)


def compare_smart(
    kind: str, arrays: dict[str, Tensor], facts: dict[str, Any], weights: dict[str, float]
) -> None:  # fmt: skip
    """Joints and, where the file has them, directions of every step of one attack."""
    epsilon, targeted = facts["small_clip" if kind == "small_clip" else "clip"], kind == "targeted"
    labels = arrays["in/target_labels" if targeted else "in/y"]
    options = {"steps": facts["iterations"], "epsilon": epsilon, "step": facts["step"] / epsilon, "released": True}
    attack = build_attack("smart", {**options, **weights, "targeted": targeted})
    seen = watched(attack)
    model = StandIn(arrays, tuple(arrays["in/parents"].tolist()))
    model.layout.joint_count = len(arrays["in/parents"])
    arguments = scene_arguments(arrays, labels, epsilon)
    found = attack.perturb(model, *arguments)
    assert len(seen) == released_steps(model, arrays, f"{kind}/", labels, targeted)
    share = facts["class_weight"]
    for step, (joints, direction) in enumerate(seen):
        check_double(joints, clips(arrays[f"{kind}/iter{step}/x_before"]), f"step {step}")
        if f"{kind}/iter{step}/pgs" in arrays and step:
            classes = unit(clips(arrays[f"{kind}/iter{step}/cgs"]))
            perceptual = unit(clips(arrays[f"{kind}/iter{step}/pgs"]))
            standing = ((model(joints).argmax(dim=1) == labels) != targeted).view(-1, 1, 1, 1, 1)
            mixed = -(share * classes + (1 - share) * perceptual) * standing
            check_double(direction, mixed, f"step {step} direction")
    check_double(found, clips(arrays[f"{kind}/x_final"]), "final")
    check_double(model(found).argmax(dim=1), arrays[f"{kind}/predicted_final"], "answers")


def test_momentum_forgets_nothing_where_it_should_keep_all() -> None:
    """The closure adds each step's direction to the last whole one: with decay 1/2, a geometric sum."""
    ones, there = torch.ones(1, 1, 1, 1, 1), torch.ones(1, 1, 2, 1, dtype=torch.bool)
    scene = Scene(None, torch.zeros(1, 1, 2, 1, 1), torch.tensor([2]), torch.tensor([0]), there, ones)
    ascent = with_momentum(scene, lambda joints, number: torch.full_like(joints, 2.0**number), 0.5, normalise=False)
    found = [float(ascent(torch.zeros(1, 1, 2, 1, 1), number)[0, 0, 0, 0, 0]) for number in range(4)]
    naive = [sum(2.0**j * 0.5 ** (i - j) for j in range(i + 1)) for i in range(4)]
    assert found == naive
