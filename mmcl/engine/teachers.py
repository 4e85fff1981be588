"""Opening the teachers of a run (``distil.teacher``), and refusing those that must not teach it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from mmcl.common.errors import UserError
from mmcl.data.split import Split
from mmcl.data.store import ClipStore
from mmcl.engine.config import TrainConfig
from mmcl.models.description import read_description
from mmcl.models.folder import SavedModel, find_model
from mmcl.models.learned import known_clips, record_of
from mmcl.models.record import Record
from mmcl.models.run_checkpoints import RUN_MODEL
from mmcl.tasks.base import Task
from mmcl.tasks.distil import Teachers


def open_teachers(
    config: TrainConfig, store: ClipStore, split: Split, task: Task, device: torch.device
) -> Teachers:  # fmt: skip
    """Load the models that ``distil.teacher`` names.

    Args:
        config: of the run.
        store: its clips, whose joints the teachers are shown.
        split: of the clips.
        task: the student; built, so that loading teachers changes nothing of its random weights.
        device: where the teachers work.

    Raises:
        UserError: the task trains no classifier; a teacher is missing or holds graphs alone, has other classes, cannot
            take these joints, or knows clips that its student will be judged by; or the run to be resumed had another.
    """
    _check_student(config, split, task)
    class_names = [store.class_names[label] for label in split.classes]
    found = [find_model(path) for path in config.distil.teachers]
    for path, saved in zip(config.distil.teachers, found, strict=True):
        _check_classes(path, saved, class_names)
        _check_clips(path, saved, store, split, config.data.protocol)
    records = [_record(saved) for saved in found]
    _check_resumed(config, records)
    models = [saved.load(store.layout, device) for saved in found]
    for path, model in zip(config.distil.teachers, models, strict=True):
        try:
            config.augmentation.check(model.preprocess.target, model.preprocess.options.timing)
        except UserError as error:
            raise UserError(f"distil.teacher {path} cannot be shown clips as they are varied: {error}") from error
    words = [_words(path, saved) for path, saved in zip(config.distil.teachers, found, strict=True)]
    return Teachers(models, config.distil, words, records)


def _check_student(config: TrainConfig, split: Split, task: Task) -> None:
    """Whether there are scores of classes that a teacher could be compared with, all along."""
    if not task.classifies or not any(parameter.requires_grad for parameter in task.encoder.parameters()):
        raise UserError(f"task {config.task_name} trains no classifier: distil.teacher has nothing to teach it")
    if split.stream:
        raise UserError(
            f"classes of {config.data.protocol} arrive in parts: a distil.teacher that knows them all would tell of "
            "those that are still to come"
        )


def _check_classes(path: str, saved: SavedModel, class_names: list[str]) -> None:
    """Whether a teacher's outputs stand for the student's classes."""
    if saved.graphs_only:
        raise UserError(f"distil.teacher {path} holds ONNX graphs alone, which no varied clip can be shown to: give a "
                        "run, or a bundle with its weights")  # fmt: skip
    names = saved.description.class_names
    if saved.description.provenance.get("untrained_classifier"):
        raise UserError(f"distil.teacher {path} has never trained a classifier")
    if names != class_names:
        lengths = (f"{len(names)} classes", f"{len(class_names)} classes")
        its, own = next(((a, b) for a, b in zip(names, class_names, strict=False) if a != b), lengths)
        raise UserError(
            f"distil.teacher {path} has other classes than the run, or another order ({its} instead of {own}): names "
            "must agree, in order"
        )


def _check_clips(path: str, saved: SavedModel, store: ClipStore, split: Split, protocol: str) -> None:
    """Whether a teacher, or a model that it comes from, knows clips that the student will be judged by.

    What a teacher says of training clips depends on all that it has learned: through it, a test clip would have a part
    in the student's weights. Validation clips may have chosen a checkpoint of the teacher, as they do of the student.
    """
    record = record_of(saved.description, saved.path)
    for side, clips, chosen in (
        ("tests", np.concatenate([split.test, split.unseen]), True), ("is validated", split.validation, False)
    ):  # fmt: skip
        trained, selected = known_clips(clips, store, record)
        if trained or (chosen and selected):
            how = f"has learned from {trained}" if trained else f"may have been chosen by {selected}"
            raise UserError(
                f"distil.teacher {path} {how} of the {len(clips)} clips by which {protocol} {side}: its student would "
                "be judged by what it was told; train a teacher by the same protocol and data.validation"
            )


def _record(saved: SavedModel) -> Record:
    """What a teacher learned from, with the digest of the weights that it teaches with."""
    return replace(record_of(saved.description, saved.path), weights=saved.network)


def _check_resumed(config: TrainConfig, records: list[Record]) -> None:
    """Whether the teachers of a run that goes on are those that it was begun with."""
    begun = Path(config.out) / RUN_MODEL
    if not config.resume or not begun.is_file():
        return
    before = record_of(read_description(begun), begun).parents[-len(records) :]
    for path, record, old in zip(config.distil.teachers, records, before, strict=True):
        if record.weights != old.weights:
            raise UserError(
                f"cannot resume {config.out}: distil.teacher {path} is not what it was when the run was begun; put it "
                "back, or choose another --out"
            )


def _words(path: str, saved: SavedModel) -> str:
    """What a teacher is, for people."""
    description = saved.description
    streams = description.preprocess.get("streams") or [description.preprocess.get("stream")]
    facts = [
        description.encoder.name, " + ".join(str(stream) for stream in streams),
        f"{description.counts.get('parameters', 0):,} parameters", description.provenance.get("selection"),
    ]  # fmt: skip
    if not record_of(description, saved.path).protocol:
        facts.append("what it learned from is not known")
    return f"{path} ({', '.join(str(fact) for fact in facts if fact)})"
