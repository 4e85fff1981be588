"""ONNX: raw joints in, class scores out, preprocessing inside the graph; clips and frames may vary in number."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from mmcl.deploy.bundle import Bundle, load_bundle
from mmcl.errors import UserError

FILE = "model.onnx"
TOLERANCE = 1e-4
_FACTS = (
    "class_names", "encoder", "layout", "encoder_layout", "preprocess", "input", "counts", "provenance", "vocabulary",
)  # fmt: skip
_EMBEDDING = (
    "second output: unit-length embedding of each clip in the space of texts; its dot product with a class's "
    "unit-length text embedding (rows 'classes' of vocabulary.safetensors, named in vocabulary.names), divided "
    "by vocabulary.temperature, is the class's open-vocabulary score; softmax over the classes asked for gives "
    "probabilities"
)


class _Graph(nn.Module):
    """What is exported: scores, and the embedding where there is a projection."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__()
        self.bundle = bundle
        self.outputs = ["scores"] if bundle.vocabulary is None else ["scores", "embedding"]

    def forward(self, joints: Tensor) -> tuple[Tensor, ...]:
        features = self.bundle.features(joints)
        scores, vocabulary = self.bundle.encoder.head(features), self.bundle.vocabulary
        return (scores,) if vocabulary is None else (scores, vocabulary.embed(features))


def write_onnx(folder: Path, probe: Path) -> float:
    """Add ``model.onnx`` to a bundle, and compare it with the bundle on the probe's clips before it stays.

    The graph takes ``joints`` (clips, persons, frames, V, 3) float32 with the bundle's number of persons and gives
    ``scores`` (clips, K), and ``embedding`` (clips, D) where the bundle has a vocabulary. Layout, class names and what
    goes in and out in words are in its metadata.

    Returns:
        Largest difference to the bundle's own outputs, relative to their largest magnitude where that exceeds 1.

    Raises:
        UserError: the onnx extra is not installed, or the graph differs by more than 1e-4.
    """
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401 - the exporter needs it
    except ImportError as error:
        raise UserError(f'ONNX export needs {error.name}: run `pip install "mmcl[onnx]"`') from error
    bundle = load_bundle(folder)
    graph = _Graph(bundle).eval()
    clips = load_file(probe)
    # Two clips of different length: enough to see that neither number has been frozen into the graph.
    samples = [
        joints[None, :, : int(length)] for joints, length in zip(clips["joints"][:2], clips["lengths"][:2], strict=True)
    ]
    samples = [bundle.preprocess.fit_persons(sample) for sample in samples]
    example = torch.cat([samples[0]] * 2)
    path = folder / FILE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            graph, (example,), dynamo=True, verbose=False, input_names=["joints"], output_names=graph.outputs,
            dynamic_shapes=({0: torch.export.Dim("clips", min=1), 2: torch.export.Dim("frames", min=2)},),
        )  # fmt: skip
    assert program is not None
    model = program.model_proto
    facts = {key: bundle.config[key] for key in _FACTS if key in bundle.config}
    if bundle.vocabulary is not None:
        facts["embedding"] = _EMBEDDING
    onnx.helper.set_model_props(model, {key: json.dumps(value, ensure_ascii=False) for key, value in facts.items()})
    onnx.save(model, path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    worst = 0.0
    for sample in [*samples, example]:
        with torch.no_grad():
            outputs = graph(sample)
        for found, tensor in zip(session.run(graph.outputs, {"joints": sample.numpy()}), outputs, strict=True):
            expected = tensor.numpy()
            worst = max(worst, float(np.abs(found - expected).max()) / max(1.0, float(np.abs(expected).max())))
    if not worst <= TOLERANCE:
        path.unlink()
        raise UserError(f"the ONNX graph's outputs differ from the bundle's by {worst:.2e} (> {TOLERANCE})")
    return worst
