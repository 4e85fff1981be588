"""The task masked_motion: equal to the released code, who counts in its loss, which encoders it takes."""

from __future__ import annotations

import pytest
import torch
from golden import check_double, load_doubles, load_json, under
from made_tasks import context_of
from released_mamp import as_batch, build_mamp, own_name, own_state

from mmcl.common.errors import UserError
from mmcl.encoders.building import build_encoder
from mmcl.encoders.mamp.network import MAMP
from mmcl.encoders.mamp.options import MAMPOptions
from mmcl.encoders.mamp.patches import patchify
from mmcl.encoders.masking import mask_by_score
from mmcl.skeletons.layout import load_layout
from mmcl.tasks.masked_motion.masks import mask_scores, motion_seen
from mmcl.tasks.masked_motion.options import DecoderOptions, MaskedMotionOptions
from mmcl.tasks.masked_motion.task import MaskedMotion

SMALL = DecoderOptions(width=8, depth=1, heads=2, expansion=2)


@pytest.fixture(scope="module")
def task() -> MaskedMotion:
    """A small task in float64, two persons, 12 frames in patches of 4, seven joints."""
    torch.manual_seed(0)
    encoder = MAMP(load_layout("coco_17"), 3, MAMPOptions(width=8, depth=1, heads=2, expansion=2, frames=12))
    return MaskedMotion(context_of(encoder, 12, [0, 1, 2]), MaskedMotionOptions(ratio=0.8, decoder=SMALL)).double()


def clips(count: int = 4) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Joints (N, 2, 12, 17, 3), all there, and noise for their 51 tokens."""
    draws = torch.Generator().manual_seed(1)
    x = torch.randn(count, 2, 12, 17, 3, generator=draws, dtype=torch.float64).cumsum(dim=2)
    return x, torch.ones(x.shape[:4], dtype=torch.bool), torch.rand(count, 2, 51, generator=draws)


@pytest.mark.parametrize("tau", [True, False])
def test_a_step_through_the_task_equals_the_released_one(tau):
    arrays, facts = load_doubles("stars", "mamp_stage1"), load_json("stars", "mamp_stage1_config")
    config = facts["cfg"]
    if config["patch_size"] != 1:
        pytest.skip(f"patch_size {config['patch_size']}: our tokens are of one joint each")
    decoder = DecoderOptions(config["decoder_dim_feat"], config["decoder_depth"], config["num_heads"],
                             config["mlp_ratio"])  # fmt: skip
    options = MaskedMotionOptions(facts["mask_ratio"], float(arrays["in/tau"]) if tau else 0.0, decoder=decoder,
                                  normalise=config["norm_skes_loss"], released=True)  # fmt: skip
    encoder = build_mamp(config, persons=facts["M"])
    task = MaskedMotion(context_of(encoder, config["num_frames"], [0, 1, 2]), options).double()
    task.encoder.load_state_dict(own_state(under(arrays, "sd/"), "encoder"), strict=False)
    task.decoder.load_state_dict(own_state(under(arrays, "sd/"), "decoder"))
    x = as_batch(arrays["in/x"])
    noise = arrays["in/u"].unflatten(0, x.shape[:2])
    loss = task.clip_losses(x, torch.ones(x.shape[:4], dtype=torch.bool), noise).mean()
    check_double(loss, arrays["fwd/loss" if tau else "fwd_tau0/loss"])
    if tau:
        loss.backward()
        for official, gradient in under(arrays, "grad/").items():
            part, name = own_name(official)
            check_double(getattr(task, part).get_parameter(name).grad.view_as(gradient), gradient, official)


def test_a_batch_is_the_mean_of_its_clips_and_absent_persons_do_not_count(task):
    x, there, noise = clips()
    x[1, 1] = 0
    together = task.clip_losses(x, there, noise)
    alone = torch.cat([task.clip_losses(x[n : n + 1], there[n : n + 1], noise[n : n + 1]) for n in range(4)])
    torch.testing.assert_close(together, alone)
    swapped = task.clip_losses(x[1:2].flip(1), there[1:2], noise[1:2].flip(1))
    torch.testing.assert_close(swapped, together[1:2])  # the one person counts alone, in whichever slot
    x[2] = 0
    losses = task.clip_losses(x, there, noise)
    assert losses[2] == 0 and torch.equal(losses[[0, 1, 3]], together[[0, 1, 3]])
    assert task.clip_losses(x[2:3], there[2:3], noise[2:3]).mean().requires_grad  # a batch with nobody in it at all


def test_joints_that_are_missing_do_not_count(task):
    """Where zero is predicted, a moving token's error is that of a standardised patch, and a still one's is 0."""
    x, there, noise = clips(1)
    there[0, 0, :, 5] = False
    x = x * there[..., None]
    x[0, 1] = 0
    with torch.no_grad():
        task.decoder.predict.weight.zero_()
        task.decoder.predict.bias.zero_()
    masked = mask_by_score(mask_scores(patchify(x[0, :1], 4), noise[0, :1], 0.8), task.kept).masked.view(3, 17)
    share = float(masked[:, 5].sum() / masked.sum())
    assert share > 0
    moving = task.clip_losses(x, there, noise)
    torch.testing.assert_close(moving, torch.full_like(moving, 11 / 12), atol=1e-4, rtol=0)
    torch.testing.assert_close(task.clip_losses(x, torch.ones_like(there), noise), moving * (1 - share))


def test_a_jump_to_a_joint_that_is_not_there_is_no_motion(task):
    """A joint is missing in the first frame of the second patch: the first patch's last change leads there."""
    x, there, noise = clips(1)
    there[0, 0, 4, 5] = False
    for stride in (1, 3):
        seen = motion_seen(there[0], stride)
        for t in range(12):
            both = there[0, :, t] & there[0, :, t + stride] if t + stride < 12 else there[0, :, t]
            assert torch.equal(seen[:, t], both)
    noise[0, 0] = 0.5  # all alike, but for joint 5, which is masked in every patch
    noise[0, 0, 5::17] = 0.999
    found = task.clip_losses(x * there[..., None], there, noise)
    elsewhere = x * there[..., None]
    elsewhere[0, 0, 3, 5] += 100  # within the first patch, which is masked and not counted
    masked = mask_by_score(mask_scores(patchify(elsewhere[0, :1], 4), noise[0, :1], 0.8), task.kept).masked.view(3, 17)
    assert masked[:2, 5].all()
    torch.testing.assert_close(task.clip_losses(elsewhere, there, noise), found)


