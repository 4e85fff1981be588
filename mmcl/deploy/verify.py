"""Is the exported bundle the trained network? Asked in a fresh process that cannot import any training package."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from mmcl.common.errors import UserError
from mmcl.models.model import Model

# What inference must not need. The fresh process makes these names impossible to import.
TRAINING_PACKAGES = (
    "accelerate", "av", "datasets", "decord", "jsonargparse", "matplotlib", "open_clip", "peft", "PIL", "pyarrow",
    "sklearn", "tensorboard", "timm", "torchvision", "tqdm", "transformers", "yaml", "scipy",
)  # fmt: skip
TOLERANCE = 1e-5

_FRESH = """
import sys
for name in {blocked!r}:
    sys.modules[name] = None
import torch
from safetensors.torch import load_file, save_file
import mmcl
model = mmcl.load({bundle!r})
probe = load_file({probe!r})
with torch.no_grad():
    features = model.features(probe["joints"], probe.get("lengths"))
    answer = {{"scores": model(probe["joints"], probe.get("lengths")).contiguous()}}
    if model.vocabulary is not None:
        answer["embeddings"] = model.text_head.embed(features).contiguous()
answer["parameters"] = torch.tensor([sum(parameter.numel() for parameter in model.parameters())])
save_file(answer, {answer!r})
"""


def verify_bundle(bundle: Path, probe: Path, parameters: int, embeddings: torch.Tensor | None = None) -> float:
    """Compare a bundle with the scores that the trained network recorded.

    Args:
        bundle: folder to verify.
        probe: safetensors file with ``joints`` (N, M, T, V, C), ``lengths`` (N,) and the ``scores`` (N, K) they got.
        parameters: count of the encoder, and of the projection where there is one: what the bundle must have exactly.
        embeddings: (N, D) what the trained projection makes of the probe; None where the run has no projection.

    Returns:
        Largest absolute difference of scores or embeddings, relative to their largest magnitude where that exceeds 1.

    Raises:
        UserError: the bundle does not load alone, differs by more than 1e-5, or has another number of parameters.
    """
    expected = load_file(probe)["scores"]
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.safetensors"
        code = _FRESH.format(blocked=TRAINING_PACKAGES, bundle=str(bundle), probe=str(probe), answer=str(answer))
        run_fresh(code, "the bundle")
        result = load_file(answer)
    if int(result["parameters"]) != parameters:
        what = "the trained encoder" + ("" if embeddings is None else " with its projection")
        raise UserError(f"the bundle has {int(result['parameters'])} parameters, {what} {parameters}")
    worst = _difference("scores", result["scores"], expected)
    if embeddings is not None:
        worst = max(worst, _difference("embeddings", result["embeddings"], embeddings))
    return worst


def run_fresh(code: str, what: str) -> None:
    """Run Python in a new process without a GPU.

    Args:
        code: the program.
        what: is tried by it, for the message.

    Raises:
        UserError: it failed; with the last line it said, or its status where it was killed without a word.
    """
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [f"it ended with status {done.returncode}"])[-1]
        raise UserError(f"{what} does not load on its own: {said}")


def relative_difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest difference of two tensors, relative to the expected one's largest magnitude where that exceeds 1."""
    return float((found - expected).abs().max()) / max(1.0, float(expected.abs().max()))


def _difference(what: str, found: torch.Tensor, expected: torch.Tensor) -> float:
    difference = relative_difference(found, expected)
    if not difference <= TOLERANCE:
        raise UserError(f"the bundle's {what} differ from the trained network's by {difference:.2e} (> {TOLERANCE})")
    return difference


def write_probe(path: Path, model: Model, clips: int = 2) -> None:
    """Write a probe for :func:`verify_bundle` where none was recorded in training: made-up joints and their scores.

    Args:
        path: file to write.
        model: in evaluation mode, on the CPU; its network is used as it is, never in the lean form.
        clips: how many.
    """
    shape = (clips, model.preprocess.persons, 2 * model.preprocess.options.window, model.layout.joint_count,
             model.preprocess.columns)  # fmt: skip
    joints = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        scores = model.preprocess.averaged(model.encoder, joints)
    save_file({"joints": joints, "scores": scores.contiguous()}, path)
