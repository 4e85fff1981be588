"""The edge-importance network: equal to its plain form, what it reads, many perturbed sets at once, what it refuses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from mmcl.benchmarks.plain.edge_gcn import PlainEdgeGCN
from mmcl.common.errors import UserError
from mmcl.encoders.edge_gcn.attention import AttentionLayer, part_of_joints
from mmcl.encoders.edge_gcn.graph import hop_graph
from mmcl.encoders.edge_gcn.inputs import smoothing_matrix
from mmcl.encoders.edge_gcn.layers import SpatialConv, SqueezeExcite
from mmcl.encoders.edge_gcn.network import EdgeGCN
from mmcl.encoders.edge_gcn.official import convert
from mmcl.encoders.edge_gcn.options import EdgeGCNOptions, main_widths
from mmcl.encoders.edge_gcn.perturb import perturb_edges, scores_with_edges
from mmcl.skeletons.layout import Layout, load_layout

BODY = Layout.from_dict(
    {
        "name": "six", "joints": list("abcdef"), "parents": {"b": "a", "c": "b", "d": "a", "e": "d", "f": "e"},
        "centre": "b", "parts": {"torso": ["a"], "left_arm": ["b", "c"], "right_arm": ["d", "e", "f"]},
    }
)  # fmt: skip
TINY = EdgeGCNOptions(width=8, main_width=16, last_width=12, input_window=3, main_window=3, dropout=0.0)
FLAVOURS = [
    {},
    {"temporal": "basic", "attention": "joint_time", "activation": "silu", "reduce": 2.0},
    {"temporal": "separable", "attention": "part", "activation": "relu6", "expand": 1.5, "main_stride": 2},
    {"temporal": "bottleneck", "attention": "channel", "activation": "hardswish", "reduce": 2.0, "main_depth": 2},
    {"temporal": "sandglass", "attention": "frame", "inputs": ("joint", "bone"), "input_depth": 1},
    {"temporal": "mobile", "smooth": False, "input_distance": 3, "persons": 1},
    {"temporal": "mobile", "released": True, "main_depth": 2, "main_stride": 2, "input_blocks": 0, "main_blocks": 1},
]


def tiny(**options):
    """An encoder in evaluation in which every number matters."""
    torch.manual_seed(0)
    encoder = EdgeGCN(BODY, 4, replace(TINY, **options))
    for name, parameter in encoder.named_parameters():
        if parameter.dim() == 1 or name.endswith("edge"):
            parameter.data.add_(0.3 * torch.randn_like(parameter))
    for name, buffer in encoder.named_buffers():
        if "running" in name:
            buffer.add_(0.2 * torch.rand_like(buffer))
    torch.nn.init.normal_(encoder.classifier.weight)
    return encoder.double().eval()


def clips(encoder, count=3, frames=9):
    return torch.randn(encoder.example(frames, count).shape, dtype=torch.float64)


@pytest.mark.parametrize("training", [False, True])
def test_equals_the_plain_form_with_gradients(training):
    encoder = tiny(main_stride=2, main_depth=2, input_blocks=2).train(training)
    x = clips(encoder)
    plain = PlainEdgeGCN(encoder).train(training)
    weight = torch.randn(3, 4, dtype=torch.float64)
    found, gradients = [], []
    before = {name: buffer.clone() for name, buffer in encoder.named_buffers()}
    for network in (encoder, plain):
        for name, buffer in encoder.named_buffers():
            buffer.copy_(before[name])
        encoder.zero_grad()
        found.append(network(x))
        (found[-1] * weight).sum().backward()
        gradients.append({name: parameter.grad.clone() for name, parameter in encoder.named_parameters()})
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-11)
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], rtol=1e-7, atol=1e-9, msg=name)


@pytest.mark.parametrize("options", FLAVOURS)
def test_contract(options):
    encoder = tiny(**options)
    x = clips(encoder)
    x[1, -1] = 0  # an absent person
    scores = encoder(x)
    outputs = encoder.outputs(x)
    assert outputs["features"].shape == (3, encoder.feature_width) and torch.equal(outputs["scores"], scores)
    lean = encoder.lean(9)
    torch.testing.assert_close(lean(x), scores, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(lean(x[:, :, :7]), encoder(x[:, :, :7]), rtol=1e-9, atol=1e-11)
    assert sum(isinstance(part, torch.nn.BatchNorm2d) for part in lean.modules()) <= sum(
        isinstance(part, torch.nn.BatchNorm2d)
        for name, part in encoder.named_modules() if ".att.fcn." in name or ".gate." in name
    )  # fmt: skip
    levels = [parameter for level in encoder.depth() for part in level for parameter in part.parameters()]
    rest = [parameter for name, parameter in encoder.named_parameters() if not encoder.in_head(name)]
    assert len(levels) == len(rest) and {id(p) for p in levels} == {id(p) for p in rest}
    x.requires_grad_()
    encoder.train()(x).square().sum().backward()
    assert x.grad.isfinite().all() and all(parameter.grad is not None for parameter in rest)


def test_one_graph():
    torch._dynamo.reset()
    encoder = tiny(inputs=("joint", "acceleration"), main_blocks=1)
    x = clips(encoder)
    compiled = torch.compile(encoder.lean(9), fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), encoder(x), rtol=1e-9, atol=1e-11)


def test_graph_by_hops():
    # c - b - a - d - e - f is a chain: 4 joints are within 3 hops of its ends, 6 of a and d.
    graph = hop_graph(BODY, 3)
    assert graph.sum(dim=(0, 1)).allclose(torch.ones(6))
    assert graph[0].diagonal().tolist() == pytest.approx([1 / 6, 1 / 5, 1 / 4, 1 / 6, 1 / 5, 1 / 4])
    assert graph[1].triu().nonzero().tolist() == [[0, 1], [0, 3], [1, 2], [3, 4], [4, 5]]
    assert torch.equal(graph[1] > 0, graph[1].T > 0)
    assert torch.equal(hop_graph(BODY, 1), graph[:2])


@pytest.mark.parametrize("frames", [64, 28, 27, 5, 2, 1])
def test_smoothing_is_scipy_s(frames):
    signal = pytest.importorskip("scipy.signal")
    x = np.random.default_rng(0).normal(size=(3, frames))
    reflected = min(27, frames - 1)  # scipy refuses clips that are shorter than what it reflects
    expected = signal.sosfiltfilt(signal.butter(8, 0.5, output="sos"), x, padlen=reflected)
    np.testing.assert_allclose(x @ smoothing_matrix(frames).T, expected, atol=1e-12)
    np.testing.assert_allclose(smoothing_matrix(frames).sum(axis=1), 1, atol=1e-12)  # what stands still, stands still


def test_inputs_by_hand():
    encoder = tiny(inputs=("joint", "velocity", "bone", "acceleration"), smooth=False, persons=1)
    x = clips(encoder, 1, 6)[0, 0]  # (T, V, C)
    found = [one[0].permute(2, 1, 0) for one in encoder.inputs(x[None, None])]
    parents = [1, 1, 1, 0, 3, 4]  # towards b
    for t in range(6):
        for v in range(6):
            joint, velocity, bone, acceleration = (one[t, v] for one in found)
            assert torch.equal(joint, torch.cat([x[t, v], x[t, v] - x[t, 1]]))
            vector = x[t, v] - x[t, parents[v]]
            angles = torch.arccos(vector / (vector.norm() + 1e-4))
            torch.testing.assert_close(bone, torch.cat([vector, angles]))
            ahead = torch.cat([x[t + 1, v] - x[t, v], (x[t + 2, v] - x[t, v]) / 2]) if t < 4 else torch.zeros(6)
            torch.testing.assert_close(velocity, ahead.double())
            speed = found[1][:, v]
            ahead = torch.cat([speed[t + 1, :3] - speed[t, :3], (speed[t + 2, 3:] - speed[t, 3:]) / 2]) if t < 4 else 0
            torch.testing.assert_close(acceleration, ahead + torch.zeros(6, dtype=torch.float64))


def test_attention_weighs():
    x = torch.randn(2, 8, 6, 5)
    kinds = {kind: AttentionLayer(kind, 8, BODY, 1.0, "relu").eval().att(x) for kind in ("joint", "part", "channel")}
    torch.testing.assert_close(kinds["joint"].sum(dim=2), torch.ones(2, 1, 1))
    assert part_of_joints(BODY) == [2, 0, 0, 1, 1, 1]
    torch.testing.assert_close(kinds["part"][:, :, [0, 1, 3]].sum(dim=2), torch.ones(2, 8, 1))
    assert kinds["channel"].shape == (2, 8, 1, 1)
    assert AttentionLayer("joint_time", 8, BODY, 1.0, "relu").att(x).shape == x.shape
    gate = SqueezeExcite(8, released=False).eval()
    torch.testing.assert_close(gate(x), x * gate.gate(x))


def test_a_joint_without_edges_tells_nothing():
    conv = SpatialConv(3, 4, hop_graph(BODY, 2))
    torch.nn.init.uniform_(conv.edge)
    x = torch.randn(1, 3, 6, 5, requires_grad=True)
    with torch.no_grad():
        conv.edge[:, 2] = 0  # all that joint c passes on
    conv(x).sum().backward()
    assert not x.grad[:, :, 2].any() and x.grad[:, :, [0, 1, 3, 4, 5]].abs().sum(dim=(0, 1, 3)).gt(0).all()


def test_many_sets_of_edges_equal_one_by_one():
    encoder = tiny()
    x = clips(encoder)
    x[2, 1] = 0
    choices = [[0], [1, 4], [], [5, 3, 2]]
    edges = perturb_edges(encoder.edges(), choices, "away", 0.7, hops=2)
    together = scores_with_edges(encoder, x, edges, rows=5)
    assert together.shape == (4, 3, 4)
    for number in range(len(choices)):
        changed = tiny()
        changed.load_state_dict({name: edge[number] for name, edge in edges.items()}, strict=False)
        torch.testing.assert_close(together[number], changed(x), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(together[2], encoder(x), rtol=1e-10, atol=1e-12)
    paired = scores_with_edges(encoder, x, {name: edge[:3] for name, edge in edges.items()}, paired=True)
    torch.testing.assert_close(paired, together[:3].diagonal().T)
    some = {name: edge for name, edge in edges.items() if name.startswith("main")}
    assert not torch.allclose(scores_with_edges(encoder, x, some)[0], together[0])


def test_perturbed_entries_by_hand():
    edge = torch.tensor([[[2.0, 9.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, 0.5]]] * 2)

    def diagonals(joints, *args, **more):
        return perturb_edges({"e": edge}, joints, *args, **more)["e"]

    zero = diagonals([[0], [1, 2]])
    assert zero[:, 0].diagonal(dim1=1, dim2=2).tolist() == [[0, -1, 0.5], [2, 0, 0]]
    assert torch.equal(zero[:, 1], edge[[1, 1]])
    assert torch.equal(zero[0, 0] - edge[0], torch.diag(torch.tensor([-2.0, 0.0, 0.0])))
    away = diagonals([[0, 1]], "away", 0.5)  # the range of E is 10
    assert away[0, 0].diagonal().tolist() == [7, -6, 0.5]
    assert diagonals([[0, 1]], "away", 0.5, released=True)[0, 0].diagonal().tolist() == [7, -6, 0.5]
    assert diagonals([[1, 0]], "away", 1.0, released=True)[0, 0].diagonal().tolist() == [22, -11, 0.5]  # 20 by then
    assert diagonals([[0, 1]], "towards", 1.5, relative=False, hops=2)[0, 1].diagonal().tolist() == [0.5, 0.5, 0.5]
    assert diagonals([[0, 1]], "towards", 1.5, relative=False, cross=False)[0, 0].diagonal().tolist() == [0.5, 0, 0.5]


def test_edges_that_do_not_fit():
    encoder = tiny()
    x, edges = clips(encoder), perturb_edges(encoder.edges(), [[0], [1]])
    name = next(iter(edges))
    uneven = {**edges, name: edges[name][:1]}
    for wrong, paired in (({}, False), ({"e": edges[name]}, False), (edges, True), (uneven, False)):
        with pytest.raises(UserError, match="number of sets"):
            scores_with_edges(encoder, x, wrong, paired)
    with pytest.raises(UserError, match="shapes"):
        scores_with_edges(encoder, x, {name: edges[name][:, :1]})
    with pytest.raises(UserError, match="not all among the 6"):
        perturb_edges(encoder.edges(), [[6]])
    with pytest.raises(UserError, match="not 'up'"):
        perturb_edges(encoder.edges(), [[1]], "up")
    with pytest.raises(UserError, match="at least 1 matrix"):
        perturb_edges(encoder.edges(), [[1]], hops=0)
    encoder.train()
    scores_with_edges(encoder, x, edges)
    assert encoder.training


def test_what_released_changes():
    options = EdgeGCNOptions(main_depth=3, main_stride=2)
    options = replace(options, width=8, main_width=16)
    ours, released = (EdgeGCN(BODY, 2, replace(options, released=flag)).eval() for flag in (False, True))
    assert [len(block.temporal) for block in (*ours.main, *released.main)] == [3, 3, 1, 1]
    x = clips(ours).float()
    assert ours.main(torch.zeros(1, 128, 6, 8)).shape[3] == 2 and released.main(torch.zeros(1, 128, 6, 8)).shape[3] == 8
    assert ours(x).shape == released(x).shape
    assert main_widths(EdgeGCNOptions()) == [128, 48]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"inputs": ()}, "at least one input"),
        ({"inputs": ("joint", "joint")}, "each once"),
        ({"inputs": ("speed",)}, "joint, velocity, bone, acceleration, not 'speed'"),
        ({"attention": "ja"}, "joint, joint_time"),
        ({"temporal": "conv"}, "basic, shuffle"),
        ({"activation": "tanh"}, "relu, relu6"),
        ({"input_window": 4}, "odd number"),
        ({"main_distance": 4}, "0 to 3 hops"),
        ({"reduce": 0.5}, "reduce at least 1"),
        ({"reduce": 129.0}, r"reduce is 129: .* 128 channels"),
        ({"temporal": "bottleneck", "width": 64, "reduce": 65.0}, r"reduce is 65: .* 64 channels"),
        ({"temporal": "basic", "attention": "part", "reduce": 49.0}, r"reduce is 49: .* 48 channels"),
        ({"main_blocks": 0}, "main_blocks"),
        ({"input_blocks": -1}, "input_blocks"),
        ({"main_scale": 0.0}, "main_scale"),
        ({"dropout": 1.0}, "dropout"),
    ],
)
def test_options_out_of_range(options, words):
    with pytest.raises(UserError, match=words):
        EdgeGCNOptions(**options)


def test_a_reduction_to_one_channel_is_possible():
    for more in (
        {"temporal": "sandglass", "reduce": 32.0}, {"attention": "joint_time", "reduce": 12.0}, {"reduce": 32.0},
        {"temporal": "basic", "reduce": 1000.0},
    ):  # fmt: skip
        encoder = EdgeGCN(BODY, 2, EdgeGCNOptions(**EdgeGCN.tiny | more)).eval()
        assert encoder(clips(encoder).float()).isfinite().all()


def test_other_networks_are_refused():
    with pytest.raises(UserError, match="not a tensor of a released"):
        convert({"l1.gcn1.PA": torch.zeros(3, 25, 25)})
    with pytest.raises(UserError, match="shuffle layers"):
        PlainEdgeGCN(tiny(temporal="basic"))


def test_layouts_of_sensors():
    for name in ("kinect_v2_25", "utd_mhad_20", "coco_17"):
        encoder = EdgeGCN(load_layout(name), 3, replace(TINY, persons=1, attention="part")).eval()
        assert encoder(torch.randn(encoder.example(8).shape)).isfinite().all()
