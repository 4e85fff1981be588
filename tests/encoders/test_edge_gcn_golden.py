"""The edge-importance network against the released code: graph, inputs, layers, the whole network, perturbed edges."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from golden import Case, count_parameters, golden_folder, load_arrays, load_case, load_json

from mmcl.attributions.released import joint_sets
from mmcl.encoders.edge_gcn.attention import PARTS, AttentionLayer
from mmcl.encoders.edge_gcn.graph import hop_distances, hop_graph
from mmcl.encoders.edge_gcn.inputs import InputFeatures, rooted_parents
from mmcl.encoders.edge_gcn.layers import SpatialConv, SpatialLayer, TemporalLayer
from mmcl.encoders.edge_gcn.network import EdgeGCN
from mmcl.encoders.edge_gcn.official import ATTENTIONS, INPUTS, KINDS, convert, convert_tensor, hops_of, own_place
from mmcl.encoders.edge_gcn.options import HOPS, EdgeGCNOptions
from mmcl.encoders.edge_gcn.perturb import perturb_edges, scores_with_edges
from mmcl.skeletons.layout import Layout, load_layout

SYSTEM = "shapgcn"
ACTIVATIONS = {"swish": "silu", "SiLU": "silu", "ReLU": "relu"}  # released names that are not ours


def released_layout(joints=None):
    """The layout whose links, centre and parts the arrays tell; that of NTU RGB+D for another number of joints."""
    arrays = load_arrays(SYSTEM, "graph")
    if joints not in (None, len(arrays["parents"])):
        layout = load_layout("kinect_v2_25")
        assert joints == layout.joint_count
        return layout
    V = len(arrays["parents"])
    names = [f"j{number}" for number in range(V)]
    parents = {names[child]: names[parent] for child, parent in enumerate(arrays["parents"]) if child != parent}
    centre = next(joint for joint, parent in enumerate(arrays["parents"]) if joint == parent)
    parts = {PARTS[int(key[5:])]: [names[j] for j in arrays[key]] for key in arrays if key.startswith("part/")}
    return Layout.from_dict(
        {"name": "released", "joints": names, "parents": parents, "centre": names[centre], "parts": parts}
    )


def test_graph():
    arrays, layout = load_arrays(SYSTEM, "graph"), released_layout()
    assert rooted_parents(layout) == arrays["parents"].tolist()
    (key,) = (key for key in arrays if key.startswith("hop_distance"))
    expected = torch.from_numpy(arrays[key])
    expected[~expected.isfinite()] = -1
    found = hop_distances(layout)
    assert torch.equal(torch.where(found > HOPS, -1, found), expected.int())
    np.testing.assert_allclose(hop_graph(layout, HOPS), arrays["A_distance"], atol=1e-7)
    if layout.joint_count == 25:
        kinect = load_layout("kinect_v2_25")
        assert rooted_parents(kinect) == arrays["parents"].tolist()
        assert torch.equal(hop_graph(kinect, HOPS), hop_graph(layout, HOPS))


def official(x):
    """Between (…, T, V) and (…, V, T)."""
    return x.transpose(-1, -2)


def check_angles(found, expected):
    """Angles to the axes (…) in float64 against those that were computed in float32.

    The released code rounds the cosine at about seven places, each by 6e-8 of it, and then the angle, so that cosines
    agree within 1e-6. Angles of a bone that lies along an axis do not agree so well: arccos makes of a change d of the
    cosine a change d / sin(angle) of the angle, a hundred times as much for bones of length 1 or 2. They may be as far
    off as those 1e-6 of the cosine take them, and by the last digit of an angle up to pi.
    """
    cosine, off = found.cos(), 1e-6
    torch.testing.assert_close(expected.double().cos(), cosine, rtol=0, atol=off)
    angle, low, high = cosine.arccos(), (cosine + off).clamp(max=1).arccos(), (cosine - off).clamp(min=-1).arccos()
    assert bool(((expected - found).abs() <= torch.maximum(high - angle, angle - low) + 2.0**-22).all())


def test_inputs():
    arrays = load_arrays(SYSTEM, "features")
    cases = {key.partition("/")[0] for key in arrays if "/" in key}
    assert cases
    for case in cases:
        x = torch.from_numpy(arrays[f"{case}/in"])
        own = released_layout(x.shape[2])
        inputs = InputFeatures(own, list(INPUTS.values()), "filter0" not in case, origin=1)
        assert {key.partition("/")[2] for key in arrays if key.startswith(f"{case}/")} <= {"in", *INPUTS}
        found = inputs(x.permute(3, 1, 2, 0)[None].double())
        for key, one in zip(INPUTS, found, strict=True):
            if f"{case}/{key}" in arrays:
                expected = torch.from_numpy(arrays[f"{case}/{key}"]).permute(3, 0, 2, 1)
                if key == "B":
                    half = one.shape[1] // 2
                    check_angles(one[:, half:], expected[:, half:])
                    one, expected = one[:, :half], expected[:, :half]
                torch.testing.assert_close(one.float(), expected, rtol=1e-5, atol=2e-6)


def layer(name, case, layout, act):
    """One of ours for a case of the arrays of modules."""
    shapes = {entry["name"]: entry["shape"] for entry in case.facts["tensors"]}
    channels = case.facts["inputs"][0][1]
    if name.startswith("Spatial"):
        prefix = "" if name == "SpatialGraphConv" else "conv."
        hops = shapes[f"{prefix}edge"][0]
        args = channels, shapes[f"{prefix}gcn.weight"][0] // hops, hop_graph(layout, hops - 1)
        return SpatialConv(*args) if not prefix else SpatialLayer(*args, act)
    kind = name.split("_")[1]

    def ratio(key):  # of channels around to inside; half a channel keeps it clear of where rounding would turn
        return channels / (shapes[key][0] + 0.5) if key else 1.0

    if name.startswith("Attention"):
        inner = {"stja": "att.fcn.0.weight", "pa": "att.fcn.1.weight"}.get(kind)
        return AttentionLayer(ATTENTIONS[kind], channels, layout, ratio(inner), act)
    window = max(shape[2] for shape in shapes.values() if len(shape) == 4)
    inner = {"Shuffle": "point_conv.0.weight", "Bottleneck": "reduct_conv.0.weight", "SG": "point_conv1.0.weight"}
    expand = 1 / ratio("expand_conv.0.weight") if kind in ("Sep", "V3") else 1.0
    return TemporalLayer(KINDS[kind], channels, window, int(name[-1]), act, expand, ratio(inner.get(kind)), True)


def own_state(state, temporal):
    pairs = (convert_tensor(name, tensor, temporal, hops_of(state, name)) for name, tensor in state.items())
    return dict(pair for pair in pairs if pair)


def test_layers():
    facts = load_json(SYSTEM, "modules")
    for name in facts["cases"]:
        if name == "Classifier":  # see test_classifier
            continue
        case = load_case(SYSTEM, "modules", name)
        case = replace(case, facts=facts["cases"][name])
        layout, act = released_layout(case.arrays["in0"].shape[-1]), ACTIVATIONS.get(facts["act"], facts["act"])
        module, temporal = layer(name, case, layout, act), name.startswith("Temporal")
        state = own_state(case.weights(), temporal)
        for key, adjacency in module.named_buffers():
            if "adjacency" in key:
                state.setdefault(key, adjacency)
        module.load_state_dict(state)
        x = official(case.tensor("in0"))
        module.eval()
        case.check(module(x), official(case.tensor("eval")), "eval")
        for stage, expected in case.group("stage").items():
            found = module.get_submodule(stage)(x)
            case.check(found.expand(official(expected).shape), official(expected), stage)
        if "train" not in case.arrays:
            continue
        x.requires_grad_()
        y = module.train()(x)
        expected = case.tensor("train")
        case.check(y, official(expected), "train")
        (official(y) * case.cotangent(expected.shape)).sum().backward()
        parameters, buffers = dict(module.named_parameters()), dict(module.named_buffers())
        for key, expected in own_state(case.group("after"), temporal).items():
            case.check(buffers[key].to(expected.dtype), expected, key)
        for key, expected in own_state(case.group("grad"), temporal).items():
            if key in parameters:
                case.check(parameters[key].grad, expected, key, relative=1e-4)
            elif "in" in key:
                case.check(official(x.grad), case.tensor(f"grad/{key}"), key)


def student(facts, shape, **more):
    """The encoder of a network's facts, for inputs of a shape (N, I, C, T, V, M)."""
    arch = facts["arch"]
    _, _, C, _, V, M = shape
    options = EdgeGCNOptions(
        activation=ACTIVATIONS.get(arch["act"], arch["act"]), attention=ATTENTIONS[arch["att_lay"]],
        temporal=KINDS[arch["conv_lay"]], width=arch["init_lay"], expand=float(arch["expand_ratio"]),
        reduce=float(arch["reduct_ratio"]), input_blocks=arch["blocks_in"], input_depth=arch["depth_in"],
        input_stride=arch["stride_in"], input_scale=float(arch["scale_in"]), input_window=arch["temp_win_in"],
        input_distance=arch["graph_dist_in"], main_blocks=arch["blocks_main"], main_depth=arch["depth_main"],
        main_stride=arch["stride_main"], main_scale=float(arch["scale_main"]), main_window=arch["temp_win_main"],
        main_distance=arch["graph_dist_main"], persons=M, channels=C // 2, released=True, **more,
    )  # fmt: skip
    return EdgeGCN(released_layout(V), facts["num_class"], options).eval()


