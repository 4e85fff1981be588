"""Starting from a trained skeleton branch: what of it fits, what is loaded, and what is trained on.

Resuming goes by the run's own checkpoints; the source only has to be the same as it was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from mmcl.common.documents import read_json
from mmcl.common.errors import UserError
from mmcl.common.files import write_json
from mmcl.encoders.base import Encoder
from mmcl.engine.config import TrainConfig
from mmcl.engine.configuring import dotted, encoder_options_of, layout_key, same_joints
from mmcl.engine.setup import Experiment
from mmcl.models.folder import SavedModel, find_model
from mmcl.models.learned import record_of
from mmcl.models.record import Record
from mmcl.skeletons.preprocess_options import PreprocessOptions
from mmcl.tasks import TASKS

RECORD = "start.json"  # in the run folder: what was loaded


def start(config: TrainConfig, data: Experiment, encoder: Encoder) -> dict[str, Any] | None:
    """Fill an encoder from ``start.checkpoint``, and freeze what is not to be trained.

    Returns:
        What was loaded and what was not, in words, and ``lessons``; None where no checkpoint is named.

    Raises:
        UserError: no such checkpoint, it does not fit, or it is another one than when the run was begun.
    """
    if not config.start.checkpoint:
        return None
    if config.start.train == "head" and not TASKS[config.task_name].classifies:
        raise UserError(
            f"start.train=head trains the classifier alone, and task {config.task_name} trains none: leave it out"
        )
    source = find_model(config.start.checkpoint)
    words = _load(config, source, data.class_names, encoder) if config.start.weights else {"loaded": "no weights"}
    if config.start.train == "head":
        encoder.freeze_features()
    facts = {
        "checkpoint": config.start.checkpoint,
        "trained_on": source.description.provenance.get("dataset") or "unknown (the checkpoint does not say)",
        **words,
        "trained": "the classifier alone" if config.start.train == "head" else "all of it",
        **_changed(config, source),
        "sha256": file_digest(source),
    }
    record = Path(config.out) / RECORD
    if config.resume and record.is_file() and read_json(record) != facts:
        raise UserError(f"cannot resume: {config.start.checkpoint} is not what it was when the run was begun")
    return facts


def file_digest(source: SavedModel) -> str:
    """sha256 of a model's file of weights, as a run records what it started from."""
    return hashlib.sha256(source.weights.read_bytes()).hexdigest()


def _load(config: TrainConfig, source: SavedModel, class_names: list[str], encoder: Encoder) -> dict[str, str]:
    """Load what fits; the classifier only where it was trained, for the same classes in the same order."""
    tensors, others = source.encoder_tensors()
    new = _new_classifier(source, class_names, encoder, tensors)
    if new:
        tensors = {name: tensor for name, tensor in tensors.items() if not encoder.in_head(name)}
    _check_fit(config, source, tensors, encoder, bool(new))
    encoder.load_state_dict(tensors, strict=False)
    return {
        "loaded": f"{len(tensors)} tensors of the encoder",
        "not_loaded": f"{others} tensors of what helped it learn" if others else "nothing, there was no more",
        "classifier": new or f"its own {len(class_names)} classes",
    }


def parent_records(config: TrainConfig) -> list[Record]:
    """What the model that a run starts from had learned from; none where its weights are not taken."""
    if not (config.start.checkpoint and config.start.weights):
        return []
    source = find_model(config.start.checkpoint)
    return [replace(record_of(source.description, source.path), weights=source.network)]


def _new_classifier(
    source: SavedModel, class_names: list[str], encoder: Encoder, tensors: Mapping[str, Tensor]
) -> str:  # fmt: skip
    """Why the classifier is new, in words; empty where it is the source's."""
    names, count = source.description.class_names, len(class_names)
    if names != class_names:
        return f"new, for {count} classes that are not its {len(names)}"
    if source.description.provenance.get("untrained_classifier"):
        return f"new, for {count} classes: the source has trained none"
    own, given = (
        {name: tensor.shape for name, tensor in state.items() if encoder.in_head(name)}
        for state in (encoder.state_dict(), tensors)
    )
    return "" if own == given else f"new, for the same {count} classes: the source's is of another form"


def write_start(facts: Mapping[str, Any], folder: Path) -> None:
    """Keep in the run folder what was started from."""
    write_json(folder / RECORD, dict(facts))


def _changed(config: TrainConfig, source: SavedModel) -> dict[str, str]:
    """Preprocessing and options that fit, but are not those the encoder was trained with."""
    now = {"preprocess": asdict(config.preprocess), "encoder": asdict(config.encoder)}
    preprocess = PreprocessOptions.from_dict(source.description.preprocess, f"{source.path} preprocess")
    before = {"preprocess": asdict(preprocess), "encoder": asdict(encoder_options_of(source))}
    words = [
        f"{section}.{key} {before[section][key]} -> {value}"
        for section in now
        for key, value in now[section].items()
        if key in before[section] and before[section][key] != value
    ]
    return {"changed": ", ".join(words)} if words else {}


def _check_fit(
    config: TrainConfig, source: SavedModel, tensors: Mapping[str, Tensor], encoder: Encoder, fresh: bool
) -> None:  # fmt: skip
    own = {name: t for name, t in encoder.state_dict().items() if not (fresh and encoder.in_head(name))}
    fits = own.keys() == tensors.keys() and all(own[name].shape == tensors[name].shape for name in own)
    name, target = source.description.encoder.name, source.description.encoder_layout
    same = same_joints(encoder.layout, target)
    if fits and config.encoder_name == name and same:
        return
    layout = layout_key(target) or f"'{target.name}' (give its .yaml)"
    was = {"encoder.name": name, **dotted(encoder_options_of(source)), "data.layout": layout}
    now = {"encoder.name": config.encoder_name, **dotted(config.encoder)}
    now["data.layout"] = layout if same else encoder.layout.name
    pairs = ", ".join(f"--{key}={was[key]} (now {now[key]})" for key in was if key in now and was[key] != now[key])
    if not pairs:
        raise UserError(f"{source.weights} is damaged: its tensors are not those of the encoder it says it is")
    raise UserError(
        f"the encoder is not that of start.checkpoint {config.start.checkpoint}, which fits {pairs}; keys that neither "
        "recipe nor command line gives are taken from the checkpoint"
    )
