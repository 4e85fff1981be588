"""``model.pt2``: a bundle as a torch.export program, which PyTorch loads and runs without any of mmcl's code."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from mmcl.common.errors import UserError
from mmcl.deploy.graph_network import Eager, Graph
from mmcl.deploy.onnx import INPUT, TOLERANCE, dynamic_shapes, probe_samples
from mmcl.deploy.verify import relative_difference, run_fresh
from mmcl.models.bundle import load_bundle
from mmcl.models.description import EXPORTED
from mmcl.models.description_file import CONFIG
from mmcl.models.model import Model

# The fresh process cannot import mmcl: what it computes, the file says.
_FRESH = """
import sys
sys.modules["mmcl"] = None
import torch
from safetensors.torch import load_file, save_file
program = torch.export.load({program!r}).module()
clips = load_file({clips!r})
with torch.no_grad():
    answer = {{f"{{key}}.{{i}}": out.contiguous() for key, x in clips.items() for i, out in enumerate(program(x))}}
save_file(answer, {answer!r})
"""


def export_program(model: Model) -> torch.export.ExportedProgram:
    """The graph of a model, any number of clips, persons, frames: joints -> probabilities, scores[, embedding]."""
    example = torch.randn(3, 2, 2 * model.preprocess.options.window, model.layout.joint_count, model.preprocess.columns)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.export.export(Graph(model), (example,), dynamic_shapes=dynamic_shapes())


def write_program(folder: Path, probe: Path) -> float:
    """Add ``model.pt2`` to a bundle; it stays if a fresh process without mmcl gets the bundle's own outputs from it.

    Returns:
        Largest difference to the bundle's own outputs, relative to their largest magnitude where that exceeds 1.

    Raises:
        UserError: it does not load alone, or differs by more than 1e-4.
    """
    bundle, path = load_bundle(folder), folder / EXPORTED
    torch.export.save(export_program(bundle), path, extra_files={CONFIG: (folder / CONFIG).read_text(encoding="utf-8")})
    samples = {f"{INPUT}{number}": sample.contiguous() for number, sample in enumerate(probe_samples(probe))}
    try:
        return _compare(path, Eager(bundle), samples)
    except UserError:
        path.unlink()
        raise


def _compare(path: Path, graph: Graph, samples: dict[str, torch.Tensor]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        clips, answer = Path(folder) / "clips.safetensors", Path(folder) / "answer.safetensors"
        save_file(samples, clips)
        code = _FRESH.format(program=str(path), clips=str(clips), answer=str(answer))
        run_fresh(code, path.name)
        found = load_file(answer)
    worst = 0.0
    for key, sample in samples.items():
        with torch.no_grad():
            for number, truth in enumerate(graph(sample)):
                worst = max(worst, relative_difference(found[f"{key}.{number}"], truth))
    if not worst <= TOLERANCE:
        raise UserError(f"the outputs of {path.name} differ from the bundle's by {worst:.2e} (> {TOLERANCE})")
    return worst