def loaded(encoder, state):
    """The encoder with released weights; its adjacency, which the arrays may leave out, is its own."""
    found = convert(state)
    for name, buffer in encoder.named_buffers():
        if name.endswith("adjacency"):
            found.setdefault(name, buffer)
    encoder.load_state_dict(found)
    return encoder


def branches(x):
    """Released inputs (N, I, C, T, V, M) as ours."""
    return [one.permute(0, 4, 1, 3, 2).flatten(0, 1) for one in x.unbind(1)]


def score(encoder, inputs):
    """What the encoder makes of ready inputs."""
    persons = encoder.options.persons
    return encoder.head(encoder.trunk(inputs).unflatten(0, (-1, persons)).mean(dim=1))


def test_classifier():
    """Behind nothing but the mean over frames, joints and persons."""
    case = load_case(SYSTEM, "modules", "Classifier")
    case = replace(case, facts=load_json(SYSTEM, "modules")["cases"]["Classifier"])
    x, expected = case.tensor("in0"), case.tensor("eval")
    _, width, _, V, persons = x.shape
    options = EdgeGCNOptions(**EdgeGCN.tiny | {"last_width": width, "persons": persons, "inputs": ["joint"]})
    encoder = EdgeGCN(released_layout(V), expected.shape[1], options).eval()
    encoder.branches, encoder.main = torch.nn.ModuleList([torch.nn.Identity()]), torch.nn.Identity()
    encoder.load_state_dict(convert({f"classifier.{name}": tensor for name, tensor in case.weights().items()}))
    case.check(score(encoder, [x.permute(0, 4, 1, 3, 2).flatten(0, 1)]), expected.flatten(1))


