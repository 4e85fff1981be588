"""Posterior heads: the released sampler, dual gradient and moments, and what the corrected ones promise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from attacks.stand_in import StandIn, clips, head_rows, released_heads
from golden import check_double, count_parameters, load_doubles, load_json
from torch import Tensor

from mmcl.common.errors import UserError
from mmcl.encoders.building import build_encoder
from mmcl.skeletons.layout import load_layout
from mmcl.surgery.posterior import PosteriorHeads
from mmcl.surgery.posterior_heads import PosteriorHeadsSurgery
from mmcl.surgery.posterior_sampler import (
    Moments,
    SamplerOptions,
    dual_gradient,
    gradient,
    released_step,
    train_heads,
)

NAME = "heads_sampler_dual_moments"


def golden() -> tuple[dict[str, Tensor], dict, PosteriorHeads, Tensor, SamplerOptions]:
    """Arrays, their configuration, fresh heads, the surrogate's scores, and the sampler's options."""
    arrays, facts = load_doubles("tasar", NAME), load_json("tasar", "heads_config")
    heads = released_heads(arrays, "heads_before", moments=False)
    options = SamplerOptions(rate=facts["lr"], radius=facts["perturb_radius"], sharpness=facts["lam"], released=True)
    return arrays, facts, heads, StandIn(arrays)(clips(arrays["in/x"])), options


def test_heads_give_the_released_scores() -> None:
    arrays, facts, heads, scores, _ = golden()
    check_double(scores, arrays["forward/surrogate_logits"], "surrogate")
    assert heads.heads == facts["heads"] == sum("forward/head" in key for key in arrays)
    for head, found in enumerate(heads.each(scores, heads.weights)):
        check_double(found, arrays[f"forward/head{head}_logits"], f"head {head}")
    check_double(heads(scores), arrays["forward/sum_logits"], "sum")


def test_heads_are_as_large_as_released() -> None:
    counts = load_json("tasar", "parameter_counts")
    heads = {int(name.rpartition("_")[2]): facts for name, facts in counts.items() if name.startswith("appended_head")}
    assert heads
    for classes, facts in heads.items():
        found = PosteriorHeads(classes, 3)
        assert count_parameters(found) == found.weights.numel() == 3 * facts["_total"]


def test_one_call_of_the_released_sampler() -> None:
    arrays, _, _, _, options = golden()
    parts = [key.removesuffix("_before") for key in arrays if key.startswith("sampler/") and key.endswith("_before")]
    assert parts
    before, grad, after = (
        torch.cat([arrays[f"{part}_{key}"].flatten() for part in parts]) for key in ("before", "grad", "after")
    )
    options = replace(options, rate=float(arrays["sampler/lr"]))
    check_double(released_step(before, grad, arrays["sampler/noise"], options), after, "sampler")


def test_post_training_dual_stage_and_moments_are_the_released_ones() -> None:
    arrays, facts, heads, scores, options = golden()
    batches = list(zip(scores.split(facts["batch"]), arrays["in/y"].split(facts["batch"]), strict=True))
    rows = list(heads.weights.detach())
    assert len(batches) == facts["batches"] and len(arrays["posttrain/noise"]) == len(batches) * facts["heads"]
    noise = iter(arrays["posttrain/noise"])
    for head in range(facts["heads"]):
        for x, y in batches:
            rows[head] = released_step(rows[head], gradient(heads, rows[head], x, y), next(noise), options)
    check_double(torch.stack(rows), head_rows(arrays, "posttrain/heads_after"), "after post-training")
    with torch.no_grad():
        heads.weights.copy_(torch.stack(rows))
    moments, step = Moments.begin(heads), 0
    every = max(1, facts["dual_epochs"] * facts["batches"] // facts["swa_n"])
    counted = []
    assert len(arrays["dual/noise"]) == facts["dual_epochs"] * facts["heads"] * len(batches)
    for epoch in range(facts["dual_epochs"]):
        for head in range(facts["heads"]):
            for place, (x, y) in enumerate(batches):
                plain = gradient(heads, rows[head], x, y)
                check_double(plain, arrays["dual/grad_plain"][step], f"step {step} plain")
                away = rows[head] + options.radius * plain / plain.norm()
                check_double(gradient(heads, away, x, y), arrays["dual/grad_at_perturbed"][step], f"step {step} away")
                used = dual_gradient(heads, rows[head], x, y, options)
                check_double(used, arrays["dual/grad_used"][step], f"step {step} used")
                rows[head] = released_step(rows[head], used, arrays["dual/noise"][step], options)
                if (epoch * facts["batches"] + place) % every == 0:
                    counted.append([step, sum(moments.counts)])
                    moments.add(head, rows[head])
                step += 1
    assert counted == arrays["dual/moment_updates_step_and_counter"].tolist()
    check_double(torch.stack(rows), head_rows(arrays, "dual/heads_after"), "after the dual stage")
    check_double(moments.mean, head_rows(arrays, "dual/mean"), "mean")
    check_double(moments.square, head_rows(arrays, "dual/sqmean"), "square")


def test_moments_are_those_of_the_snapshots() -> None:
    heads = PosteriorHeads(3, 2).double()
    moments, generator = Moments.begin(heads), torch.Generator().manual_seed(0)
    snapshots = torch.randn(2, 7, 24, dtype=torch.float64, generator=generator)
    for head in (1, 0):  # one head after the other: neither hears of the other
        for row in snapshots[head]:
            moments.add(head, row)
    torch.testing.assert_close(moments.mean, torch.from_numpy(np.mean(snapshots.numpy(), axis=1)))
    torch.testing.assert_close(moments.square, torch.from_numpy(np.mean(snapshots.numpy() ** 2, axis=1)))
    with torch.no_grad():
        heads.mean.copy_(moments.mean)
        heads.square.copy_(moments.square)
    drawn = heads.sample(torch.randn(2 * 20_000, 24, dtype=torch.float64, generator=generator), 1.5)
    spread = torch.from_numpy(np.std(snapshots.numpy(), axis=1))
    torch.testing.assert_close(drawn[:20_000].mean(dim=0), moments.mean[0], rtol=0, atol=0.05)
    torch.testing.assert_close(drawn[20_000:].std(dim=0), 1.5 * spread[1], rtol=0.03, atol=0)


def test_the_dual_gradient_adds_the_curvature_along_the_gradient() -> None:
    """g + sharpness H g / |g| with the exact Hessian, on the heads' own loss at a place where it is smooth."""
    heads = PosteriorHeads(4, 1).double()
    generator = torch.Generator().manual_seed(3)
    weights = 0.5 * torch.randn(40, dtype=torch.float64, generator=generator)
    scores, labels = torch.randn(9, 4, dtype=torch.float64, generator=generator), torch.arange(9) % 4
    options = SamplerOptions(radius=1e-5, sharpness=0.3)
    found = dual_gradient(heads, weights, scores, labels, options)

    def loss(at: Tensor) -> Tensor:
        return torch.nn.functional.cross_entropy(heads.each(scores, at[None])[0], labels)

    plain = torch.autograd.functional.jacobian(loss, weights)
    curved = torch.autograd.functional.hessian(loss, weights) @ (plain / plain.norm())
    torch.testing.assert_close(found, plain + 0.3 * curved, rtol=0, atol=1e-4)
    assert float((0.3 * curved).norm()) > 1e-2


