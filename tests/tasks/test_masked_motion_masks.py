"""Masked motion prediction: which tokens are masked, targets and loss equal the released code's, and what they mean."""

from __future__ import annotations

import math
import re
from fractions import Fraction

import numpy as np
import pytest
import torch
from golden import check_double, golden_folder, load_doubles, load_json, under
from released_mamp import as_batch, build_decoder, build_mamp, own_name, own_state

from mmcl.encoders.mamp.patches import patchify
from mmcl.encoders.masking import kept_count, mask_by_score
from mmcl.tasks.masked_motion.masks import (
    mask_scores,
    masked_error,
    motion,
    motion_logits,
    normalise_patches,
)
from mmcl.tasks.stages import ScheduleOptions, schedule_factor


def test_counts_of_kept_tokens():
    for tokens, ratio, kept, masked in load_json("stars", "kept_counts")["rows"]:
        assert kept_count(tokens, ratio, released=True) == kept == tokens - masked
        assert kept_count(tokens, ratio) == math.floor(tokens * (1 - Fraction(str(ratio))))
    assert kept_count(750, 0.9) == 75 and kept_count(750, 0.9, released=True) == 74


def test_masks_equal_the_released_ones():
    large = sorted(path.stem for path in golden_folder("stars").glob("mask_*tokens.npz"))
    assert large
    for name in ("mamp_stage1", *large):
        compare_masks(name)


