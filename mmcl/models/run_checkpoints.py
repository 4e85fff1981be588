"""Finds a checkpoint of a run: which files it has, in which folder it lies, and how it was chosen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmcl.common.documents import read_json
from mmcl.common.errors import UserError
from mmcl.common.files import is_file
from mmcl.models.description import Description

RUN_MODEL = "model.json"  # in a run folder: the description of what it trains, without facts of a checkpoint
LEARNED, PROBE, POSITION = "learned.safetensors", "probe.safetensors", "position.json"  # of a checkpoint
UNFINISHED = "the run is not complete"  # ends how a checkpoint was chosen that another one will follow
ENCODER = "encoder."  # prefix of the encoder's tensors in a checkpoint


def find_run(path: Path, which: str = "last") -> tuple[Path, str]:
    """The run folder, and the name of the checkpoint, that a run folder or one of its checkpoints stands for.

    Raises:
        UserError: it is neither.
    """
    if is_file(path / LEARNED):
        path, which = path.parent.parent, path.name
    if not is_file(path / "config.yaml"):
        raise UserError(f"{path} is neither a bundle (config.json) nor a run folder (config.yaml)")
    return path, which


def find_checkpoint(folder: Path, name: str = "last") -> Path:
    """The folder of one checkpoint of a run.

    Args:
        folder: ``RUN/checkpoints``.
        name: ``last`` or ``best``.

    Raises:
        UserError: it is not there.
    """
    path = folder / name
    if not path.exists() and (folder / f".{name}.old").is_dir():  # killed between two renames: the older one is whole
        path = folder / f".{name}.old"
    if not (path / LEARNED).is_file():
        raise UserError(
            f"no checkpoint at {path}: has the run saved one? (give the run folder, see `mmcl train --help`)"
        )
    return path


def progress(folder: Path, checkpoint: Path, description: Description) -> dict[str, Any]:
    """What a checkpoint adds to the provenance of its run: where it is, how it was chosen, whether the run is done."""
    done = description.provenance
    try:
        position = read_json(checkpoint / POSITION)
        epochs = int(position.get("epochs", position.get("epoch")))  # of the run; before there were stages, of the run
    except (UserError, ValueError, AttributeError, TypeError, OverflowError) as error:
        raise UserError(f"{checkpoint / POSITION} is damaged: {error}") from error
    finished, name = (folder / "summary.json").is_file(), checkpoint.name.strip(".").removesuffix(".old")
    complete = bool(position.get("complete", finished))
    if name == "best":
        selection = f"best on validation clips {done.get('validation') or {}}"
    elif name != "last":  # a stage's own, which is as it should be once the run has gone on to its end
        selection, complete = f"kept after stage {name} (epoch {epochs})", finished
    else:
        selection = "last epoch" if complete else f"epoch {epochs}: {UNFINISHED}"
    return {"checkpoint": str(checkpoint), "selection": selection, "complete": complete}
