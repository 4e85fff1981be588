"""A run folder: ``config.yaml``, ``metrics.jsonl``, tracker files, ``checkpoints/``, ``summary.json``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmcl.engine.checkpoint import LEARNED
from mmcl.engine.config import TrainConfig
from mmcl.errors import UserError
from mmcl.files import write_text

# What may differ when a run goes on: nothing that changes its result.
_FREE = ("out", "resume", "config", "engine.trackers", "engine.log_every", "engine.checkpoint_steps", "data.workers")


def _flatten(content: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(content, dict) or not content:
        return {prefix[:-1]: content}
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat |= _flatten(value, f"{prefix}{key}.")
    return flat


def check_run(config: TrainConfig) -> None:
    """Whether the run may start (or go on) in its folder; nothing is written.

    Raises:
        UserError: there is a run already and ``resume`` is off, or it was started with another configuration.
    """
    import yaml

    folder = Path(config.out)
    saved = folder / "config.yaml"
    if not saved.is_file():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UserError(f"{folder} exists and is no run folder: choose another --out")
        return
    if not config.resume:
        raise UserError(f"{folder} holds a run already: add --resume=true to go on with it, or choose another --out")
    before, now = _flatten(yaml.safe_load(saved.read_text())), _flatten(yaml.safe_load(config.text))
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) != now.get(key) and not key.startswith(_FREE):
            raise UserError(
                f"cannot resume {folder}: {key} was {before.get(key)} and is now {now.get(key)}; "
                "resume with the same configuration, or choose another --out"
            )


def start_run(config: TrainConfig) -> Path:
    """Make the run folder with its ``config.yaml``, where it is not there yet."""
    saved = Path(config.out) / "config.yaml"
    if not saved.is_file():
        write_text(saved, config.text)
    return saved.parent


def find_run(path: Path, which: str = "last") -> tuple[Path, str]:
    """The run folder, and the name of the checkpoint, that a run folder or one of its checkpoints stands for.

    Raises:
        UserError: it is neither.
    """
    if (path / LEARNED).is_file():
        path, which = path.parent.parent, path.name
    if not (path / "config.yaml").is_file():
        raise UserError(f"{path} is neither a bundle (config.json) nor a run folder (config.yaml)")
    return path, which


def read_run_config(folder: Path) -> TrainConfig:
    """The configuration a run folder was made with.

    Raises:
        UserError: the folder is no run folder.
    """
    from mmcl.engine.parsing import parse

    saved = folder / "config.yaml"
    if not saved.is_file():
        raise UserError(f"{folder} is no run folder (no config.yaml): give the --out folder of `mmcl train`")
    return parse(["--config", str(saved)], complete=True)
