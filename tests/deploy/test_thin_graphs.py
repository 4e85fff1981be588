"""Graphs of compressed models: as thin as the model, folded all the same, and equal to it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from making import people, write_small

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from mmcl.deploy.onnx import agree, export_graph  # noqa: E402
from mmcl.deploy.thin import thinned  # noqa: E402
from mmcl.deploy.variants import half, integer  # noqa: E402
from mmcl.models.session import open_session  # noqa: E402
from mmcl.surgery.base import build_surgery  # noqa: E402

NETWORKS = {
    "ctrgcn": {"width": 32, "depth": 3, "persons": 2},
    "hyperformer": {"heads": 4, "head_width": 12, "groups": 2, "depth": 3, "persons": 2},
}  # fmt: skip


def low(rows: int, columns: int, rank: int, draw: np.random.Generator) -> np.ndarray:
    return (draw.normal(size=(rows, rank)) @ draw.normal(size=(rank, columns))).astype(np.float32)


def numbers(model: onnx.ModelProto) -> int:
    return sum(numpy_helper.to_array(tensor).size for tensor in model.graph.initializer)


def graph_of(nodes: list, constants: dict[str, np.ndarray], shape: tuple) -> onnx.ModelProto:
    tensors = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, size) for name, size in (("x", shape), ("y", None))]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def cases() -> dict[str, tuple[list, dict[str, np.ndarray], tuple, int]]:
    """Nodes, constants, the shape of x, and how many numbers the thin weights hold."""
    draw = np.random.default_rng(0)
    taps = low(24, 20 * 5, 3, draw).reshape(24, 20, 1, 5)
    groups = np.concatenate([low(12, 20, 2, draw) for _ in range(3)])[:, :, None, None]
    fused = np.concatenate([low(32, 60, 4, draw) for _ in range(2)])[:, :, None, None]
    conv = {"kernel_shape": [1, 5], "strides": [1, 2], "pads": [0, 4, 0, 4], "dilations": [1, 2]}
    bias = draw.normal(size=24).astype(np.float32)
    return {
        "taps": ([helper.make_node("Conv", ["x", "w", "b"], ["y"], **conv)], {"w": taps, "b": bias},
                 (2, 20, 3, 11), 3 * (24 + 100)),
        "groups": ([helper.make_node("Conv", ["x", "w"], ["y"], group=3)], {"w": groups}, (2, 60, 3, 4), 3 * 2 * 32),
        "parts": ([helper.make_node("Conv", ["x", "w"], ["y"])], {"w": fused}, (2, 60, 3, 4), 2 * 4 * 92),
        "right": ([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": low(30, 40, 5, draw)}, (2, 7, 30), 5 * 70),
        "left": ([helper.make_node("MatMul", ["w", "x"], ["y"])], {"w": low(40, 30, 5, draw)}, (2, 30, 7), 5 * 70),
    }  # fmt: skip


@pytest.mark.parametrize("name", cases())
def test_a_weight_of_low_rank_becomes_two_thin_ones_of_the_same_function(name: str) -> None:
    nodes, constants, shape, held = cases()[name]
    whole = graph_of(nodes, constants, shape)
    x = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    (expected,) = open_session(whole.SerializeToString()).run(None, {"x": x})
    thin = thinned(onnx.load_from_string(whole.SerializeToString()))
    (found,) = open_session(thin.SerializeToString()).run(None, {"x": x})
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * float(np.abs(expected).max()))
    assert numbers(thin) == held + sum(array.size for key, array in constants.items() if key != "w")


def test_weights_of_full_rank_and_weights_that_are_computed_stay(tmp_path) -> None:
    draw = np.random.default_rng(0)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("MatMul", ["h", "h"], ["y"])]
    whole = graph_of(nodes, {"w": draw.normal(size=(30, 30)).astype(np.float32)}, (30, 30))
    before = whole.SerializeToString()
    assert thinned(whole).SerializeToString() == before


@pytest.mark.parametrize("name", ["ctrgcn", pytest.param("hyperformer", marks=pytest.mark.slow)])
def test_graphs_of_a_compressed_model_equal_it(tmp_path, name: str) -> None:
    bundle = write_small(tmp_path / "bundle", (name, NETWORKS[name]))
    small = build_surgery("low_rank", {"policy": "parameters", "amount": 0.6, "temporal": True}).run(bundle)
    graph = export_graph(small)
    assert agree(graph, small, tmp_path / "probe.safetensors") <= 1e-4
    whole, held = (one.description.counts["parameters"] for one in (bundle, small))
    assert numbers(graph) < held + 0.25 * whole  # constants of folding and of the preparation come on top
    assert not [node for node in graph.graph.node if node.op_type == "BatchNormalization"]  # folded, and thin
    clips = [people(2, 2, frames, empty) for frames, empty in ((40, ((0, 1),)), (17, ()), (30, ((0, 0), (1, 1))))]
    for tolerance, made in ((2e-2, half(graph)), (0.2, integer(graph, [clip.numpy() for clip in clips[:2]]))):
        session = open_session(made.SerializeToString())
        for clip in clips:
            with torch.no_grad():
                expected = small(clip)
            found = torch.from_numpy(session.run(["scores"], {"joints": clip.numpy()})[0])
            assert (found - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.slow
def test_factors_of_a_huge_network_are_exported_as_they_are(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("mmcl.encoders.base.LARGEST", 100)
    bundle = write_small(tmp_path / "bundle", ("ctrgcn", {"width": 16, "depth": 3, "persons": 2}))
    small = build_surgery("low_rank", {"policy": "rank", "amount": 2}).run(bundle)
    assert agree(export_graph(small), small, tmp_path / "probe.safetensors") <= 1e-4
