"""Graphs of reduced precision, made from the one in single precision.

``fp16`` stores every weight in half precision and computes in single precision: half the file, the same speed. ``int8``
computes convolutions and the products with the refined topologies in 8-bit integers, calibrated on training clips, and
stores every other weight in 8 bits, small ones in 16. What decides on the topology (means, queries, keys, the sigmoid),
the first convolutions, which read raw coordinates, and the classifier are computed in single precision, from weights
stored like this. Weights keep to 7 of the 8 bits, because processors without VNNI instructions add pairs of products
in 16 bits, which more would overflow.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmcl.deploy.onnx import INPUT

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

SMALL = 1024  # bytes of a constant that is not worth the node it takes to unpack it
_QUANTISED = ("Conv", "MatMul", "Transpose", "Reshape", "Split", "MaxPool", "Concat", "Add", "Relu")


def half(model: ModelProto) -> ModelProto:
    """Weights in half precision; onnxruntime turns them back once, when it loads the file."""
    return _stored(model, lambda values: None)


def integer(model: ModelProto, clips: Iterable[np.ndarray]) -> ModelProto:
    """8-bit integers.

    Args:
        model: in single precision.
        clips: (1, M, T, V, C) training clips, on which the range of every tensor is measured. A network without
            convolutions computes in single precision, and only its weights are stored in 8 bits.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Clips(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rows = iter(clips)

        def get_next(self) -> dict[str, np.ndarray] | None:
            clip = next(self.rows, None)
            return None if clip is None else {INPUT: clip}

    named = onnx.ModelProto()
    named.CopyFrom(model)
    for number, node in enumerate(named.graph.node):
        node.name = f"n{number}"
    chosen = list(_in_integers(named))
    if not chosen:  # onnxruntime would take an empty list for all nodes
        return _stored(model, _columns)
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # it recommends a preprocessing that has nothing left to do
    try:
        with tempfile.TemporaryDirectory() as folder:
            source, target = Path(folder) / "fp32.onnx", Path(folder) / "int8.onnx"
            onnx.save(named, source)
            quantize_static(
                str(source), str(target), Clips(), quant_format=QuantFormat.QDQ, per_channel=True, reduce_range=True,
                activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
                op_types_to_quantize=list(_QUANTISED), nodes_to_quantize=chosen,
                extra_options={"MatMulConstBOnly": False},
            )  # fmt: skip
            found = onnx.load(target)
    finally:
        logging.disable(before)
    return _stored(found, _columns)


def _in_integers(model: ModelProto) -> Iterator[str]:
    """Names of the nodes that are computed in integers: what lies behind the first convolution and is no exception.

    A convolution whose weight is computed is one: its range is not known beforehand for each channel.
    """
    graph = model.graph
    constants = {constant.name for constant in graph.initializer}
    after: set[str] = set()  # values that come from a convolution, by way of no mean
    for node in graph.node:
        if node.op_type == "Conv":
            if node.input[0] in after and node.input[1] in constants:
                yield node.name
            after.update(node.output)
        elif node.op_type != "ReduceMean" and any(value in after for value in node.input):
            after.update(node.output)
            if node.op_type in _QUANTISED:
                yield node.name


def _columns(values: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """A matrix (or several) in 8 bits with a scale for each column; None for what is no large matrix."""
    if values.ndim not in (2, 3) or min(values.shape[-2:]) < 8:
        return None
    scale = np.maximum(np.abs(values).max(axis=-2, keepdims=True), 1e-12) / 127
    return np.round(values / scale).astype(np.int8), scale.astype(np.float32)


def _stored(model: ModelProto, integers: Any) -> ModelProto:
    """Keep large constants in fewer bits, with the nodes that unpack them; onnxruntime runs those when it loads."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph, unpack = result.graph, []
    for constant in list(graph.initializer):
        values = numpy_helper.to_array(constant)
        if constant.data_type != TensorProto.FLOAT or values.nbytes < SMALL:
            continue
        name, packed = constant.name, integers(values)
        stored, scale = packed if packed is not None else (values.astype(np.float16), None)
        if not np.isfinite(stored).all():  # beyond the range of half precision
            continue
        graph.initializer.remove(constant)
        graph.initializer.append(numpy_helper.from_array(stored, f"{name}_stored"))
        wide = name if scale is None else f"{name}_wide"
        unpack.append(helper.make_node("Cast", [f"{name}_stored"], [wide], to=TensorProto.FLOAT))
        if scale is not None:
            graph.initializer.append(numpy_helper.from_array(scale, f"{name}_scale_of_columns"))
            unpack.append(helper.make_node("Mul", [wide, f"{name}_scale_of_columns"], [name]))
    nodes: list[NodeProto] = [*unpack, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    return result
