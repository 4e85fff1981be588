"""Building encoders from plain data, the graph they start from, and what they refuse."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import pytest
import torch

from mmcl.common.errors import UserError
from mmcl.common.options import fill
from mmcl.encoders.base import Encoder
from mmcl.encoders.building import build_encoder, encoder_name, encoder_options, options_dict, parse_options
from mmcl.encoders.ctrgcn.network import CTRGCN, CTRGCNOptions
from mmcl.encoders.graph import spatial_graph
from mmcl.skeletons.layout import Layout, load_layout

# b is the root; a and c hang on it, d on c.
LAYOUT = Layout.from_dict({"name": "four", "joints": list("abcd"), "parents": {"a": "b", "c": "b", "d": "c"}})


def test_graph_of_a_small_tree_by_hand():
    identity, inward, outward = spatial_graph(LAYOUT)
    assert torch.equal(identity, torch.eye(4))
    # Row j, column i: joint j collects from joint i. Each child has one parent, so columns are already normal.
    assert inward.tolist() == [[0, 0, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]]
    # b passes to its two children, half each; c to d.
    assert outward.tolist() == [[0, 0.5, 0, 0], [0, 0, 0, 0], [0, 0.5, 0, 0], [0, 0, 1, 0]]


def test_graph_columns_of_every_sensor_sum_to_one_or_nothing():
    for name in ("kinect_v2_25", "kinect_v1_20", "utd_mhad_20", "coco_17"):
        graph = spatial_graph(load_layout(name))
        sums = graph.sum(dim=1)
        assert ((sums - 1).abs().lt(1e-6) | sums.eq(0)).all()
        assert graph[1].count_nonzero() == graph[2].count_nonzero() == graph.shape[-1] - 1
        assert torch.equal(graph[1] > 0, graph[2].T > 0)


def test_a_bundle_s_json_builds_the_same_encoder():
    options = CTRGCNOptions(width=16, depth=4, persons=1, dropout=0.5, adaptive=False)
    encoder = build_encoder("ctrgcn", LAYOUT, 5, options)
    again = build_encoder("ctrgcn", LAYOUT, 5, json.loads(json.dumps(options_dict(encoder))))
    assert again.options == options and isinstance(again, CTRGCN) and encoder_name(again) == "ctrgcn"
    again.load_state_dict(encoder.state_dict())
    assert encoder.example(frames=7, clips=2).shape == (2, 1, 7, 4, 3)


def test_defaults_and_partial_options():
    assert encoder_options("ctrgcn") is CTRGCNOptions
    assert parse_options("ctrgcn", {"width": 8, "dropout": 0}) == CTRGCNOptions(width=8, dropout=0.0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"widht": 64}, "no option widht; it has width, depth"),
        ({"width": "64"}, "ctrgcn.width must be int, not '64'"),
        ({"width": True}, "ctrgcn.width must be int"),
        ({"depth": 3.0}, "ctrgcn.depth must be int"),
        ({"adaptive": 1}, "ctrgcn.adaptive must be bool"),
        ({"dropout": None}, "ctrgcn.dropout must be float"),
        ({"dropout": 10**400}, "ctrgcn.dropout is a whole number of 1329 bits"),
        ({"dropout": float("inf")}, "ctrgcn.dropout must be a finite number, not inf"),
        ({"width": 2**64}, "ctrgcn.width is a whole number of 65 bits"),
        ({"width": 12}, "multiple of 8"),
        ({"width": 0}, "multiple of 8"),
        ({"depth": 2}, "at least 3"),
        ({"persons": 0}, "persons and channels >= 1"),
        ({"dropout": 1.0}, r"\[0, 1\)"),
        (["width"], "must be keys and values"),
    ],
)
def test_wrong_options_are_named(options, words):
    with pytest.raises(UserError, match=words):
        build_encoder("ctrgcn", LAYOUT, 5, options)


def test_unknown_encoder_no_classes_and_wrong_batches_are_refused():
    with pytest.raises(UserError, match="unknown encoder 'stgcn'"):
        build_encoder("stgcn", LAYOUT, 5, {})
    with pytest.raises(UserError, match="at least one class"):
        build_encoder("ctrgcn", LAYOUT, 0, {})
    encoder = build_encoder("ctrgcn", LAYOUT, 5, {"width": 8, "depth": 3})
    for shape in ((1, 3, 8, 4, 2), (1, 2, 8, 5, 3), (2, 8, 4, 3)):
        with pytest.raises(UserError, match="2 persons, frames, 4 joints of four, 3 channels"):
            encoder(torch.zeros(shape))


def test_an_encoder_without_a_form_of_its_own_for_use_is_copied():
    encoder = build_encoder("ctrgcn", LAYOUT, 5, {"width": 8, "depth": 3, "dropout": 0.5})
    x = torch.randn(2, 2, 8, 4, 3)
    lean = Encoder.lean(encoder)
    assert encoder.training and not lean.training
    assert not any(parameter.requires_grad for parameter in lean.parameters())
    assert torch.equal(lean(x), encoder.eval()(x)) and all(
        parameter.requires_grad for parameter in encoder.parameters()
    )


@dataclass(frozen=True)
class Inner:
    ranks: tuple[int, ...] = (4,)


@dataclass(frozen=True)
class Rich:
    """Every kind of option that an encoder may come to have."""

    kind: Literal["a", "b"] = "a"
    parts: list[list[int]] = field(default_factory=list)
    rank: int | None = None
    pair: tuple[int, float] = (1, 2.0)
    by_name: dict[str, float] = field(default_factory=dict)
    inner: Inner = field(default_factory=Inner)
    free: Any = None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("kind", "b"), ("parts", [[1, 2], []]), ("rank", 3), ("rank", None), ("pair", (3, 0.5)),
        ("by_name", {"a": 1.5}), ("inner", Inner((1, 2, 3))), ("free", [1, "x", None]),
    ],
)  # fmt: skip
def test_options_of_any_kind_survive_a_bundle_s_json(name, value) -> None:
    options = Rich(**{name: value})
    assert fill("rich", json.loads(json.dumps(asdict(options))), Rich) == options


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"kind": "c"}, "rich.kind must be .*'a', 'b'.*, not 'c'"),
        ({"parts": [[1, "2"]]}, "rich.parts must be int, not '2'"),
        ({"rank": 1.5}, r"rich.rank must be int \| None, not 1.5"),
        ({"rank": True}, "rich.rank must be"),
        ({"pair": [1]}, "rich.pair must be"),
        ({"inner": {"rank": 1}}, "rich.inner' has no option rank; it has ranks"),
        ({"inner": {"ranks": [0.5]}}, "rich.inner.ranks must be int"),
    ],
)
def test_options_of_the_wrong_kind_are_named(options, complaint) -> None:
    with pytest.raises(UserError, match=complaint):
        fill("rich", options, Rich)
