"""What an ONNX graph spends its time on, operator by operator, as onnxruntime itself tells, and what each multiplies.

onnxruntime writes down what it runs after its own optimisation: fused nodes, other layouts of numbers, and the shapes
that came. The multiplications are those of the form as it runs, but for zeros that fill up blocks of channels.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from mmcl.models.session import open_session

RUNS = 10
# Else shapes of weights are not told, and those of activations are of channels that are filled up to blocks.
PLAINLY = {"session.disable_prepacking": "1", "optimization.disable_specified_optimizers": "NchwcTransformer"}


@dataclass(frozen=True)
class Operator:
    """All nodes of one kind that compute in one kind of numbers.

    Attributes:
        name: of the operator.
        numbers: ``int8``; ``fp32``; ``between``, which turns one into the other; ``indices``, shapes and positions.
        calls: nodes in a run.
        seconds: of a run, the mean over runs.
        products: multiplications of numbers in a run, of convolutions and matrix products.
    """

    name: str
    numbers: str
    calls: float
    seconds: float
    products: float


def operators_of(graph: Path | bytes, joints: np.ndarray, threads: int = 1, runs: int = RUNS) -> list[Operator]:
    """What a graph spends its time on, the dearest first.

    Args:
        graph: the file, or what it holds.
        joints: (N, M, T, V, C) that it is run with.
        threads: of the session.
        runs: that count; another one goes before them.
    """
    products: dict[tuple[str, str], float] = {}
    for event in _events(graph, joints, threads, 1, PLAINLY):
        products[_key(event)] = products.get(_key(event), 0.0) + _products(event)
    sums: dict[tuple[str, str], list[float]] = {}
    for event in _events(graph, joints, threads, runs):
        total = sums.setdefault(_key(event), [0.0, 0.0])
        total[0] += 1 / runs
        total[1] += event["dur"] / 1e6 / runs
    found = [Operator(*key, calls, spent, products.get(key, 0.0)) for key, (calls, spent) in sums.items()]
    return sorted(found, key=lambda each: -each.seconds)


def products_of(graph: Path | bytes, joints: np.ndarray) -> float:
    """Multiplications of numbers in convolutions and matrix products, as a graph runs with some clips."""
    return sum(map(_products, _events(graph, joints, 1, 1, PLAINLY)))


def _events(
    graph: Path | bytes, joints: np.ndarray, threads: int, runs: int, settings: Mapping[str, str] | None = None
) -> list[dict[str, Any]]:
    """What onnxruntime writes down of each node in so many runs; another one goes before them."""
    with tempfile.TemporaryDirectory() as folder:
        session = open_session(graph, threads, f"{folder}/profile", settings)
        for _ in range(1 + runs):
            session.run(["scores"], {"joints": joints})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    first = min(event["ts"] + event["dur"] for event in events if event["name"] == "model_run")
    return [event for event in events if event["ts"] >= first and "op_name" in event.get("args", {})]


def _key(event: Mapping[str, Any]) -> tuple[str, str]:
    """Operator, and the numbers that it computes in."""
    name = event["args"]["op_name"].removeprefix("Fused")  # with the activation that follows
    given, found = ({kind for kind, _ in _shapes(event, side)} for side in ("input", "output"))
    if name in ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"):
        return name, "between"
    if name.startswith("QLinear") or (found | given) & {"uint8", "int8"}:
        return name, "int8"
    return name, "fp32" if found & {"float", "float16", "double"} else "indices"


def _shapes(event: Mapping[str, Any], side: str) -> list[tuple[str, list[int]]]:
    """(type, shape) of each input or output that is there."""
    return [next(iter(end.items())) for end in event["args"].get(f"{side}_type_shape", []) if end]


def _products(event: Mapping[str, Any]) -> float:
    """Multiplications of a node: numbers that come out, times what is summed for each of them."""
    name = event["args"]["op_name"]
    shapes, out = [shape for _, shape in _shapes(event, "input")], _shapes(event, "output")
    if "Conv" in name and "Transpose" not in name:
        return float(prod(out[0][1]) * prod(shapes[3 if name.startswith("QLinear") else 1][1:]))
    if "MatMul" in name or "Gemm" in name:
        left, rows = shapes[0], out[0][1][-2:-1]
        return float(prod(out[0][1]) * (left[-1] if left[-2:-1] == rows else left[-2]))
    return 0.0


def operators_table(operators: Sequence[Mapping[str, Any]], least: float = 0.005) -> str:
    """The same as a table in Markdown: shares of the time; what takes less than ``least`` of it is summed up."""
    total = sum(each["seconds"] for each in operators)
    kinds: dict[str, float] = {}
    for each in operators:
        kinds[each["numbers"]] = kinds.get(each["numbers"], 0.0) + each["seconds"]
    rows = [
        f"| {each['name']} | {each['numbers']} | {each['calls']:.0f} | {1e3 * each['seconds']:.2f} | "
        f"{each['seconds'] / total:.1%} | {each['products'] / 1e6:,.1f} |"
        for each in operators
        if each["seconds"] >= least * total
    ]
    rest = sum(each["seconds"] for each in operators if each["seconds"] < least * total)
    shares = ", ".join(f"{name} {seconds / total:.1%}" for name, seconds in sorted(kinds.items(), key=lambda x: -x[1]))
    return "\n".join(
        [
            f"Time by numbers: {shares}.",
            "",
            "| operator | numbers | nodes | ms | share | million products |",
            "|---|---|---|---|---|---|",
            *rows,
            f"| all others | | | {1e3 * rest:.2f} | {rest / total:.1%} | |",
        ]
    )
