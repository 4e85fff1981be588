"""What a run says of itself: the lines it opens with, and ``summary.json`` at its end."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

from mmcl import __version__
from mmcl.common.device import computes_bf16
from mmcl.common.files import write_json
from mmcl.common.options import without
from mmcl.data.thinning import short_classes
from mmcl.engine.config import FREE_KEYS, TrainConfig
from mmcl.engine.loop import Loop
from mmcl.engine.setup import Experiment, names_alone, run_texts
from mmcl.engine.start import parent_records
from mmcl.models.bundle import describe
from mmcl.models.description import Description
from mmcl.models.record import Record
from mmcl.models.vocabulary import Vocabulary
from mmcl.tasks.base import Task


def opening(config: TrainConfig, loop: Loop, begun: dict[str, Any] | None) -> str:
    """What a run tells before its first step: data, processes, towers, where it starts from (``begun``)."""
    split, accelerator = loop.data.split, loop.accelerator
    lines = [
        f"{config.task_name} training of {config.encoder_name} on {loop.data.store.title}, {config.data.protocol}: "
        f"{len(split.train)} train / {len(split.validation)} validation clips (test is not touched)",
        f"{accelerator.num_processes} process(es) on {accelerator.device.type}, {config.engine.precision}",
        _length(config, loop),
        *(f"left out: {words}" for words in config.notes),
        *(f"from the clips: {words}" for words in config.derived),
        *(f"{name}: {words}" for name, words in loop.task.helpers().items()),
    ]
    if config.schedule.warmup_epochs >= config.schedule.epochs:
        lines.append(
            f"schedule.warmup_epochs is {config.schedule.warmup_epochs:g} of {config.schedule.epochs} epochs: the rate "
            "rises until the end"
        )
    persons = loop.task.preprocess.persons
    if crowded := int((loop.data.store.bodies[split.train] > persons).sum()):
        lines.append(
            f"{crowded} of {len(split.train)} training clips show more people than encoder.persons ({persons}): "
            "only the first are looked at"
        )
    if config.engine.precision == "bf16" and not computes_bf16(accelerator.device):
        lines.append("this processor has no bf16 arithmetic: --engine.precision=fp32 would be several times faster")
    if loop.data.texts is not None and names_alone(config, loop.data.store):
        lines.append(
            "of the classes, texts know the names alone: --data.prompts=FILE.yaml says more (docs/own-data.md)"
        )
    if config.data.require_video:
        lines.append(f"of {loop.data.training_side} training clips, those that have pictures (data.require_video)")
    if config.data.shots:
        short = ", ".join(f"{name} {count}" for name, count in _shots(config, loop.data)["fewer"].items())
        lines.append(
            f"{config.data.shots} training clips a class, drawn by seed {config.seed}"
            + (f"; classes that have fewer: {short}" if short else "")
        )
    if begun is not None:
        told = {key: value for key, value in begun.items() if key not in ("checkpoint", "sha256", "lessons")}
        words = [f"{key.replace('_', ' ')}: {value}" for key, value in told.items()]
        lines.append(f"start: {begun['checkpoint']} ({'; '.join(words)})")
    if loop.position.steps:
        stage = f", stage {loop.current.stage.name}" if len(loop.plan) > 1 else ""
        lines.append(f"resuming at step {loop.position.steps} (epoch {loop.position.epochs + 1}{stage})")
    return "\n".join(lines)


def _length(config: TrainConfig, loop: Loop) -> str:
    """How long the run is, stage by stage where there are several."""
    plan, clips = loop.plan, f"of {config.data.batch_size} clips"
    if len(plan) == 1:
        return f"{plan[0].steps} steps an epoch {clips}, {plan.epochs} epochs"
    stages = ", ".join(f"{one.stage.name} {one.epochs} x {one.steps} steps" for one in plan)
    return f"{plan.steps} steps {clips} in {len(plan)} stages: {stages}"


def _shots(config: TrainConfig, data: Experiment) -> dict[str, Any]:
    """How few training clips a class there are, by which draw, and where there are even fewer."""
    fewer = short_classes(data.split, data.store, config.data.shots)
    return {"clips_a_class": config.data.shots, "seed": config.seed, "fewer": fewer}


def _that_counts(config: TrainConfig) -> dict[str, Any]:
    """A configuration as mappings, without what changes no result."""
    import yaml

    return without(yaml.safe_load(config.text), FREE_KEYS)


def describe_run(config: TrainConfig, data: Experiment, task: Task, begun: dict[str, Any] | None) -> Description:
    """What a run trains, for ``model.json``: written when it begins, and true for all of its checkpoints.

    Args:
        config: of the run.
        data: clips and texts.
        task: before it is wrapped.
        begun: what it starts from, if anything.
    """
    store, head = data.store, task.text_head
    teachers = [] if task.teachers is None else task.teachers.records
    provenance = {
        "dataset": store.dataset, "protocol": config.data.protocol, "data_fingerprint": store.fingerprint,
        "data": config.data.path, "validation": dict(config.data.validation) or None, "task": config.task_name,
        "helped_by": task.helpers() or None, "started_from": begun,
        "shots": _shots(config, data) if config.data.shots else None, "epochs": config.schedule.epochs,
        "seed": config.seed, "share": config.data.share if config.data.share < 1 else None,
        "untrained_classifier": None if task.classifies else True,
        **({"control": "every class was given the text of another one"} if config.data.shuffle_texts else {}),
    }  # fmt: skip
    record = Record.of(
        store, data.split, config.data.protocol, None if data.texts is None else data.texts.content(),
        _that_counts(config), parents=[*parent_records(config), *teachers],
    )  # fmt: skip
    vocabulary = None
    if head is not None:
        texts = data.texts or run_texts(config, Path(config.out), store)[0]
        vocabulary = Vocabulary(head, texts.templates, words=texts)
    description = describe(
        config.encoder_name, task.encoder, task.preprocess, data.class_names, provenance, vocabulary, config.surgeries,
        record.to_json(), count=False,
    )  # fmt: skip
    parameters = sum(parameter.numel() for parameter in task.encoder.parameters())
    return description.changed(counts={"parameters": parameters})


def write_summary(config: TrainConfig, loop: Loop, folder: Path, seconds: float, begun: dict[str, Any] | None) -> None:
    """Write ``summary.json`` of a run that is complete.

    Args:
        config: of the run.
        loop: after its last step.
        folder: of the run.
        seconds: that this session took.
        begun: what it started from (:func:`mmcl.engine.start.start`), if anything.
    """
    store, split, position = loop.data.store, loop.data.split, loop.position
    summary: dict[str, Any] = {
        "protocol": config.data.protocol,
        "data": {"path": store.location, "title": store.title, "fingerprint": store.fingerprint},
        "clips": {
            "train": len(split.train),
            "validation": len(split.validation),
            "training_side": loop.data.training_side,
        },
        "class_names": loop.data.class_names,
        "shots": _shots(config, loop.data) if config.data.shots else None,
        "start": begun,
        "selection": "last epoch",
        "epochs": position.epochs,
        "steps": position.steps,
        "stages": [
            {"name": one.stage.name, "epochs": one.epochs, "steps": one.epochs * one.steps, "clips": len(one.clips)}
            for one in loop.plan
        ],
        "seed": config.seed,
        "processes": loop.accelerator.num_processes,
        "device": loop.accelerator.device.type,
        "seconds_this_session": round(seconds, 1),
        "validation": {"metric": position.metric, "last": position.last, "best": position.best}
        if len(split.validation)
        else None,
        "encoder_parameters": sum(parameter.numel() for parameter in loop.task.encoder.parameters()),
        "loaded": loop.task.helpers(),
        "versions": {"mmcl": __version__, **{name: version(name) for name in ("torch", "accelerate")}},
    }
    write_json(folder / "summary.json", summary)
