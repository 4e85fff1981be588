"""Graphs of reduced precision: which nodes they may compute in integers, whatever network they are of."""

from __future__ import annotations

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from mmcl.deploy.variants import half, integer  # noqa: E402
from mmcl.models.session import open_session  # noqa: E402

CHANNELS, FRAMES = 6, 12


def network() -> onnx.ModelProto:
    """Two convolutions with constant weights, and between them one whose weight the first one's output computes."""
    rng = np.random.default_rng(0)
    shapes = {"first": (8, CHANNELS, 1, 3), "factor": (8, 8, 1, 1), "last": (8, 8, 1, 3)}
    weights = {name: rng.normal(size=shape).astype(np.float32) / 8 for name, shape in shapes.items()}
    nodes = [
        helper.make_node("Conv", ["joints", "first"], ["a"], pads=[0, 1, 0, 1]),
        helper.make_node("ReduceMean", ["a"], ["mean"], axes=[0, 2, 3], keepdims=1),
        helper.make_node("Mul", ["factor", "mean"], ["computed"]),
        helper.make_node("Conv", ["a", "computed"], ["b"]),
        helper.make_node("Relu", ["b"], ["c"]),
        helper.make_node("Conv", ["c", "last"], ["d"], pads=[0, 1, 0, 1]),
        helper.make_node("Relu", ["d"], ["scores"]),
    ]
    dims = ["clips", CHANNELS, 1, FRAMES]
    graph = helper.make_graph(
        nodes, "made-up", [helper.make_tensor_value_info("joints", TensorProto.FLOAT, dims)],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["clips", 8, 1, FRAMES])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def test_a_convolution_whose_weight_is_computed_stays_in_single_precision() -> None:
    model, rng = network(), np.random.default_rng(1)
    clips = [rng.normal(size=(1, CHANNELS, 1, FRAMES)).astype(np.float32) for _ in range(8)]
    run = open_session(model.SerializeToString()).run
    for made, tolerance in ((half(model), 2e-3), (integer(model, iter(clips)), 0.1)):
        other = open_session(made.SerializeToString()).run
        for clip in clips:
            (truth,), (found,) = run(None, {"joints": clip}), other(None, {"joints": clip})
            assert np.abs(found - truth).max() <= tolerance * np.abs(truth).max()
    quantised = integer(model, iter(clips)).graph
    kinds = {output: node.op_type for node in quantised.node for output in node.output}
    weights = [kinds.get(node.input[1]) for node in quantised.node if node.op_type == "Conv"]
    assert [kind == "DequantizeLinear" for kind in weights] == [False, False, True]  # the last is like any other


def test_without_convolutions_only_weights_are_in_integers() -> None:
    rng = np.random.default_rng(0)
    weights = {name: rng.normal(size=(16, 32)).astype(np.float32) for name in ("first", "second")}
    weights["second"] = np.ascontiguousarray(weights["second"].T)
    nodes = [
        helper.make_node("MatMul", ["joints", "first"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "second"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes, "made-up", [helper.make_tensor_value_info("joints", TensorProto.FLOAT, ["clips", 16])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["clips", 16])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    clips = [rng.normal(size=(1, 16)).astype(np.float32) for _ in range(8)]
    made = integer(model, iter(clips))
    assert not [node for node in made.graph.node if node.op_type == "QuantizeLinear"]
    assert made.ByteSize() < 0.6 * model.ByteSize()
    run, other = (open_session(proto.SerializeToString()).run for proto in (model, made))
    for clip in clips:
        (truth,), (found,) = run(None, {"joints": clip}), other(None, {"joints": clip})
        assert 0 < np.abs(found - truth).max() < 0.01 * np.abs(truth).max()
