"""The fused CTR-GCN: published counts, and the same function and gradients as two independent plain formulations."""

from __future__ import annotations

import pytest
import torch
from naive_network import naive_ctrgcn
from plain_network import randomise
from torch.utils.flop_counter import FlopCounterMode

from mmcl.benchmarks.plain.ctrgcn import PlainCTRGCN
from mmcl.encoders.counting import count_macs, count_parameters
from mmcl.encoders.ctrgcn.network import CTRGCN, CTRGCNOptions, plan_units
from mmcl.encoders.ctrgcn.official import convert_official
from mmcl.skeletons.layout import Layout, load_layout

BODY = Layout.from_dict(
    {"name": "five", "joints": list("abcde"), "parents": {"b": "a", "c": "b", "d": "b", "e": "d"}, "centre": "b"}
)


def pair(*, classes=4, layout=BODY, persons=2, width=8, stages=(2, 1, 1), dtype=torch.float64, seed=0):
    """A plain network with every tensor random, and ours with the same numbers."""
    plain = PlainCTRGCN(classes, layout.joint_count, persons, width=width, stages=stages).to(dtype)
    randomise(plain, seed)
    ours = convert_official(plain.state_dict()).build(layout).to(dtype)
    ours.load_state_dict(_convert_double(plain.state_dict()))
    return plain, ours


def clip_batch(n, t, layout=BODY, persons=2, dtype=torch.float64):
    x = torch.randn(n, 3, t, layout.joint_count, persons, generator=torch.Generator().manual_seed(1), dtype=dtype)
    return x, x.permute(0, 4, 2, 3, 1).contiguous()


def test_published_parameter_counts():
    kinect = load_layout("kinect_v2_25")
    for classes, count in ((120, 1_462_092), (60, 1_446_672), (27, 1_438_191)):
        assert count_parameters(CTRGCN(kinect, classes)) == count


def test_units_of_the_published_network_and_of_shallower_ones():
    units = plan_units(CTRGCNOptions())
    assert [z for _, z, _ in units] == [64] * 4 + [128] * 3 + [256] * 3
    assert [number for number, (_, _, stride) in enumerate(units, 1) if stride == 2] == [5, 8]
    assert [z for _, z, _ in plan_units(CTRGCNOptions(width=8, depth=4))] == [8, 8, 16, 32]
    assert [stride for _, _, stride in plan_units(CTRGCNOptions(width=8, depth=3))] == [1, 2, 2]


def test_macs_of_the_plain_form_are_the_published_ones_and_ours_are_fewer():
    kinect = load_layout("kinect_v2_25")
    with FlopCounterMode(display=False) as counter:
        PlainCTRGCN(60, 25, 2).eval()(torch.zeros(1, 3, 64, 25, 2))
    plain = counter.get_total_flops() / 2
    encoder = CTRGCN(kinect, 60)
    assert round(plain / 1e9, 2) == 1.94
    assert 0.85 * plain < count_macs(encoder, frames=64) < 0.95 * plain
    assert encoder.training


@pytest.mark.parametrize("training", [False, True])
def test_equals_naive_loops_with_gradients(training):
    plain, ours = pair()
    state = {name: t.clone().requires_grad_(t.is_floating_point()) for name, t in plain.state_dict().items()}
    official, mine = clip_batch(3, 5)  # an odd number of frames: strides round up
    official.requires_grad_()
    mine.requires_grad_()
    ours.train(training)
    expected, scores = naive_ctrgcn(official, state, (1, 1, 2, 2), training), ours(mine)
    torch.testing.assert_close(scores, expected, rtol=1e-9, atol=1e-9)

    weight = torch.randn(expected.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    (expected * weight).sum().backward()
    (scores * weight).sum().backward()
    torch.testing.assert_close(mine.grad.permute(0, 4, 2, 3, 1), official.grad, rtol=1e-7, atol=1e-9)
    # Conversion only stacks and reorders, so that it maps gradients as it maps weights.
    gradients = {name: torch.zeros_like(t) if t.grad is None else t.grad for name, t in state.items()}
    converted = _convert_double(gradients)
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, converted[name], rtol=1e-7, atol=1e-9, msg=name)


def _convert_double(tensors):
    """``convert_official`` in double precision: it stores float32, so high and low halves go through it apart."""
    high = {name: t.float() for name, t in tensors.items()}
    low = {name: (t.double() - high[name].double()).float() for name, t in tensors.items()}
    a, b = convert_official(high).state, convert_official(low).state
    return {name: a[name].double() + b[name].double() for name in a}


