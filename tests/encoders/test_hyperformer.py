"""Hyperformer: its skeleton's graph by hand, the function and gradients of the plain form, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from plain_network import randomise

from mmcl.benchmarks.plain.form import published_network
from mmcl.benchmarks.plain.hyperformer import plain_form
from mmcl.common.errors import UserError
from mmcl.encoders.building import build_encoder
from mmcl.encoders.counting import count_parameters
from mmcl.encoders.hyperformer import Hyperformer, HyperformerOptions
from mmcl.encoders.hyperformer.hypergraph import hop_distances, joint_labels
from mmcl.encoders.hyperformer.official import convert
from mmcl.skeletons.layout import Layout, layout_names, load_layout

# b is the root, a and c hang on it, d on c, e on d; e is in no part, and c in two.
BODY = Layout.from_dict(
    {"name": "five", "joints": list("abcde"), "parents": {"a": "b", "c": "b", "d": "c", "e": "d"},
     "parts": {"arm": ["d", "c"], "trunk": ["a", "b", "c"]}}
)  # fmt: skip
SMALL = {"heads": 3, "head_width": 4, "groups": 6, "depth": 4}


def build(layout=BODY, classes=4, seed=0, **options):
    """An encoder with random numbers everywhere, in double precision and evaluation."""
    encoder = Hyperformer(layout, classes, HyperformerOptions(**SMALL | options)).double()
    network, convert_state = plain_form(encoder)
    encoder.load_state_dict(convert_state(randomise(network.double(), seed).state_dict()))
    return encoder.eval()


def clips(encoder, count, frames, *absent):
    """Random clips; ``absent`` names (clip, person) of bodies that are not there."""
    x = torch.randn(encoder.example(frames, count).shape, dtype=torch.float64,
                    generator=torch.Generator().manual_seed(1))  # fmt: skip
    for place in absent:
        x[place] = 0.0
    return x


def test_distances_and_parts_of_a_small_skeleton_by_hand():
    assert hop_distances(BODY).tolist() == [
        [0, 1, 2, 3, 4], [1, 0, 1, 2, 3], [2, 1, 0, 1, 2], [3, 2, 1, 0, 1], [4, 3, 2, 1, 0],
    ]  # fmt: skip
    labels = joint_labels(BODY)
    assert labels == (1, 1, 0, 0, 2)
    attention = Hyperformer(BODY, 3, HyperformerOptions(**SMALL)).units[0].attention
    assert attention.means().tolist() == [[0, 0, 0.5, 0.5, 0], [0.5, 0.5, 0, 0, 0], [0, 0, 0, 0, 1]]
    assert joint_labels(BODY, (0, 0, 1, 1, 0)) == (0, 0, 1, 1, 0)


def test_every_layout_has_distances_and_hyperedges():
    for name in layout_names():
        layout = load_layout(name)
        hops, labels = hop_distances(layout), joint_labels(layout)
        assert (hops == hops.T).all() and (hops.diagonal() == 0).all() and hops.max() < layout.joint_count
        assert len(labels) == layout.joint_count and set(labels) == set(range(max(labels) + 1))


def test_released_hyperedges_go_by_name():
    ntu, ucla, utd = (load_layout(name) for name in ("kinect_v2_25", "kinect_v1_20", "utd_mhad_20"))
    assert sorted(map(joint_labels(ntu, released=True).count, range(5))) == [1, 3, 6, 7, 8]
    by_name = [dict(zip(layout.joints, joint_labels(layout, released=True), strict=True)) for layout in (ucla, utd)]
    assert by_name[0] == by_name[1] and by_name[0]["right_foot"] == 2 and by_name[0]["head"] == 0


def test_published_parameter_counts():
    for layout, classes, persons, count in (
        ("kinect_v2_25", 60, 2, 2_729_194), ("kinect_v2_25", 120, 2, 2_742_214), ("kinect_v1_20", 10, 1, 2_695_754),
    ):  # fmt: skip
        with torch.device("meta"):
            encoder = build_encoder("hyperformer", load_layout(layout), classes, {"persons": persons})
        assert count_parameters(encoder) == count


@pytest.mark.parametrize("training", [False, True])
def test_equals_the_plain_form_with_gradients_and_statistics(training):
    encoder = build(empty_bodies="each").train(training)
    published = published_network(encoder)
    x = clips(encoder, 3, 9, (1, 1), (2, 0))
    expected, found = published(x), encoder(x)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    cotangent = torch.randn(expected.shape, dtype=torch.float64)
    for scores in (expected, found):
        (scores * cotangent).sum().backward()
    network = published.network
    gradients = convert({name: torch.zeros_like(tensor) if not isinstance(tensor, torch.nn.Parameter) else tensor.grad
                         for name, tensor in network.state_dict(keep_vars=True).items()}).state  # fmt: skip
    ours = encoder.state_dict()
    for name, parameter in encoder.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-7, atol=1e-9, msg=name)
    for name, tensor in convert(network.state_dict()).state.items():
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(ours[name], tensor, rtol=1e-9, atol=1e-9, msg=name)


@pytest.mark.parametrize("frames", [12, 7, 40])
@pytest.mark.parametrize("absent", [(), ((0, 1), (2, 0)), ((0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1))])
def test_lean_form_equals_the_plain_form_whoever_is_there(frames, absent):
    encoder = build(persons=2)
    for unit in encoder.units:
        unit.temporal.outer_bn.weight.data.mul_(-1)  # scales behind a maximum may be negative
    x, lean = clips(encoder, 3, frames, *absent), encoder.lean(12)
    with torch.no_grad():
        torch.testing.assert_close(lean(x), published_network(encoder)(x), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(lean.head(lean.features(x)), lean(x))


def test_empty_bodies_once_are_the_others_in_evaluation():
    encoder, each = build(), build(empty_bodies="each")
    x = clips(encoder, 4, 8, (0, 1), (1, 1), (2, 0))
    torch.testing.assert_close(encoder(x), each(x), rtol=1e-9, atol=1e-9)


def test_outputs_are_tokens_and_their_means():
    encoder = build()
    x = clips(encoder, 2, 9, (1, 1))
    found = encoder.outputs(x)
    assert found["tokens"].shape == (2, 2, 3, 5, encoder.feature_width)  # 9 frames, halved twice
    torch.testing.assert_close(found["tokens"].mean(dim=(1, 2, 3)), encoder.features(x))
    torch.testing.assert_close(found["features"], encoder.features(x))
    torch.testing.assert_close(found["scores"], encoder(x))


def test_a_fresh_network_passes_joints_on():
    attention = Hyperformer(BODY, 3, HyperformerOptions(**SMALL)).units[1].attention
    x = torch.randn(2, 12, 5, 4)
    frames = attention.norm(x.permute(0, 2, 3, 1))
    value = attention.key_value(frames)[..., 12:].permute(0, 3, 1, 2)
    torch.testing.assert_close(attention(x), x + attention.mix(value))


def test_every_parameter_is_at_one_depth_but_the_head():
    encoder = build()
    placed = [id(p) for level in encoder.depth() for part in level for p in part.parameters()]
    expected = {id(p) for name, p in encoder.named_parameters() if not encoder.in_head(name)}
    assert len(placed) == len(set(placed)) and set(placed) == expected


def test_one_graph_with_free_batch_and_frames_and_training_compiles():
    encoder = build(depth=3).float()
    x = clips(encoder, 3, 12).float()
    axes = {0: torch.export.Dim("clips", min=1, max=64), 2: torch.export.Dim("frames", min=8, max=512)}
    other = clips(encoder, 5, 17).float()
    program = torch.export.export(encoder.lean(12), (x,), dynamic_shapes=(axes,), strict=True)
    torch.testing.assert_close(program.module()(other), encoder(other), rtol=1e-4, atol=1e-5)
    encoder = build(empty_bodies="each", depth=3).float().train()
    expected = encoder(x)
    compiled = torch.compile(encoder, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), expected)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"heads": 0}, "heads must be at least 1"),
        ({"heads": 5, "head_width": 4}, "multiple of 4 and of its groups"),
        ({"depth": 2}, "depth must be at least 3"),
        ({"hyperedges": (0, 1)}, "2 numbers for the 5 joints of five"),
        ({"hyperedges": (0, 0, 2, 2, 0)}, "without a gap"),
        ({"hyperedges": (0, -1, 0, 0, 0)}, "0 or more"),
        ({"hyperedges": (0,) * 5, "released": True}, "without 'released'"),
        ({"released": True}, "nothing was released for the 5 joints"),
        ({"dropout": 1.0}, "dropout"),
        ({"empty_bodies": "never"}, "once or each"),
        ({"width": 4}, "no option width"),
    ],
)
def test_refuses(options, words):
    with pytest.raises(UserError, match=words):
        build_encoder("hyperformer", BODY, 3, options)
