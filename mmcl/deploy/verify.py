"""Is the exported bundle the trained network? Asked in a fresh process that cannot import any training package."""

from __future__ import annotations

import copy
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from mmcl.common.errors import UserError
from mmcl.models.model import Model
from mmcl.models.probe import made_up_clips

# What inference must not need. The fresh process makes these names impossible to import.
TRAINING_PACKAGES = (
    "accelerate", "av", "datasets", "decord", "jsonargparse", "matplotlib", "open_clip", "peft", "PIL", "pyarrow",
    "sklearn", "tensorboard", "timm", "torchvision", "tqdm", "transformers", "yaml", "scipy",
)  # fmt: skip
TOLERANCE = 1e-7  # relative, in double precision: beyond the rounding of float64, and never another network

_FRESH = """
import sys
for name in {blocked!r}:
    sys.modules[name] = None
import torch
from safetensors.torch import load_file, save_file
import mmcl
model = mmcl.load({bundle!r})
probe = load_file({probe!r})
joints, lengths = probe["joints"], probe["lengths"]
answer = {{"single": model(joints, lengths).contiguous()}}
model.double().preprocess.dtype = torch.float64
answer["scores"] = model(joints.double(), lengths).contiguous()
if model.text_head is not None:
    with torch.no_grad():
        answer["embeddings"] = model.text_head.embed(model.features(joints.double(), lengths)).contiguous()
if model.familiarity is not None:
    answer["familiarity"] = model.judge(joints.double(), lengths)[1].contiguous()
answer["parameters"] = torch.tensor([sum(parameter.numel() for parameter in model.parameters())])
save_file(answer, {answer!r})
"""


@dataclass(frozen=True)
class Verified:
    """How far a bundle is from the network that it was made of; relative to the largest score where that exceeds 1.

    Attributes:
        difference: in double precision, in which the two must be equal.
        rounding: of the bundle's scores in single precision, from those in double precision.
    """

    difference: float
    rounding: float


def write_probe(path: Path, model: Model, clips: Mapping[str, torch.Tensor] | None = None) -> None:
    """Write what a model gives for a few clips, in double precision, for :func:`verify_bundle`.

    A badly conditioned network answers in single precision with few right digits, so that two ways to compute it
    differ; in double precision they do not.

    Args:
        path: file to write.
        model: in evaluation mode, on the CPU; its network is used as it is, never in the lean form.
        clips: ``joints`` (N, M, T, V, C) and ``lengths`` (N,); None makes some up.
    """
    if clips is None:
        clips = made_up_clips(model.layout, model.preprocess.dimensions)
    joints, lengths = clips["joints"], clips["lengths"]
    exact = copy.deepcopy(model).double()
    exact.preprocess.dtype = torch.float64
    with torch.no_grad():
        found = {"scores": exact.preprocess.averaged(exact.encoder, joints.double(), lengths)}
        if exact.text_head is not None or exact.familiarity is not None:
            features = exact.preprocess.averaged(exact.encoder.features, joints.double(), lengths)
            if exact.text_head is not None:
                found["embeddings"] = exact.text_head.embed(features)
            if exact.familiarity is not None:
                found["familiarity"] = exact.familiarity(features, found["scores"])
    found = {name: tensor.contiguous() for name, tensor in found.items()}
    save_file({"joints": joints.contiguous(), "lengths": lengths, **found}, path)


def verify_bundle(bundle: Path, probe: Path, parameters: int) -> Verified:
    """Load a bundle in a fresh process and compare it with the network that it was made of.

    Args:
        bundle: folder to verify.
        probe: file of :func:`write_probe`.
        parameters: count of the encoder, and of the text head where there is one: what the bundle must have exactly.

    Raises:
        UserError: the bundle does not load alone, is another function, or has another number of parameters.
    """
    expected = load_file(probe)
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.safetensors"
        code = _FRESH.format(blocked=TRAINING_PACKAGES, bundle=str(bundle), probe=str(probe), answer=str(answer))
        run_fresh(code, "the bundle")
        result = load_file(answer)
    if int(result["parameters"]) != parameters:
        what = "the trained encoder" + (" with its text head" if "embeddings" in expected else "")
        raise UserError(f"the bundle has {int(result['parameters'])} parameters, {what} {parameters}")
    differences = [
        _difference(name, result.get(name), expected[name])
        for name in ("scores", "embeddings", "familiarity")
        if name in expected
    ]
    return Verified(max(differences), relative_difference(result["single"], expected["scores"]))


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
    """Largest difference of two tensors, relative to the expected one's largest magnitude where that exceeds 1.

    It is infinite where one of them is not finite: no comparison with NaN is ever true, `max` included.
    """
    difference = float((found - expected).abs().max()) / max(1.0, float(expected.abs().max()))
    return difference if math.isfinite(difference) else math.inf


def _difference(what: str, found: torch.Tensor | None, expected: torch.Tensor) -> float:
    if found is None:
        raise UserError(f"the bundle has no {what}, and the trained network has")
    difference = relative_difference(found, expected)
    if not difference <= TOLERANCE:
        raise UserError(f"the bundle's {what} differ from the trained network's by {difference:.2e} (> {TOLERANCE})")
    return difference