@pytest.mark.parametrize("name", ["network", "full"])
def test_network_stage_by_stage(name):
    if not (golden_folder(SYSTEM) / f"{name}.npz").exists():
        pytest.skip(f"MMCL_TEST_GOLDEN has no arrays of shapgcn/{name}")
    case = load_case(SYSTEM, name)
    encoder, seen = loaded(student(case.facts, case.arrays["in"].shape), case.weights()), {}
    assert count_parameters(encoder) + fixed(encoder) == case.facts["counts"]["total"]
    stages, means = case.group("stage"), case.group("mean_over_TV")
    assert stages or name == "full"
    for stage in stages | means:
        whole = stage.startswith("input_stream") and stage.count(".") == 1
        path = stage.replace("input_stream", "branches") if whole else own_place(f"{stage}.")[0].removesuffix(".")
        encoder.get_submodule(path).register_forward_hook(
            lambda _, __, output, stage=stage: seen.update({stage: output.detach().clone()})
        )
    x = branches(case.tensor("in"))
    case.check(score(encoder, x), case.tensor("logits"), "logits")
    assert set(seen) == set(stages | means)
    for stage, expected in stages.items():
        case.check(seen[stage], official(expected), stage)
    for stage, expected in means.items():
        case.check(seen[stage].mean(dim=(2, 3)), expected, f"mean of {stage}")
    lean = encoder.lean()
    case.check(lean.head(lean.trunk(x).unflatten(0, (-1, lean.persons)).mean(dim=1)), case.tensor("logits"), "lean")


def perturbed(edges, joints, config):
    """Edges of ours under released settings."""
    method = "zero" if config["zero_out"] else "towards" if config["change_towards_zero"] else "away"
    return perturb_edges(
        edges, joints, method, config["thresh"], config["percent"], config["switch_sign"], config["dimension"], True
    )


