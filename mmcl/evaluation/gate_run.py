"""Does a gate run belong to the model that it is to serve? Trained alike, on the same clips, to the end."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from mmcl.common.documents import read_mapping
from mmcl.common.errors import UserError
from mmcl.common.options import differences
from mmcl.data.protocols import load_protocol
from mmcl.data.rules import Protocol
from mmcl.engine.config import FREE_KEYS
from mmcl.models.folder import SavedModel, find_model
from mmcl.models.model import Model
from mmcl.models.vocabulary import Vocabulary

# What may differ: the seed, the classes, and what changes no weight. What prompts say is compared, not their name.
FREE = FREE_KEYS | {"seed", "data.protocol", "data.prompts"}


def find_gate_run(path: Path, model: Model, rule: Protocol, name: str, which: str = "last") -> SavedModel:
    """A run whose calibration clips the gate of a model may be fitted on.

    Args:
        path: run folder, or one of its checkpoints.
        model: that is judged.
        rule: the open-vocabulary protocol that it is judged by.
        name: of the protocol, as its user calls it.
        which: checkpoint of the run.

    Raises:
        UserError: naming what differs, or that the run is not complete.
    """
    gate = find_model(path, None if which == "last" else which)
    if gate.checkpoint is None:
        raise UserError(f"{path} is a bundle: the gate is fitted on a run folder, that of a run of '{name}/gate'")
    protocol = gate.description.provenance["protocol"]
    if replace(load_protocol(protocol), name="") != replace(rule.on_gate(), name=""):
        raise UserError(
            f"{path} is a run of '{protocol}', and no run of '{name}/gate', which the gate must be fitted on"
        )
    if not gate.description.provenance["complete"]:
        raise UserError(f"{path} is not complete: go on with it first, `mmcl train` --resume=true")
    own = _run_settings(gate.path, gate.description.provenance)
    assert model.path is not None
    if (model.path / "config.yaml").is_file():
        judged = _run_settings(model.path, model.description.provenance)
    else:
        judged = _bundle_settings(model, own)
    for key, one, two in differences(judged, own):
        alike = key == "start.checkpoint" and _trained_alike(one, two)
        if not (key in FREE or alike):
            raise UserError(
                f"{path} was not trained as {model.path} was: {key} is {two} there and {one} here; train the gate's "
                "run with the same configuration but for out, seed and protocol"
            )
    return gate


def check_same_words(gate: SavedModel, names: Sequence[str], own: Vocabulary, judged: Vocabulary) -> None:
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
        {"text model": dict(side.text), "text head": _compared(side)} for side in (judged, own)
    ]
    if "control" not in gate.description.provenance:  # by the run's seed, which may differ
        for name in names:
            labels = [side.label_of(name) for side in (judged, own)]
            if None not in labels:
                for words, side, label in zip(sides, (judged, own), labels, strict=True):
                    words[f"the text of '{name}'"] = side.words.texts(label or 0)
    for key, one, two in differences(sides[0], sides[1]):
        raise UserError(f"{gate.path} was not trained with the model's texts: {key} is {two} there and {one} here")


def _compared(vocabulary: Vocabulary) -> dict[str, Any]:
    """Name and options of a vocabulary's head, without those that follow from a protocol's classes."""
    head: dict[str, Any] = vocabulary.facts["head"]
    left_out = vocabulary.head.uncompared
    return {**head, "options": {key: value for key, value in head["options"].items() if key not in left_out}}


def _trained_alike(one: str | None, two: str | None) -> bool:
    """Whether both runs started from runs that were trained alike, each on the classes of its own protocol."""
    settings = []
    for path in (one, two):
        try:
            start = find_model(path or "")
        except UserError:  # none, or it is gone, so that nothing is known of it
            return False
        if start.checkpoint is None:
            return False
        settings.append(_run_settings(start.path, start.description.provenance))
    return all(key in FREE for key, _, _ in differences(settings[0], settings[1]))


def _run_settings(folder: Path, provenance: Mapping[str, Any]) -> dict[str, Any]:
    """How a run was trained: its configuration, and its clips."""
    settings = read_mapping(folder / "config.yaml")
    return {**settings, "trained on data": provenance.get("data_fingerprint")}


def _bundle_settings(model: Model, gate: Mapping[str, Any]) -> dict[str, Any]:
    """How the run of a bundle was trained; what a bundle does not say is taken to be as in the gate's run."""
    description, done = model.description, model.description.provenance
    said: dict[str, dict[str, Any]] = {
        "encoder": {"name": description.encoder.name, **_as_given(description.encoder.options, gate["encoder"])},
        "preprocess": _as_given(description.preprocess, gate["preprocess"]), "task": {"name": done.get("task")},
        "schedule": {"epochs": done.get("epochs")},
        "start": {"checkpoint": _entry(done.get("started_from") or "", "checkpoint")},
        "data": {"shots": _entry(done.get("shots") or 0, "clips_a_class")},
    }  # fmt: skip
    sections = {
        section: {**gate[section], **{key: value for key, value in known.items() if value is not None}}
        for section, known in said.items()
    }
    data = done.get("data_fingerprint") or gate["trained on data"]
    changed = [asdict(operation) for operation in description.surgeries]
    settings = {**gate, **sections, "trained on data": data, "surgeries": changed, "adapted": done.get("adapted")}
    plain: dict[str, Any] = json.loads(json.dumps(settings))
    return plain


def _as_given(came_to: Mapping[str, Any], gate: Mapping[str, Any]) -> dict[str, Any]:
    """What options came to, but for those that a run leaves to its data, since a bundle has no such word."""
    return {key: value for key, value in came_to.items() if gate.get(key) is not None}


def _entry(said: Any, key: str) -> Any:
    """An entry of a record, or what stands in its place."""
    return said.get(key) if isinstance(said, Mapping) else said
