"""Whether a run that is complete was made of what its configuration names now: clips, sides, and what it starts from.

A run that goes on finds that out by itself. Of one that is complete, nothing is opened any more; a study that believes
it must ask.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from mmcl.common.documents import read_json
from mmcl.common.errors import UserError
from mmcl.engine.config import TrainConfig
from mmcl.engine.setup import open_data
from mmcl.engine.start import RECORD, file_digest
from mmcl.models.description import read_description
from mmcl.models.folder import find_model
from mmcl.models.learned import record_of
from mmcl.models.run_checkpoints import RUN_MODEL

KNOWN: dict[str, tuple[str, str]] = {}  # what was opened already: the runs of a study have their clips in common
ADVICE = "bring back what it was, or choose another --out"


def check_complete(config: TrainConfig) -> None:
    """Whether the complete run in ``config.out`` is that of the clips and the model which are there now.

    A store or a model that is gone says nothing, since a table can be made without it.

    Raises:
        UserError: they are others.
    """
    folder = Path(config.out)
    if not ((folder / "summary.json").is_file() and (folder / RUN_MODEL).is_file()):
        return
    record = record_of(read_description(folder / RUN_MODEL), folder)
    store, split = _clips(config)
    if record.store and store and record.store != store:
        raise UserError(f"{folder} was trained on other clips than those in {config.data.path}: {ADVICE}")
    if record.split and split and record.split != split:
        raise UserError(
            f"{folder} was trained by {config.data.protocol} when that gave other training, validation or test clips: "
            f"{ADVICE}"
        )
    if config.start.checkpoint and (folder / RECORD).is_file():
        begun, now = read_json(folder / RECORD), _weights(str(config.start.checkpoint))
        if isinstance(begun, dict) and now and begun.get("sha256", now) != now:
            raise UserError(f"{folder} started from {config.start.checkpoint} when that was another model: {ADVICE}")


def _clips(config: TrainConfig) -> tuple[str, str]:
    """Fingerprint of the store and digest of the sides; empty where they cannot be opened."""
    drawn = config.seed if config.data.shots or config.data.share < 1 else None
    key = repr((config.data, drawn, config.task_name))
    if key not in KNOWN:
        try:
            data = open_data(config)
            KNOWN[key] = data.store.fingerprint, data.split.digest
        except UserError:
            KNOWN[key] = "", ""
    return KNOWN[key]


@lru_cache(maxsize=64)
def _weights(path: str) -> str:
    """Digest of a model's file of weights; empty where there is none."""
    try:
        return file_digest(find_model(path))
    except (UserError, OSError):
        return ""