def test_perturbed_tensors():
    arrays = load_arrays(SYSTEM, "perturber")
    for case in load_json(SYSTEM, "perturber"):
        before = f"{case['case']}/before/"
        edges = {key.removeprefix(before): torch.from_numpy(arrays[key]) for key in arrays if key.startswith(before)}
        edges = {name: tensor for name, tensor in edges.items() if name.endswith(".edge")}
        found = perturbed(edges, [case["joints_in_order"]], case["config"])
        for name, tensor in found.items():
            assert torch.equal(tensor[0], torch.from_numpy(arrays[f"{case['case']}/after/{name}"])), name


class Ready(torch.nn.Module):
    """Stands for what makes inputs of joints: bodies are numbers, from 1, and their inputs are at hand."""

    def __init__(self, inputs):
        super().__init__()
        self.inputs = inputs

    def forward(self, x):
        return [one[x[:, 0, 0, 0, 0].long() - 1] for one in self.inputs]


def numbered(encoder, x):
    """Makes the encoder read released inputs, and gives the clips that stand for them."""
    encoder.inputs = Ready(branches(x))
    clips = encoder.example(2, len(x))
    return clips + torch.arange(1.0, 1 + len(x) * clips.shape[1]).view(*clips.shape[:2], 1, 1, 1)


def test_perturbed_network():
    case = load_case(SYSTEM, "network")
    encoder = loaded(student(case.facts, case.arrays["in"].shape), case.weights())
    assert case.facts["perturbations"]
    x = numbered(encoder, case.tensor("in"))
    official_name = dict(zip(encoder.edges(), case.facts["edge_tensors"], strict=True))
    for facts in case.facts["perturbations"]:
        edges = perturbed(encoder.edges(), [facts["joints_in_order"]] * 2, facts["config"])
        for name, tensor in edges.items():
            expected = case.tensor(f"perturb/{facts['case']}/diag/{official_name[name]}")
            assert torch.equal(tensor[1].diagonal(dim1=1, dim2=2), expected)
        scores = scores_with_edges(encoder, x, edges)
        for one in scores:
            case.check(one, case.tensor(f"perturb/{facts['case']}/logits"), facts["case"])


def test_informed_perturbation_of_each_clip():
    arrays, facts = load_arrays(SYSTEM, "predict_perturbed"), load_json(SYSTEM, "network")
    case = Case("informed", {**facts, "weight_seed": int(arrays["weight_seed"])}, arrays)
    encoder = loaded(student(case.facts, arrays["in"].shape), case.weights())
    x = numbered(encoder, case.tensor("in"))
    case.check(encoder(x), case.tensor("logits_unperturbed"))
    importance = arrays["joint_score"]
    settings = {"dimension": 1, "percent": True, "change_towards_zero": False, "switch_sign": True, "thresh": 0.5}
    keys = [key for key in arrays if key.endswith("logits_important")]
    assert keys
    for key in keys:
        k, method = key.partition("/")[0].split("_", 1)
        config, count = {**settings, "zero_out": method == "zero_out"}, int(k[1:])
        for name in ("important", "unimportant"):
            joints = joint_sets(torch.from_numpy(importance), count, name == "important")
            scores = scores_with_edges(encoder, x, perturbed(encoder.edges(), joints, config), paired=True)
            case.check(scores, case.tensor(key.replace("important", name)), f"{key} {name}")


def fixed(module):
    """Numbers of the adjacency, which the release counts."""
    return sum(buffer.numel() for name, buffer in module.named_buffers() if name.endswith("adjacency"))


def test_published_parameters():
    """Of every student for NTU RGB+D; its classes are what its classifier tells."""
    students = {name: counts for name, counts in load_json(SYSTEM, "counts").items() if name.startswith("ntu_student")}
    assert students
    layout = load_layout("kinect_v2_25")
    for expected in students.values():
        with torch.device("meta"):
            classes = expected["classifier"] // (EdgeGCN(layout, 1).classifier.in_features + 1)
            encoder = EdgeGCN(layout, classes)
        assert count_parameters(encoder.classifier) == expected["classifier"]
        assert count_parameters(encoder) == expected["trainable"]
        assert count_parameters(encoder) + fixed(encoder) == expected["total"]
        assert count_parameters(encoder.branches) + fixed(encoder.branches) == expected["input_stream"]
        assert count_parameters(encoder.main) + fixed(encoder.main) == expected["main_stream"]
        for number, branch in enumerate(encoder.branches):
            assert count_parameters(branch) + fixed(branch) == expected[f"input_stream.{number}"]
