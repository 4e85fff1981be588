"""Trackers of a run (TensorBoard, W&B, MLflow, …): one project, a run called by its folder, its settings one by one."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from mmcl.common.documents import read_json
from mmcl.common.errors import UserError
from mmcl.common.files import write_json
from mmcl.engine.config import TrainConfig

PROJECT = "mmcl"
RECORD = "tracked.json"  # under which names trackers know the run, so that one that is resumed goes on in them


def begin_tracking(accelerator: Accelerator, config: TrainConfig) -> None:
    """Start the trackers that a run asks for.

    Args:
        accelerator: of the run; its main process writes.
        config: of the run; its folder is there already.
    """
    import yaml

    names = config.engine.trackers
    if not names:
        return
    folder = Path(config.out)
    known = _known(folder)
    begun = bool(known)
    own: dict[str, dict[str, Any]] = {}
    if "wandb" in names:
        known.setdefault("wandb", uuid.uuid4().hex)
        own["wandb"] = {"name": config.out, "id": known["wandb"], "resume": "allow", "dir": config.out}
    if "mlflow" in names:
        own["mlflow"] = {"run_name": config.out, "run_id": known.get("mlflow")}
    settings = dict(flat(yaml.safe_load(config.text)))
    # MLflow refuses settings that change, and some may when a run is resumed.
    accelerator.init_trackers(PROJECT, config=None if begun else settings, init_kwargs=own)
    if accelerator.is_main_process and own:
        if "mlflow" in names:  # its server makes the name up
            known["mlflow"] = accelerator.get_tracker("mlflow").tracker.info.run_id
        write_json(folder / RECORD, known)


def flat(settings: Mapping[str, Any], key: str = "") -> Iterator[tuple[str, str | float | bool]]:
    """Nested settings one by one: dotted key, and a value that every tracker takes."""
    for name, value in settings.items():
        dotted = f"{key}.{name}" if key else name
        if isinstance(value, Mapping) and value:
            yield from flat(value, dotted)
        else:
            yield dotted, value if isinstance(value, str | int | float) else json.dumps(value)


def _known(folder: Path) -> dict[str, str]:
    """What trackers called the run when it was begun."""
    record = folder / RECORD
    found = read_json(record) if record.is_file() else {}
    if not isinstance(found, dict):
        raise UserError(f"{record} is damaged: delete it, and trackers begin a new run")
    return found
