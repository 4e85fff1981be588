"""What every encoder promises beside being trained: its outputs, its levels, its lean form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from contracts.token_encoder import TokenEncoder
from torch import nn

from mmcl.common.options import fill
from mmcl.encoders import ENCODERS
from mmcl.encoders.base import Encoder
from mmcl.encoders.building import parse_options
from mmcl.skeletons.layout import load_layout

CLIPS, PERSONS, FRAMES, CLASSES = 3, 2, 16, 5
CAUSAL = "causal"  # ctrgcn with that option, which makes another network of it


def build(name: str, layout: str = "kinect_v2_25") -> Encoder:
    torch.manual_seed(0)
    joints, options = load_layout(layout), {"persons": PERSONS, **settings(name)}
    if name == CAUSAL:
        return ENCODERS["ctrgcn"](joints, CLASSES, parse_options("ctrgcn", {**options, "causal": True}))
    if name == "token":
        return TokenEncoder(joints, CLASSES, fill(name, options, TokenEncoder.options_type))
    return ENCODERS[name](joints, CLASSES, parse_options(name, options))


def settings(name: str) -> Mapping[str, Any]:
    return TokenEncoder.tiny if name == "token" else ENCODERS[name.removesuffix(CAUSAL) or "ctrgcn"].tiny


def clips(encoder: Encoder) -> torch.Tensor:
    """Bodies of which one is absent, and one joint is missing in one frame."""
    torch.manual_seed(1)
    x = torch.randn(CLIPS, PERSONS, FRAMES, encoder.layout.joint_count, 3)
    x[1, 1] = 0.0
    x[0, 0, 3, 2] = 0.0
    return x


pytestmark = pytest.mark.parametrize("name", [*ENCODERS, "token", CAUSAL])


@pytest.mark.parametrize("layout", ["kinect_v2_25", "kinect_v1_20"])
def test_outputs_are_named_and_agree(name, layout) -> None:
    encoder = build(name, layout).eval()
    x = clips(encoder)
    with torch.no_grad():
        outputs, scores = encoder.outputs(x), encoder(x)
    assert outputs["features"].shape == (CLIPS, encoder.feature_width) and scores.shape == (CLIPS, CLASSES)
    torch.testing.assert_close(outputs["scores"], scores)
    torch.testing.assert_close(encoder.features(x), outputs["features"])
    torch.testing.assert_close(encoder.head(outputs["features"]), scores)
    assert all(tensor.isfinite().all() for tensor in outputs.values())


def test_a_clip_s_scores_do_not_depend_on_the_others(name) -> None:
    encoder = build(name).eval()
    x = clips(encoder)
    with torch.no_grad():
        torch.testing.assert_close(encoder(x)[1:2], encoder(x[1:2]), rtol=1e-4, atol=1e-5)


def test_every_parameter_but_the_head_s_is_in_one_level(name) -> None:
    encoder = build(name)
    levels = [
        id(parameter)
        for level in encoder.depth()
        for part in level
        for parameter in ([part] if isinstance(part, nn.Parameter) else part.parameters())
    ]
    head = {id(parameter) for key, parameter in encoder.named_parameters() if encoder.in_head(key)}
    assert head and len(encoder.depth()) >= 2
    assert sorted(levels) == sorted({id(parameter) for parameter in encoder.parameters()} - head)


def test_the_lean_form_is_the_same_function(name) -> None:
    encoder = build(name)
    x = clips(encoder)
    encoder.train()(x)  # so that batch statistics are not those of the start
    encoder.eval()
    lean = encoder.lean(FRAMES)
    with torch.no_grad():
        torch.testing.assert_close(lean(x), encoder(x), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(lean.features(x), encoder.features(x), rtol=1e-4, atol=1e-5)
    assert not any(parameter.requires_grad for parameter in lean.parameters())


def test_the_lean_form_keeps_nothing_that_autocast_has_rounded(name) -> None:
    encoder = build(name).eval()
    x, used, fresh = clips(encoder), encoder.lean(), encoder.lean()
    with torch.no_grad():
        with torch.autocast("cpu", torch.bfloat16):
            used(x)
        assert torch.equal(used.features(x), fresh.features(x))


def test_the_head_is_all_that_knows_how_many_classes_there_are(name) -> None:
    encoder = build(name)
    more = type(encoder)(encoder.layout, CLASSES + 2, encoder.options).state_dict()
    changed = {key for key, tensor in encoder.state_dict().items() if tensor.shape != more[key].shape}
    assert changed and all(encoder.in_head(key) for key in changed)


def test_it_trains_in_bfloat16(name) -> None:
    encoder = build(name, "jhmdb_15").train()
    x = clips(encoder)
    expected = encoder.eval()(x).detach()
    with torch.autocast("cpu", torch.bfloat16):
        found = encoder(x)
        encoder.train()(x).float().square().sum().backward()
    assert float((found.detach() - expected).abs().max()) < 0.1 * float(expected.abs().max())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in encoder.parameters())
