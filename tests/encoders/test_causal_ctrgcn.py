"""A causal CTR-GCN goes step by step, and says what the whole clip up to there would get; it knows no future."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mmcl.benchmarks.streams import stream_cost
from mmcl.common.errors import UserError
from mmcl.deploy.stepping import products_of_steps
from mmcl.encoders.base import continual_form
from mmcl.encoders.building import build_encoder
from mmcl.encoders.counting import count_macs
from mmcl.encoders.ctrgcn.causal import CausalSpatial, CausalTemporal
from mmcl.encoders.ctrgcn.network import CTRGCN, CTRGCNOptions
from mmcl.encoders.graph import spatial_graph
from mmcl.skeletons.layout import load_layout

KINECT = load_layout("kinect_v1_20")
FRAMES = 61


@pytest.fixture(scope="module")
def encoder() -> CTRGCN:
    """In double precision, with lived-in statistics, topologies that depend on what is seen, and a short memory."""
    torch.manual_seed(0)
    options = {"width": 8, "depth": 5, "persons": 2, "causal": True, "memory": 32}
    encoder = build_encoder("ctrgcn", KINECT, 5, options).double()
    assert isinstance(encoder, CTRGCN)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    encoder.train()
    for _ in range(2):
        encoder(torch.randn(4, 2, 32, 20, 3, dtype=torch.float64))
    return encoder.eval()


def clip() -> Tensor:
    """Two people: the second comes late and leaves early, the first is away for a while."""
    x = torch.randn(1, 2, FRAMES, 20, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    x[0, 1, :21] = x[0, 1, 50:] = x[0, 0, 40:47] = 0.0
    return x


@torch.no_grad()
def test_every_step_is_the_network_on_the_whole_prefix(encoder) -> None:
    network, x = continual_form(encoder), clip()
    assert network is not None
    state = network.begin(2)
    for number in range(FRAMES // 4):
        frames = slice(4 * number, 4 * number + 4)
        found, state = network(x[0, :, frames], torch.tensor([number]), state)
        for waiting in range(4):  # frames that fill no step change nothing yet
            prefix = x[:, :, : min(frames.stop + waiting, FRAMES)]
            torch.testing.assert_close(found, encoder.features(prefix)[0], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(network.head(found), encoder(x)[0], rtol=1e-10, atol=1e-10)


@torch.no_grad()
def test_empty_frames_behind_a_clip_change_nothing_and_nobody_s_feature_is_zero(encoder) -> None:
    x = clip()[:, :, :40]
    longer = torch.cat([x, torch.zeros(1, 2, 40, 20, 3, dtype=torch.float64)], dim=2)
    torch.testing.assert_close(encoder.features(longer), encoder.features(x), rtol=1e-10, atol=1e-10)
    alone = x.clone()
    alone[:, 1] = 0.0
    bodies = encoder.each_body(encoder.trunk, alone)
    assert encoder.features(torch.zeros_like(x)).abs().max() == 0.0 and bodies[0, 1, -2].abs().max() == 0.0


@pytest.mark.parametrize("rate", [1, 2, 4])
def test_topologies_are_refined_by_the_mean_of_the_frames_before(rate) -> None:
    unit = CausalSpatial(8, 8, 4, spatial_graph(KINECT), True).double()
    unit.look_back(rate, memory=32)
    hold, step, memory, T = 16 // rate, 4 // rate, 32 // rate, 84 // rate
    x, seen = torch.randn(2, 8, 20, T, dtype=torch.float64), (torch.rand(2, 1, 1, T) < 0.7).double()
    found = unit.means(x, seen)
    for held in range(-(-T // hold)):
        last = held * hold + step
        for body in range(2):
            there = [t for t in range(max(0, last - memory), last) if seen[body, 0, 0, t]]
            expected = x[body, ..., there].mean(dim=2) if there else torch.zeros(8, 20, dtype=torch.float64)
            torch.testing.assert_close(found[body, ..., held], expected)
    y = unit.eval()(x, seen)
    for t in (0, hold - 1, hold, T - 1):  # one frame by way of the topology that is held then
        topology = unit.refined(found[..., t // hold])  # (B, 3, C, V, V), [v, u]: what u collects from v
        values = unit.value(x[..., t : t + 1])[..., 0].unflatten(1, (8, 3))
        mixed = unit.bn(torch.einsum("bscvu,bcsv->bcu", topology, values).unsqueeze(3))
        torch.testing.assert_close(y[..., t], torch.relu(mixed[..., 0] + x[..., t]))


@pytest.mark.parametrize("stride", [1, 2])
@torch.no_grad()
def test_temporal_branches_end_at_the_frame_they_answer_for(stride) -> None:
    unit = CausalTemporal(16, stride).double().eval()
    x, seen = torch.randn(2, 16, 20, 12, dtype=torch.float64), torch.ones(2, 1, 1, 12, dtype=torch.float64)
    seen[0, ..., 3:6] = 0.0
    y = unit(x, seen)
    inner = torch.relu(unit.inner_bn(unit.reduce(x)[:, :12])) * seen
    for answer in range(12 // stride):
        t = answer * stride + stride - 1

        def before(branch: int, ago: int, t: int = t) -> Tensor:
            part = inner[:, 4 * branch : 4 * branch + 4]
            return part[..., t - ago] if t >= ago else torch.zeros_like(part[..., 0])

        near, far = (
            conv.bias[:, None] + sum(
                torch.einsum("oc,bcv->bov", conv.weight[:, :, 0, k], before(branch, (4 - k) * apart)) for k in range(5)
            )
            for branch, (conv, apart) in enumerate([(unit.near, 1), (unit.far, 2)])
        )  # fmt: skip
        peak = torch.stack([before(2, ago) for ago in range(3)]).amax(dim=0)
        point = unit.reduce(x)[:, 12:, :, t]
        expected = unit.outer_bn(torch.cat([near, far, peak, point], dim=1).unsqueeze(3))[..., 0]
        torch.testing.assert_close(y[..., answer], expected)


@pytest.mark.parametrize(("layout", "depth"), [("kinect_v2_25", 10), ("kinect_v1_20", 4)])
def test_a_frame_costs_less_than_three_percent_of_a_window_of_the_published_network(layout, depth) -> None:
    options = {"width": 16, "depth": depth, "persons": 1}
    window = count_macs(build_encoder("ctrgcn", load_layout(layout), 27, options), 64)
    causal = build_encoder("ctrgcn", load_layout(layout), 27, {**options, "causal": True})
    network = causal.continual()
    assert network is not None
    steps = products_of_steps(network, torch.ones_like(causal.example(4))[0], 64)
    if depth == 4:  # as the table of `mmcl bench deploy` has it
        shown = stream_cost(CTRGCN(load_layout(layout), 27, CTRGCNOptions(width=16, depth=depth, persons=1)), 64)
        assert shown["frame"] == sum(steps) / 64 and shown["share"] == shown["frame"] / window
    assert len(steps) == 16 and steps[0] == steps[4] > steps[1] == steps[2] == steps[3]  # refined every 16 frames
    assert 1 / 64 < sum(steps) / 64 / window < 0.02
    assert max(steps) / 4 / window < 0.032  # a frame of the dearest step
    assert sum(steps) == pytest.approx(count_macs(causal, 64), rel=0.02)  # nothing is computed twice


def test_what_cannot_be_is_refused_and_others_have_no_such_form() -> None:
    for memory in (0, 24):
        with pytest.raises(UserError, match="multiple of 16"):
            build_encoder("ctrgcn", KINECT, 5, {"width": 8, "depth": 3, "memory": memory})
    causal = build_encoder("ctrgcn", KINECT, 5, {"width": 8, "depth": 3, "persons": 1, "causal": True})
    with pytest.raises(UserError, match="answers every 4 frames, and these clips have 3"):
        causal(torch.randn(1, 1, 3, 20, 3))
    plain = build_encoder("ctrgcn", KINECT, 5, {"width": 8, "depth": 3, "persons": 1})
    assert plain.continual() is None and plain.state_dict().keys() == causal.state_dict().keys()
    causal.altered = True
    assert continual_form(causal) is None
