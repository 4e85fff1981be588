"""ONNX: raw joints in, probabilities out, preprocessing inside; clips, persons and frames may vary in number."""

from __future__ import annotations

import copy
import json
import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from mmcl.common.errors import UserError
from mmcl.deploy.graph_network import OUTPUTS, Eager, Graph
from mmcl.deploy.thin import thinned
from mmcl.deploy.verify import relative_difference
from mmcl.encoders.factored import factored_layers
from mmcl.models.model import Model
from mmcl.models.session import open_session

if TYPE_CHECKING:
    from onnx import ModelProto

TOLERANCE = 1e-4
ROUNDINGS = 4.0  # times the rounding of the model itself that its graph may differ by
INPUT = "joints"
_FACTS = (
    "class_names", "encoder", "layout", "encoder_layout", "preprocess", "input", "counts", "provenance", "vocabulary",
    "rejection",
)  # fmt: skip


def require_onnx() -> None:
    """Make sure that the packages of the ``onnx`` extra are installed.

    Raises:
        UserError: naming the first that is missing.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401 - the exporter needs it
    except ImportError as error:
        raise UserError(f'ONNX export needs {error.name}: run `pip install "mmcl[onnx]"`') from error


def dynamic_shapes() -> tuple[dict[int, Any]]:
    """Which axes of the joints may have any length: clips, persons, frames."""
    dim = torch.export.Dim
    return ({0: dim("clips", min=1), 1: dim("persons", min=1), 2: dim("frames", min=2)},)


def probe_samples(probe: Path) -> list[Tensor]:
    """Clips of different lengths and with different bodies, (N, M, T, V, C): no number may be frozen into a graph."""
    clips = load_file(probe)
    joints, lengths = clips["joints"], clips.get("lengths")
    count = min(3, len(joints))
    spans = [joints.shape[2]] * count if lengths is None else [int(length) for length in lengths[:count]]
    alone = [joints[number : number + 1, :, :span] for number, span in enumerate(spans)]
    span = min(spans)
    mixed = joints[:count, :, :span].repeat(2, 2, 1, 1, 1)[:, : max(2, joints.shape[1])]
    mixed[count:, 1:] = 0  # the second half of the batch has one body each
    return [*alone, mixed]


def export_graph(model: Model) -> ModelProto:
    """The graph in single precision, unnamed and untested."""
    graph = Graph(model)
    example = torch.randn(3, 2, 2 * model.preprocess.options.window, model.layout.joint_count, model.preprocess.columns)
    proto = traced(graph, (example,), [INPUT], graph.outputs, dynamic_shapes())
    return thinned(proto) if any(True for _ in factored_layers(model.encoder)) else proto


def traced(
    module: nn.Module, example: tuple[Tensor, ...], inputs: Sequence[str], outputs: Sequence[str], shapes: Any
) -> ModelProto:  # fmt: skip
    """A module as the exporter writes it, without its warnings.

    Args:
        module: what is exported.
        example: its arguments.
        inputs: names of the arguments.
        outputs: names of what it returns.
        shapes: which axes of the arguments may have any length, as ``torch.export`` takes them.
    """
    import onnx

    quiet = logging.getLogger("torch.onnx")
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module, example, dynamo=True, verbose=False, input_names=inputs, output_names=outputs,
                dynamic_shapes=shapes,
            )  # fmt: skip
    finally:
        quiet.setLevel(level)
    assert program is not None
    proto = onnx.ModelProto()
    proto.CopyFrom(program.model_proto)
    return proto


def tidy(model: ModelProto) -> ModelProto:
    """Keep equal constants once, drop notes of where each node came from, give short names: a tenth of a small file."""
    graph = model.graph
    del graph.value_info[:]
    del graph.metadata_props[:], model.metadata_props[:], model.functions[:]
    graph.doc_string = ""
    kept = {value.name for value in (*graph.input, *graph.output)} | {""}
    short: dict[str, str] = {}

    def name(old: str) -> str:
        return old if old in kept else short.setdefault(old, f"v{len(short)}")

    constants: dict[bytes, str] = {}
    for initializer in list(graph.initializer):
        old, initializer.name, initializer.doc_string = initializer.name, "", ""
        same = constants.setdefault(initializer.SerializeToString(deterministic=True), old)
        if same != old and old not in kept:
            short[old] = name(same)
            graph.initializer.remove(initializer)
        else:
            initializer.name = name(old)
    for number, node in enumerate(graph.node):
        node.name, node.doc_string = f"n{number}", ""
        del node.metadata_props[:]
        node.input[:] = [name(value) for value in node.input]
        node.output[:] = [name(value) for value in node.output]
    return model


def finish(proto: ModelProto, model: Model, variant: Mapping[str, Any]) -> ModelProto:
    """Tidy a graph, and write into its metadata all that is needed to use it."""
    import onnx

    outputs, said = [value.name for value in proto.graph.output], model.description.to_json()
    facts = {key: said[key] for key in _FACTS if said[key] is not None}
    facts["outputs"] = {name: OUTPUTS[name] for name in outputs if name in OUTPUTS}
    facts["variant"] = dict(variant)
    if weights := (model.description.record or {}).get("weights"):  # a network trained anew has the same options
        facts["weights"] = weights
    tidy(proto)
    onnx.helper.set_model_props(proto, {key: json.dumps(value, ensure_ascii=False) for key, value in facts.items()})
    return proto


def agree(proto: ModelProto, model: Model, probe: Path) -> float:
    """Compare a graph in single precision with its model, on clips of one and two bodies and of several lengths.

    Returns:
        Largest difference of any output, relative to its largest magnitude where that exceeds 1, from the model's in
        double precision.

    Raises:
        UserError: it is more than 1e-4, and more than the model's own rounding in single precision can make it.
    """
    single, exact = Eager(model), Eager(copy.deepcopy(model).double())
    exact.preprocess.dtype = torch.float64
    session, worst, rounding = open_session(proto.SerializeToString()), 0.0, 0.0
    for sample in probe_samples(probe):
        with torch.no_grad():
            truths, rounded = exact(sample.double()), single(sample)
        answers = session.run(single.outputs, {INPUT: sample.numpy()})
        for found, own, truth in zip(answers, rounded, truths, strict=True):
            worst = max(worst, relative_difference(torch.from_numpy(found), truth))
            rounding = max(rounding, relative_difference(own, truth))
    allowed = max(TOLERANCE, ROUNDINGS * rounding)
    if not worst <= allowed:
        raise UserError(f"the ONNX graph's outputs differ from the model's by {worst:.2e} (> {allowed:.1e})")
    return worst