def test_a_patch_that_is_not_full_and_all_layouts(task):
    for name, window in (("kinect_v2_25", 10), ("coco_17", 7)):
        layout = load_layout(name)
        encoder = build_encoder("mamp", layout, 2, {"width": 8, "depth": 1, "heads": 2, "frames": 12, "persons": 3})
        made = MaskedMotion(context_of(encoder, window, [0, 1]), MaskedMotionOptions(decoder=SMALL))
        x = torch.randn(2, 3, window, layout.joint_count, 3)
        noise = torch.rand(2, 3, made.tokens)
        losses = made.clip_losses(x, torch.ones(x.shape[:4], dtype=torch.bool), noise)
        assert losses.isfinite().all() and made.tokens == -(-window // 4) * layout.joint_count


def test_encoders_without_tokens_and_bad_options_are_refused():
    layout = load_layout("coco_17")
    encoder = build_encoder("ctrgcn", layout, 2, {"width": 8, "depth": 3})
    with pytest.raises(UserError, match=r"part of its tokens, and ctrgcn cannot: give --encoder.name=mamp"):
        MaskedMotion(context_of(encoder, 16, [0, 1]), MaskedMotionOptions())
    encoder = build_encoder("mamp", layout, 2, {"width": 8, "depth": 1, "heads": 2, "frames": 16})
    wrong = (({"ratio": 1.0}, "task.ratio"), ({"ratio": 0.999}, "it keeps 0"), ({"stride": 16}, "task.stride"),
             ({"decoder": DecoderOptions(width=12)}, "task.decoder.width"))  # fmt: skip
    for given, key in wrong:
        with pytest.raises(UserError, match=key):
            MaskedMotion(context_of(encoder, 16, [0, 1]), MaskedMotionOptions(**given))
