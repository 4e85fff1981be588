"""Weights of low rank in a graph become two thin ones.

A network whose layers are factored (``mmcl compress``) has a folded form all the same, in which constants are part of
whole weights (``encoders/lean.py``). Folding scales rows and columns and adds none to the rank of a weight: what was
factored is found again here by its singular values, and the graph computes few products and has nothing unfolded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

NOISE = 1e-5  # of the largest singular value: what single precision makes of a zero is smaller by far
PARTS = (1, 2, 3, 4)  # projections that may lie one after the other in one weight, each of a low rank
LEAST = 256  # numbers in a weight that is worth a second product


def thinned(model: ModelProto) -> ModelProto:
    """A graph with thin weights, where that makes them smaller; the one that is given is changed.

    What is looked at are convolutions, and products of a constant matrix on either side.
    """
    from onnx import numpy_helper

    graph, nodes = model.graph, []
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for number, node in enumerate(graph.node):
        place = next((i for i in _weights_of(node) if node.input[i] in constants), None)
        values = None if place is None else numpy_helper.to_array(constants[node.input[place]])
        found = None if values is None or values.size < LEAST else _thin(node, place, values, f"thin_{number}")
        if found is None:
            nodes.append(node)
            continue
        nodes += found[0]
        graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in found[1].items())
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    return model


def _weights_of(node: NodeProto) -> tuple[int, ...]:
    """Where among its inputs a node may have a constant weight."""
    return {"Conv": (1,), "MatMul": (1, 0)}.get(node.op_type, ())


def _thin(
    node: NodeProto, place: int | None, values: np.ndarray, name: str
) -> tuple[list[NodeProto], dict[str, np.ndarray]] | None:
    """Two nodes and their constants in the place of one node; None where they would hold no fewer numbers."""
    if values.dtype != np.float32 or (node.op_type == "MatMul" and values.ndim != 2):
        return None
    if node.op_type == "Conv":
        return _thin_convolution(node, values, name)
    found = _factors(values[None])
    if found is None:
        return None
    right, left = found[0][0], found[1][0]  # (k, columns), (rows, k)
    names = {f"{name}_left": left, f"{name}_right": right}
    if place == 1:  # x @ (left @ right)
        return _products(node, [node.input[0], f"{name}_left"], f"{name}_right", name, last=1), names
    return _products(node, [f"{name}_right", node.input[1]], f"{name}_left", name, last=0), names


def _products(node: NodeProto, first: list[str], other: str, name: str, last: int) -> list[NodeProto]:
    from onnx import helper

    inside = [f"{name}_inside", other] if last == 1 else [other, f"{name}_inside"]
    return [helper.make_node("MatMul", first, [f"{name}_inside"]), helper.make_node("MatMul", inside, node.output)]


def _thin_convolution(
    node: NodeProto, values: np.ndarray, name: str
) -> tuple[list[NodeProto], dict[str, np.ndarray]] | None:
    """A convolution to few channels with the taps, stride and padding of the whole one, then one of a single tap."""
    from onnx import helper

    own: dict[str, Any] = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    groups, rows = own.get("group", 1), len(values)
    found, parts = _factors(values.reshape(groups, rows // groups, -1)), groups
    for count in PARTS[1:] if groups == 1 else ():
        other = _factors(values.reshape(count, rows // count, -1)) if rows % count == 0 else None
        if other is not None and (found is None or _size(other) < _size(found)):
            found, parts = other, count
    if found is None:
        return None
    right, left = found
    taps = (1,) * (values.ndim - 2)
    first = helper.make_node("Conv", [node.input[0], f"{name}_right"], [f"{name}_inside"], **own)
    second = helper.make_node(
        "Conv", [f"{name}_inside", f"{name}_left", *node.input[2:]], node.output, group=parts, kernel_shape=list(taps)
    )
    names = {f"{name}_right": right.reshape(-1, *values.shape[1:]), f"{name}_left": left.reshape(rows, -1, *taps)}
    return [first, second], names


def _factors(matrices: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Factors (n, k, columns) and (n, rows, k) of matrices (n, rows, columns), k the largest of their ranks."""
    left, values, right = np.linalg.svd(matrices.astype(np.float64), full_matrices=False)
    rank = int((values > NOISE * max(float(values.max()), 1e-30)).sum(axis=1).max())
    count, rows, columns = matrices.shape
    if not rank or count * rank * (rows + columns) >= matrices.size:
        return None
    root = np.sqrt(values[:, :rank])
    right, left = root[:, :, None] * right[:, :rank], left[:, :, :rank] * root[:, None]
    return right.astype(np.float32), left.astype(np.float32)


def _size(factors: tuple[np.ndarray, np.ndarray]) -> int:
    return factors[0].size + factors[1].size
