"""Does a gate run belong to the model that it is to serve? Trained alike, on the same clips, to the end."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from mmcl.common.errors import UserError
from mmcl.data.protocols import load_protocol
from mmcl.data.rules import Protocol
from mmcl.deploy.bundle import read_config
from mmcl.deploy.vocabulary import Vocabulary
from mmcl.engine.checkpoint import find_checkpoint
from mmcl.engine.config import TrainConfig
from mmcl.engine.position import trained_data
from mmcl.engine.run_folder import differences
from mmcl.evaluation.model import Found, find_model

# What may differ: where things are, the seed, and what changes no weight. What prompts say is compared, not their name.
FREE = (
    "data.path", "data.protocol", "data.prompts", "data.workers", "data.eval_batch_size", "engine.trackers",
    "engine.log_every", "engine.checkpoint_steps",
)  # fmt: skip


def find_gate_run(path: Path, found: Found, rule: Protocol, name: str) -> Found:
    """A run whose calibration clips the gate of a model may be fitted on.

    Args:
        path: run folder, or one of its checkpoints.
        found: the model that is judged.
        rule: the open-vocabulary protocol that it is judged by.
        name: of the protocol, as its user calls it.

    Raises:
        UserError: naming what differs, or that the run is not complete.
    """
    gate = find_model(path, found.which)
    if gate.config is None:
        raise UserError(f"{path} is a bundle: the gate is fitted on a run folder, that of a run of '{name}/gate'")
    other = load_protocol(gate.config.data.protocol)
    if replace(other, name="") != replace(rule.on_gate(), name=""):
        raise UserError(
            f"{path} is a run of '{gate.config.data.protocol}', and no run of '{name}/gate', which the gate must be "
            "fitted on"
        )
    if not (gate.path / "summary.json").is_file():
        raise UserError(f"{path} is not complete (no summary.json): go on with it first, `mmcl train` --resume=true")
    own = _run_settings(gate, gate.config)
    judged = _bundle_settings(found.path, own) if found.config is None else _run_settings(found, found.config)
    for key, one, two in differences(judged, own):
        if key not in FREE:
            raise UserError(
                f"{path} was not trained as {found.path} was: {key} is {two} there and {one} here; train the gate's "
                "run with the same configuration but for out, seed and protocol"
            )
    return gate


def check_same_words(gate: Found, names: Sequence[str], own: Vocabulary, judged: Vocabulary) -> None:
    """Whether a gate run learned in the judged model's space of texts, and with the same texts.

    Args:
        gate: the run.
        names: of its classes, all of which the judged model was trained on.
        own: its vocabulary.
        judged: the model's.

    Raises:
        UserError: naming what differs.
    """
    sides: list[dict[str, Any]] = [
        {"text model": side.text, "temperature": side.temperature, "centring": side.origin is not None}
        for side in (judged, own)
    ]
    if gate.config is not None and not gate.config.data.shuffle_texts:  # by the run's seed, which may differ
        for name in names:
            labels = [side.label_of(name) for side in (judged, own)]
            if None not in labels:
                for words, side, label in zip(sides, (judged, own), labels, strict=True):
                    words[f"the text of '{name}'"] = side.words.texts(label or 0)
    for key, one, two in differences(sides[0], sides[1]):
        raise UserError(f"{gate.path} was not trained with the model's texts: {key} is {two} there and {one} here")


def _run_settings(found: Found, config: TrainConfig) -> dict[str, Any]:
    """How a run was trained: the sections of its configuration, as JSON has them, and its clips."""
    sections = {key: value for key, value in asdict(config).items() if isinstance(value, dict)}
    for section, name in (("encoder", config.encoder_name), ("task", config.task_name)):
        sections[section] = {"name": name, **sections[section]}
    data = trained_data(find_checkpoint(found.path / "checkpoints", found.which))
    settings: dict[str, Any] = json.loads(json.dumps({"trained on data": data, **sections}))
    return settings


def _bundle_settings(folder: Path, gate: Mapping[str, Any]) -> dict[str, Any]:
    """How the run of a bundle was trained; what a bundle does not say is taken to be as in the gate's run."""
    config = read_config(folder)
    done, encoder = config["provenance"], config["encoder"]
    said: dict[str, dict[str, Any]] = {
        "encoder": {"name": encoder["name"], **encoder["options"]}, "preprocess": config["preprocess"],
        "task": {"name": done.get("task")}, "schedule": {"epochs": done.get("epochs")},
        "start": {"checkpoint": _entry(done.get("started_from") or "", "checkpoint")},
        "data": {"shots": _entry(done.get("shots") or 0, "clips_a_class")},
    }  # fmt: skip
    sections = {
        section: {**gate[section], **{key: value for key, value in known.items() if value is not None}}
        for section, known in said.items()
    }
    data = done.get("data_fingerprint") or gate["trained on data"]
    return {**gate, **sections, "trained on data": data, "adapted": done.get("adapted")}


def _entry(said: Any, key: str) -> Any:
    """An entry of a record, or what an adapted bundle says in its place."""
    return said.get(key) if isinstance(said, Mapping) else said