def compare_masks(name):
    """Distribution, scores and mask of one file."""
    arrays = load_doubles("stars", name)
    bodies = as_batch(arrays["in/x"]).flatten(0, 1)
    patches = patchify(bodies.float(), bodies.shape[1] * bodies.shape[2] // arrays["in/u"].shape[1])
    noise, tau, ratio = arrays["in/u"].float(), float(arrays["in/tau"]), float(arrays["in/mask_ratio"])
    logits = motion_logits(patches, tau)
    check_double(logits.softmax(dim=1), arrays["mask/prob"], "distribution")
    scores = mask_scores(patches, noise, tau)
    check_double(scores, arrays["mask/score"], "scores")
    mask = mask_by_score(scores, kept_count(noise.shape[1], ratio, released=True))
    check_double(mask.kept, arrays["mask/ids_keep"], "kept")
    check_double(mask.restore, arrays["mask/ids_restore"], "restore")
    check_double(mask.masked, arrays["mask/mask"], "masked")
    if "mask/softmax_input" in arrays:
        check_double(logits, arrays["mask/softmax_input"], "logits")
        check_double(patches.flatten(1, 2).double(), arrays["stage/patches"], "patches")
        plain = mask_by_score(mask_scores(patches, noise, 0.0), mask.kept.shape[1])
        check_double(plain.kept, arrays["randmask/ids_keep"], "plain masking")
        check_double(plain.masked, arrays["fwd_tau0/mask"], "plain masking")


def stage1_config():
    """Arguments of the released network; the test is skipped where we have no form of one."""
    config = load_json("stars", "mamp_stage1_config")["cfg"]
    if config["patch_size"] != 1:
        pytest.skip(f"patch_size {config['patch_size']}: our tokens are of one joint each")
    return config


def target_patches(bodies, stride=1):
    """What is predicted: (B, L, P) motion, standardised where the released network was told so."""
    config = stage1_config()
    patches = patchify(motion(bodies, stride), config["t_patch_size"]).flatten(1, 2)
    return normalise_patches(patches) if config["norm_skes_loss"] else patches


def test_targets_and_losses_equal_the_released_ones():
    arrays, frames = load_doubles("stars", "mamp_stage1"), stage1_config()["t_patch_size"]
    bodies, mask = as_batch(arrays["in/x"]).flatten(0, 1), arrays["mask/mask"].bool()
    check_double(motion(bodies), arrays["target/motion"])
    targets = patchify(motion(bodies), frames).flatten(1, 2)
    check_double(targets, arrays["target/patches"])
    check_double(normalise_patches(targets), arrays["target/normalised"])
    predicted = arrays["fwd/pred"]
    check_double(masked_error(predicted, normalise_patches(targets), mask).mean(), arrays["fwd/loss_normTrue"])
    check_double(masked_error(predicted, targets, mask).mean(), arrays["fwd/loss_normFalse"])
    strides = [int(found[1]) for key in arrays if (found := re.fullmatch(r"fwd/loss_stride(\d+)", key))]
    assert strides
    for stride in strides:
        strided = target_patches(bodies, stride)
        check_double(masked_error(predicted, strided, mask).mean(), arrays[f"fwd/loss_stride{stride}"])


@pytest.mark.parametrize("tau", ["in/tau", None])
def test_a_step_of_pretraining_equals_the_released_one_with_all_gradients(tau):
    arrays, facts = load_doubles("stars", "mamp_stage1"), load_json("stars", "mamp_stage1_config")
    config = stage1_config()
    encoder, decoder = build_mamp(config), build_decoder(config)
    encoder.load_state_dict(own_state(under(arrays, "sd/"), "encoder"), strict=False)
    decoder.load_state_dict(own_state(under(arrays, "sd/"), "decoder"))
    bodies = as_batch(arrays["in/x"]).flatten(0, 1)
    kept = kept_count(facts["tokens"], facts["mask_ratio"], released=True)
    scores = mask_scores(patchify(bodies, config["t_patch_size"]), arrays["in/u"], float(arrays[tau]) if tau else 0.0)
    mask = mask_by_score(scores, kept)
    predicted = decoder(encoder.encode(mask.take(encoder.tokenise(bodies))), mask.restore)
    loss = masked_error(predicted, target_patches(bodies), mask.masked).mean()
    check_double(loss, arrays["fwd/loss" if tau else "fwd_tau0/loss"])
    if not tau:
        return
    check_double(predicted, arrays["fwd/pred"])
    loss.backward()
    gradients = under(arrays, "grad/")
    assert set(gradients) == set(under(arrays, "sd/"))
    for official, gradient in gradients.items():
        part, name = own_name(official)
        found = dict((encoder if part == "encoder" else decoder).named_parameters())[name].grad
        check_double(found.view_as(gradient), gradient, official)


def moving_joint(bodies: int) -> torch.Tensor:
    """(B, 30, 25, 12) patches of which only joint 7 moves, evenly."""
    patches = torch.zeros(bodies, 30, 25, 12)
    patches[:, :, 7] = torch.arange(30.0)[None, :, None]
    return patches


def test_moving_tokens_are_masked_more_often_and_a_high_temperature_masks_all_alike():
    draws = torch.Generator().manual_seed(0)
    noise, patches = torch.rand(400, 750, generator=draws), moving_joint(400)

    def share_masked(tau: float) -> float:
        masked = mask_by_score(mask_scores(patches, noise, tau), kept_count(750, 0.9)).masked
        assert masked.sum(dim=1).eq(675).all()
        return masked.view(400, 30, 25)[:, :, 7].double().mean().item()

    assert share_masked(0.8) > 0.99  # 1 - exp(-e^1.25 * ln 10) = 0.9997 in the limit of many tokens
    assert abs(share_masked(1e9) - 0.9) < 0.005 and abs(share_masked(0.0) - 0.9) < 0.005


def test_a_body_that_does_not_move_has_no_preference():
    scores = mask_scores(torch.ones(2, 3, 5, 12), torch.rand(2, 15), 0.8)
    logits = motion_logits(torch.ones(2, 3, 5, 12), 0.8)
    assert not logits.any() and scores.isfinite().all()
    assert motion_logits(torch.randn(2, 1, 5, 12), 0.8).eq(0).all()  # a single patch has no motion


def test_tokens_come_back_in_order():
    mask = mask_by_score(torch.rand(3, 40, dtype=torch.float64), 11)
    tokens = torch.arange(40.0).expand(3, 40)[:, :, None]
    kept = mask.take(tokens)
    shuffled = torch.cat([kept, torch.full((3, 29, 1), -1.0)], dim=1)
    restored = shuffled.gather(1, mask.restore[:, :, None])
    assert torch.equal(restored, torch.where(mask.masked[:, :, None], -1.0, tokens))


def test_motion_that_is_even_is_a_constant_target_and_visible_tokens_have_no_loss():
    t = torch.arange(12.0, dtype=torch.float64)
    bodies = t[None, :, None, None].expand(2, -1, 3, 3) * 0.25
    change = motion(bodies)
    assert change[:, :-1].eq(0.25).all() and not change[:, -1].any()
    targets = normalise_patches(patchify(change, 4).flatten(1, 2))
    assert not targets.view(2, 3, 3, 12)[:, :2].any()  # the last patch holds the last frame's 0
    mask = mask_by_score(torch.rand(2, 9), 4).masked
    assert masked_error(targets, targets, mask).mean() == 0.0
    visible = torch.where(mask[:, :, None], targets, 7.0)
    assert masked_error(visible, targets, mask).mean() == 0.0
    wrong = torch.where(mask[:, :, None], targets + 2.0, targets)
    assert masked_error(wrong, targets, mask).mean().item() == pytest.approx(4.0)


def test_standardised_patches_against_numpy():
    values = np.random.default_rng(0).normal(size=(5, 12))
    expected = (values - values.mean(1, keepdims=True)) / np.sqrt(values.var(1, ddof=1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(normalise_patches(torch.from_numpy(values)).numpy(), expected, rtol=1e-12)


def test_the_schedule_is_the_released_one_but_for_a_step():
    """The released one starts at 0; ours takes its first step, too: in warm-up it differs by less than a step of it."""
    facts = load_json("stars", "lr_schedule")
    steps, warmup, epochs = 200, facts["warmup_epochs"], facts["epochs"]
    options = ScheduleOptions("cosine", epochs, warmup, floor=facts["min_lr"] / facts["lr"])
    factor = schedule_factor(options, steps)
    scaled = float(facts["columns"][2].rpartition(" ")[2])  # the third column is of a group with such a scale
    assert facts["rows"]
    for epoch, rate, half, whole in facts["rows"]:
        found = facts["lr"] * factor(round(epoch * steps))
        slack = facts["lr"] / (warmup * steps) if epoch < warmup else 1e-12
        assert found == pytest.approx(rate, rel=0, abs=slack), epoch
        assert half == pytest.approx(scaled * rate, rel=1e-12) and whole == rate