def test_batch_norm_statistics_move_as_in_the_plain_network():
    plain, ours = pair(stages=(1, 1, 1))
    official, mine = clip_batch(3, 6)
    plain.train()(official)
    ours.train()(mine)
    expected = _convert_double(plain.state_dict())
    for name, buffer in ours.named_buffers():
        torch.testing.assert_close(buffer.double(), expected[name], rtol=1e-6, atol=1e-9, msg=name)


@pytest.mark.parametrize("training", [False, True])
def test_published_width_equals_the_plain_network(training):
    kinect = load_layout("kinect_v2_25")
    plain, ours = pair(classes=60, layout=kinect, width=64, stages=(4, 3, 3), dtype=torch.float32)
    official, mine = clip_batch(2, 12, kinect, dtype=torch.float32)
    plain.train(training)
    ours.train(training)
    with torch.no_grad():
        expected, scores = plain(official), ours(mine)
    assert (scores - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_features_then_head_is_forward_and_persons_average():
    encoder = CTRGCN(BODY, 4, CTRGCNOptions(width=8, depth=3)).eval()
    x = clip_batch(2, 6, dtype=torch.float32)[1]
    features = encoder.features(x)
    assert features.shape == (2, encoder.feature_width)
    assert torch.equal(encoder.head(features), encoder(x))
    torch.testing.assert_close(encoder.features(x.flip(1)), features)  # fresh data_bn treats persons alike


def test_fixed_adjacency_is_no_parameter():
    adaptive, fixed = (CTRGCN(BODY, 4, CTRGCNOptions(width=8, depth=3, adaptive=a)) for a in (True, False))
    assert count_parameters(adaptive) - count_parameters(fixed) == 3 * 3 * 5 * 5
    assert set(adaptive.state_dict()) == set(fixed.state_dict())


def test_dropout_acts_on_the_feature_in_training_only():
    encoder = CTRGCN(BODY, 4, CTRGCNOptions(width=8, depth=3, dropout=0.5))
    features = torch.ones(64, encoder.feature_width)
    assert not torch.equal(encoder.head(features), encoder.head(features))
    encoder.eval()
    assert torch.equal(encoder.head(features), encoder.head(features))


def test_published_initialisation():
    torch.manual_seed(0)
    encoder = CTRGCN(load_layout("kinect_v2_25"), 60)
    unit = encoder.units[5]  # 128 channels in and out, queries and keys of 16
    for tensor, fan_out in (
        (unit.spatial.relate.weight, 16),
        (unit.spatial.value.weight, 128),
        (unit.spatial.expand_weight, 128),
        (unit.temporal.reduce.weight, 32),
        (unit.temporal.far.weight, 32 * 5),
        (encoder.units[4].residual[0].weight, 128),
        (encoder.units[4].spatial.down[0].weight, 128),
        (encoder.classifier.weight, 60),
    ):
        assert tensor.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.05)
    assert unit.spatial.strength.item() == 0.0
    assert torch.equal(unit.spatial.bn.weight, torch.full((128,), 1e-6))
    assert unit.temporal.outer_bn.weight.std().item() == pytest.approx(0.02, rel=0.3)
    torch.testing.assert_close(encoder.units[0].spatial.adjacency, encoder.units[9].spatial.adjacency)


def test_one_graph_without_breaks_and_with_free_batch_and_frames():
    encoder = CTRGCN(BODY, 4, CTRGCNOptions(width=8, depth=3)).eval()
    axes = {0: torch.export.Dim("clips", min=1, max=64), 2: torch.export.Dim("frames", min=8, max=512)}
    x = clip_batch(3, 12, dtype=torch.float32)[1]
    program = torch.export.export(encoder, (x,), dynamic_shapes=(axes,), strict=True)
    other = clip_batch(5, 17, dtype=torch.float32)[1]
    torch.testing.assert_close(program.module()(other), encoder(other), rtol=1e-5, atol=1e-6)


def test_training_compiles_as_one_graph():
    encoder = CTRGCN(BODY, 4, CTRGCNOptions(width=8, depth=3, empty_bodies="each"))
    x = clip_batch(3, 8, dtype=torch.float32)[1]
    compiled = torch.compile(encoder, fullgraph=True, backend="aot_eager")
    compiled(x).sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())
