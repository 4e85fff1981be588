"""The ONNX graphs of a bundle, each measured before it is written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmcl.deploy.bundle import load_bundle, write_facts
from mmcl.deploy.config import GRAPHS, MAX_LOSS, WEIGHTS, Extras
from mmcl.deploy.judge import Judges, judged
from mmcl.deploy.onnx import agree, export_graph, finish, require_onnx
from mmcl.deploy.torch_export import write_program
from mmcl.deploy.variants import half, integer

if TYPE_CHECKING:
    from onnx import ModelProto


def write_extras(
    folder: Path, probe: Path, config: dict[str, Any], judges: Judges | None, extras: Extras
) -> dict[str, Any]:
    """Write graphs into a bundle that is verified, and what they are into its ``config.json`` and card.

    Args:
        folder: of the bundle.
        probe: clips to compare on.
        config: content of its ``config.json``.
        judges: clips to judge ONNX graphs on; needed where some are asked for.
        extras: what is asked for.

    Returns:
        The new content of ``config.json``.

    Raises:
        UserError: a graph differs by more than it may, or a package is missing.
    """
    if extras.onnx:
        assert judges is not None, "ONNX graphs are judged before they are written"
        config = {**config, "onnx": write_graphs(folder, extras.onnx, probe, judges, extras.max_loss)}
        write_facts(folder, config)
    if extras.torch_export:
        write_program(folder, probe)
    if extras.drop_weights:
        config = {**config, "weights": None}
        write_facts(folder, config)
        (folder / WEIGHTS).unlink()
    return config


def write_graphs(
    folder: Path, precisions: Sequence[str], probe: Path, judges: Judges, max_loss: float = MAX_LOSS
) -> dict[str, dict[str, Any]]:
    """Write a bundle's graphs.

    Args:
        folder: of the bundle.
        precisions: keys of :data:`GRAPHS`.
        probe: clips; the graph in single precision must agree with the bundle on them, whether it is asked for or not.
        judges: clips that the graphs are judged on.
        max_loss: points of top-1 that a graph may lose.

    Returns:
        What ``config.json`` says of each graph: file, bytes, accuracy beside the trained network's.

    Raises:
        UserError: the onnx extra is not installed, or a graph differs by more than it may.
    """
    require_onnx()
    bundle = load_bundle(folder)
    single = export_graph(bundle)
    agree(single, bundle, probe)  # what the others are made of must be right
    facts: dict[str, dict[str, Any]] = {}
    for precision in precisions:
        model = make_graph(single, precision, judges.calibrating())
        variant = judged(model, precision, judges, max_loss)
        path = folder / GRAPHS[precision]
        path.write_bytes(finish(model, bundle, variant).SerializeToString())
        facts[precision] = {"file": path.name, "bytes": path.stat().st_size, **variant}
    return facts


def make_graph(single: ModelProto, precision: str, clips: Iterable[np.ndarray]) -> ModelProto:
    """A graph in some precision from the one in single precision, which stays as it is; clips calibrate int8."""
    if precision == "fp16":
        return half(single)
    if precision == "int8":
        return integer(single, clips)
    return type(single).FromString(single.SerializeToString())
