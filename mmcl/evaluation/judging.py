"""One judgement from folder to report: what every verb that judges a model shares."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmcl.common.documents import parse_yaml
from mmcl.common.errors import UserError
from mmcl.common.files import absolute, check_replaceable
from mmcl.common.printing import complain
from mmcl.data.apply_protocol import split
from mmcl.data.protocols import load_protocol
from mmcl.data.selection import SIDES, Selection
from mmcl.data.store import open_store
from mmcl.evaluation.base import Evaluation, make_apply
from mmcl.evaluation.report import write_report
from mmcl.models.folder import SavedModel, open_model
from mmcl.models.learned import overlap
from mmcl.models.model import Model
from mmcl.models.record import tensors_digest
from mmcl.tasks.colearn.answers import read_answers

ANSWERS_SHOWN = 12  # the latest ones; their pictures stay in the run folder


def select(saved: SavedModel, data: str | None, protocol: str | None, side: str = "test") -> Selection:
    """The clips to judge a model on.

    Args:
        saved: the model; a run's data and protocol are its own where none are given.
        data: clip store.
        protocol: the rule that says which of its clips.
        side: test, validation, train or unseen.

    Raises:
        UserError: nothing says which store or protocol, or that side comes out empty.
    """
    own = saved.description.provenance
    if saved.checkpoint is not None:
        data, protocol = data or own.get("data"), protocol or own.get("protocol")
    if data is None or protocol is None:
        raise UserError(f"{saved.path} is a bundle: say what to judge it on with --data and --protocol")
    store, rule = open_store(data), load_protocol(protocol)
    trained_by = (own.get("protocol"), own.get("data_fingerprint")) == (protocol, store.fingerprint)
    held = own.get("validation") if trained_by else None
    needed = {"train": ["train"], "test": ["test"], "unseen": ["train", "test"]}.get(side, [])
    return Selection(store, protocol, rule, split(store, rule, held or None, needed=needed), side, held or None)


def select_for(
    evaluation: Evaluation, saved: SavedModel, data: str | None, protocol: str | None, side: str = "test"
) -> Selection:
    """The clips that an evaluation is meant for; arguments as for :func:`select`.

    Raises:
        UserError: as :func:`select`; or a whole store is judged, and none is given.
    """
    if evaluation.judges != "store":
        return select(saved, data, protocol, "unseen" if evaluation.judges == "withheld" else side)
    if data is None:
        raise UserError(f"'{evaluation.name}' judges a model on all clips of a store: say which with --data")
    return Selection(open_store(data))


def judge(
    saved: SavedModel, data: Selection, evaluation: Evaluation, out: Path, device: torch.device, batch_size: int = 64,
    turning: int = 0, video: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Judge a model and write the report; notes about what must be known of it go to standard error.

    Args:
        saved: the model.
        data: the clips.
        evaluation: how.
        out: report folder; an older report there is replaced.
        device: where the model runs.
        batch_size: clips at once.
        turning: of so many wrong clips, write a page on which they can be turned.
        video: draw wrong clips on the pictures of their video.

    Returns:
        The content of ``report.json``.

    Raises:
        UserError: the model or the clips cannot be judged so, or ``out`` holds something else.
    """
    check_replaceable(out, "report.json")
    model = open_model(saved.path if saved.checkpoint is None else saved.checkpoint, layout=data.store.layout,
                       device=device)  # fmt: skip
    verdict = evaluation.run(model, data, make_apply(data.store, device, batch_size, progress=True))
    facts: dict[str, Any] = {
        "evaluation": evaluation.name, "data": data.store.location,
        "data_fingerprint": data.store.fingerprint, **model_facts(model),
    }  # fmt: skip
    if data.split is not None:
        own: dict[str, Any] = {"protocol": data.protocol}
        if data.side in SIDES:
            own |= {"split": data.side, "held_out": data.held_out}
        facts = {**{key: value for key, value in own.items() if key not in verdict.facts}, **facts}
        record, facts["split_digest"] = model.record, data.split.digest
        judged = data.clips if data.side in SIDES else np.concatenate([data.split.test, data.clips])
        facts["learned_from"] = ", ".join(filter(None, dict.fromkeys(one.protocol for one in record.lineage()))) or None
        own_side = data.side in ("train", "validation")  # of these it is known that the model has seen them
        facts["warning"] = None if own_side else overlap(judged, data.store, record) or None
    if saved.checkpoint is not None and (said := read_answers(saved.path)):
        facts["answers_of_the_language_model"] = said[-ANSWERS_SHOWN:]
    notes = [verdict.facts.get("note"), *_changes(model, data)]
    facts["note"] = "; ".join(filter(None, notes)) or None
    for word in filter(None, (facts["note"], facts.get("warning"))):
        complain("note", word)
    return write_report(out, verdict, facts, data.store, evaluation, turning, video)


