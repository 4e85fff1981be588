"""Names of a bundle's files, and its ``config.json``; needs neither torch nor onnxruntime."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmcl.common.errors import UserError

FORMAT = 1
WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
EXPORTED = "model.pt2"
GRAPHS = {"fp32": "model.onnx", "fp16": "model.fp16.onnx", "int8": "model.int8.onnx"}  # precision -> file
NEEDED = {
    "encoder": dict, "layout": dict, "preprocess": dict, "class_names": list, "counts": dict, "provenance": dict,
}  # fmt: skip  # keys of config.json, and what they hold
MAX_LOSS = 0.5  # points of top-1 accuracy that a graph may lose


@dataclass(frozen=True)
class Extras:
    """What an export writes beside the weights.

    Attributes:
        onnx: precisions of ONNX graphs, keys of :data:`GRAPHS`.
        max_loss: points of top-1 accuracy that a graph may lose on the run's test clips.
        torch_export: also ``model.pt2``.
        drop_weights: leave ``model.safetensors`` out once all else is verified.
    """

    onnx: tuple[str, ...] = ()
    max_loss: float = MAX_LOSS
    torch_export: bool = False
    drop_weights: bool = False


EXTRAS = Extras()


def graphs_in(folder: Path) -> dict[str, Path]:
    """Precision -> file of the ONNX graphs that a bundle holds."""
    return {precision: folder / name for precision, name in GRAPHS.items() if (folder / name).is_file()}


def is_bundle(folder: Path) -> bool:
    """Whether a folder holds a bundle's ``config.json``; other people's models have files of that name, too."""
    try:
        return json.loads((folder / CONFIG).read_text(encoding="utf-8")).keys() >= NEEDED.keys()
    except (OSError, ValueError, AttributeError):
        return False


def parse_precisions(text: str) -> tuple[str, ...]:
    """``fp32,int8`` -> its parts, each once, in the order of :data:`GRAPHS`.

    Raises:
        UserError: nothing, or something else than fp32, fp16, int8.
    """
    asked = {part.strip() for part in text.split(",")} - {""}
    if not asked or asked - set(GRAPHS):
        raise UserError(f"--onnx {text}: choose from {', '.join(GRAPHS)}, with commas between them")
    return tuple(precision for precision in GRAPHS if precision in asked)


def read_config(folder: Path) -> dict[str, Any]:
    """Read and check ``config.json`` of a bundle.

    Raises:
        UserError: the folder is no bundle.
    """
    path = folder / CONFIG
    if not path.is_file() or not ((folder / WEIGHTS).is_file() or graphs_in(folder)):
        raise UserError(
            f"{folder} is no bundle (needs {CONFIG} and {WEIGHTS}): make one with `mmcl export --run RUN --out DIR`"
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        version = config["format"]
        missing = [key for key, kind in NEEDED.items() if not isinstance(config.get(key), kind)]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not a bundle's config.json ({error})") from error
    if version != FORMAT:
        raise UserError(f"{path}: bundle format {version}, this mmcl reads {FORMAT}")
    if missing:
        raise UserError(f"{path}: not a bundle's config.json (it lacks {', '.join(missing)})")
    return config