@pytest.mark.parametrize("released", [False, True])
def test_training_lowers_the_loss_and_keeps_the_surrogates_answers(released: bool) -> None:
    """Scores that are right in nine of ten clips: heads may not forget them, and their loss shows what they learn."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(6, (200,), generator=generator)
    scores = torch.randn(200, 6, generator=generator) + 3.0 * torch.nn.functional.one_hot(labels, 6)
    torch.manual_seed(0)
    heads = PosteriorHeads(6, 2, released)
    before = heads.weights.detach().clone()

    def loss() -> float:
        with torch.no_grad():
            each = heads.each(scores, heads.weights)
        return float(torch.stack([torch.nn.functional.cross_entropy(one, labels) for one in each]).mean())

    first = loss()
    train_heads(heads, scores, labels, SamplerOptions(inner=10, released=released), (4, 4), 50, 32, seed=1)
    assert loss() < first - (0.001 if released else 0.008) and not torch.equal(heads.weights, before)
    kept = (heads(scores).argmax(dim=1) == labels).float().mean() - (scores.argmax(dim=1) == labels).float().mean()
    assert kept > -0.02
    variance = heads.square - heads.mean.square()
    assert released or (bool((variance > -1e-6).all()) and float(variance.max()) > 0)


def test_heads_leave_the_surrogates_probabilities_where_they_add_nothing() -> None:
    """Without their own part, heads give the surrogate's softmax, and a gradient where all scores are negative."""
    heads = PosteriorHeads(5, 3)
    scores = torch.randn(8, 5, generator=torch.Generator().manual_seed(0)) - 10.0
    with torch.no_grad():
        heads.weights.zero_()
    torch.testing.assert_close(heads(scores).softmax(dim=1), scores.softmax(dim=1))
    leaf = scores.clone().requires_grad_(True)
    torch.nn.functional.cross_entropy(heads(leaf), torch.zeros(8, dtype=torch.long)).backward()
    assert bool((leaf.grad.abs().amax(dim=1) > 0).all())


@pytest.mark.parametrize(
    ("structure", "words"),
    [
        ({"heads": 10**9, "classes": 5, "released": False}, "heads"),
        ({"heads": True, "classes": 5, "released": False}, "heads"),
        ({"heads": 3, "classes": 10**6, "released": False}, "classes do not fit"),
        ({"heads": 3, "classes": 5, "released": "yes"}, "heads"),
        ({}, "heads"),
    ],
)
def test_a_strangers_structure_is_checked_before_anything_is_made(structure: dict, words: str) -> None:
    encoder = build_encoder("ctrgcn", load_layout("kinect_v2_25"), 5, {"width": 8, "depth": 3, "persons": 1})
    with pytest.raises(UserError, match=words):
        PosteriorHeadsSurgery.reshape(encoder, structure)