def _changes(model: Model, data: Selection) -> list[str]:
    """What has changed since a model was trained, where it is judged on its own store or by its own protocol."""
    own, store, record = model.description.provenance, data.store, model.record
    path, known = own.get("data"), own.get("data_fingerprint")
    same_place = path is not None and absolute(path) == absolute(store.location)
    if same_place and known not in (None, store.fingerprint):
        return [f"{store.location} is not what it was when the model was trained: its content has changed"]
    same_rule = (record.protocol, record.store) == (data.protocol, store.fingerprint)
    if same_rule and data.split is not None and record.test_side not in ("", data.split.test_digest):
        return [f"{data.protocol} has another test side than when the model was trained"]
    return []


def model_facts(model: Model) -> dict[str, Any]:
    """What a report says of a model: where it is, how it was trained and chosen, what it went through since."""
    description = model.description
    done = description.provenance
    kept = {key: done[key] for key in ("selection", "task", "seed", "control") if done.get(key) is not None}
    start = done.get("started_from")
    if isinstance(start, dict):
        part = "head" if start.get("trained") == "the classifier alone" else "all"
        random = " (its shape alone, random weights)" if start.get("loaded") == "no weights" else ""
        kept |= {"started_from": f"{start.get('checkpoint')}{random}", "trained_part": part}
    shots = done.get("shots")
    return {
        "checkpoint": str(done.get("checkpoint") or model.path), "network": network_of(model), **kept,
        **({"shots": shots.get("clips_a_class") if isinstance(shots, dict) else shots} if shots else {}),
        **({"changed_by": [operation.name for operation in description.surgeries]} if description.surgeries else {}),
        "stream": ", ".join(_listed(description.preprocess.get("streams", description.preprocess.get("stream")))),
    }  # fmt: skip


def network_of(model: Model) -> str:
    """Digest of a model's tensors, which its bundle's record has, too; of graphs alone, that of their network."""
    if isinstance(model, Model):
        return tensors_digest(model.encoder.state_dict())
    return model.record.weights


def _listed(value: Any) -> list[str]:
    return [str(entry) for entry in value] if isinstance(value, list) else [str(value)]


def report_folder(saved: SavedModel, data: Selection, evaluation: str) -> Path:
    """Where a report goes by default.

    ``report-SIDE`` of a run is what it was trained for; a report by another evaluation, by another rule, or of other
    clips, says so in its name.
    """
    name = data.side if evaluation == "top1" else f"{evaluation}-{data.side}"
    if data.protocol is None:
        return saved.report_folder(evaluation, [data.store.fingerprint])
    if saved.is_own(data.protocol, data.store.location):
        return saved.report_folder(name)
    protocol = data.protocol
    stem = Path(protocol).stem if protocol.endswith((".yaml", ".yml")) else protocol
    words = re.sub(r"\W+", "-", stem).strip("-")
    return saved.report_folder(f"{name}-{words}", [protocol, data.store.fingerprint])


def option_words(words: list[str]) -> dict[str, Any]:
    """``KEY=VALUE`` words as options; a value is YAML.

    Raises:
        UserError: a word of another form.
    """
    options: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        options[key] = parse_yaml(value, f"--option {word}")
        if not equals or not key:
            raise UserError(f"--option {word}: write KEY=VALUE")
    return options
