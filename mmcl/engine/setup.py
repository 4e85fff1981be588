"""From a configuration to the objects of a run: clips, split, encoder, task. Used by training, evaluation, export."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path

import torch

from mmcl.common.errors import UserError
from mmcl.data.apply_protocol import split
from mmcl.data.class_texts import Prompts, plain_prompts
from mmcl.data.prompts import load_prompts, prompt_names
from mmcl.data.protocols import load_protocol
from mmcl.data.split import Split
from mmcl.data.store import ClipStore, open_store
from mmcl.data.thinning import draw_share, draw_shots
from mmcl.encoders.base import Encoder
from mmcl.encoders.building import build_encoder
from mmcl.engine.config import TrainConfig
from mmcl.engine.plan import Plan
from mmcl.engine.run_folder import check_texts, recorded_texts
from mmcl.engine.teachers import open_teachers
from mmcl.models.record import digest_of
from mmcl.skeletons.layout import Layout, load_layout
from mmcl.skeletons.preprocess import Preprocess
from mmcl.surgery import SURGERIES
from mmcl.tasks import TASKS
from mmcl.tasks.base import Task
from mmcl.tasks.context import Context


@dataclass
class Experiment:
    """The data side of a run.

    Attributes:
        store: the clips.
        split: which of them train and which test.
        training_side: clips of the protocol's training side that may train, before shots are drawn of them.
        texts: what is said about all of the store's classes, once the task has asked for it.
    """

    store: ClipStore
    split: Split
    training_side: int
    texts: Prompts | None = None

    @property
    def class_names(self) -> list[str]:
        """Names of the K classes that are trained, in the order of a model's outputs."""
        return [self.store.class_names[label] for label in self.split.classes]

    def digest(self, plan: Plan) -> str:
        """SHA-256 over the clips of every side, their outputs, and which of them each stage trains on."""
        return digest_of([self.split.digest, plan.digest])


def open_data(config: TrainConfig) -> Experiment:
    """Open the store and apply the protocol; of the training side, only what is asked for: with pictures, shots, share.

    Raises:
        UserError: no store, no such protocol, an empty side.
    """
    store, shots, share = open_store(config.data.path), config.data.shots, config.data.share
    least = 2 if TASKS[config.task_name].classifies else 1  # without labels, there may be nothing to tell apart
    sides = split(store, load_protocol(config.data.protocol), config.data.validation, classes=least)
    count = len(sides.train)
    if config.data.require_video:
        seen = sides.train[store.video_frames[sides.train] > 0]
        if not len(seen):
            raise UserError(f"data.require_video: none of the {count} training clips in {store.location} has pictures")
        sides = replace(sides, train=seen)
    if shots:
        sides = draw_shots(sides, store, shots, config.seed)
    if share < 1:
        sides = draw_share(sides, share, config.seed)
    return Experiment(store, sides, count)


def target_layout(config: TrainConfig, source: Layout) -> Layout:
    """The layout the encoder works on."""
    return load_layout(config.data.layout) if config.data.layout else source


def build_skeleton_branch(config: TrainConfig, store: ClipStore, classes: int) -> tuple[Encoder, Preprocess]:
    """The encoder and what comes before it: all that is left after training."""
    target = target_layout(config, store.layout)
    prepared = replace(config.preprocess, dimensions=config.preprocess.dimensions or store.dimensions)
    preprocess = Preprocess(store.layout, target, config.encoder.persons, prepared)
    options = replace(config.encoder, channels=preprocess.channels)
    encoder = build_encoder(config.encoder_name, target, classes, options)
    for operation in config.surgeries:
        encoder = SURGERIES[operation.name].rebuild(encoder, operation.structure)
    return encoder, preprocess


def task_prompts(config: TrainConfig, store: ClipStore) -> Prompts:
    """The text that goes with all of a store's classes, as the prompts file has it now; else their names alone.

    Raises:
        UserError: no such prompts, or their classes are not the store's.
    """
    if names_alone(config, store):
        plain = plain_prompts(store.dataset, store.class_names)
        return plain.shuffled(config.seed) if config.data.shuffle_texts else plain
    name = config.data.prompts or store.dataset
    prompts = load_prompts(name)
    if list(prompts.names) != list(store.class_names):
        pairs = enumerate(zip_longest(prompts.names, store.class_names, fillvalue="none"))
        at, (theirs, ours) = next((at, pair) for at, pair in pairs if pair[0] != pair[1])
        raise UserError(
            f"prompts '{name}' list {len(prompts.names)} classes that are not those of {store.location} "
            f"({len(store.class_names)}): class names must agree, in order, and class {at} is '{theirs:.60}' there and "
            f"'{ours:.60}' here"
        )
    return prompts.shuffled(config.seed) if config.data.shuffle_texts else prompts


def names_alone(config: TrainConfig, store: ClipStore) -> bool:
    """Whether nothing is said of a store's classes but their names: it is somebody's own, and no file is given."""
    return config.data.prompts is None and store.dataset not in prompt_names()


def run_texts(config: TrainConfig, folder: Path, store: ClipStore) -> tuple[Prompts, str]:
    """What a run was told about all of its store's classes, and where that is from, in words.

    A run that recorded nothing goes by the prompts file as it is now; where its data set has none, by names alone.

    Raises:
        UserError: the record is damaged, or the prompts that stand in for it are gone or do not fit.
    """
    if (texts := recorded_texts(folder)) is not None:
        return texts, "the run's record"
    texts = task_prompts(config, store)
    if names_alone(config, store):
        return texts, "names alone"
    return texts, f"prompts '{config.data.prompts or store.dataset}' of today"


def build_task(config: TrainConfig, data: Experiment, device: torch.device) -> Task:
    """Build the task with everything it trains, towers and teachers included.

    Raises:
        UserError: prompts and store disagree on the classes, they are not what a run to be resumed was told, or a tower
            or teacher cannot be loaded; or clips shall be varied in a way that their layout or timing does not allow.
    """
    store = data.store

    def all_prompts() -> Prompts:
        data.texts = task_prompts(config, store)
        check_texts(config, data.texts)
        return data.texts

    encoder, preprocess = build_skeleton_branch(config, store, len(data.class_names))
    config.augmentation.check(preprocess.target, config.preprocess.timing)
    context = Context(
        encoder=encoder,
        preprocess=preprocess,
        augmentation=config.augmentation,
        store=store,
        training_clips=data.split.train,
        validation_clips=data.split.validation,
        classes=data.split.classes,
        prompts=lambda: all_prompts().subset(data.split.classes.tolist()),
        all_prompts=all_prompts,
        device=device,
        seed=config.seed,
        stream=data.split.stream,
    )
    task: Task = TASKS[config.task_name](context, config.task)
    if config.data.shuffle_texts and data.texts is None:
        raise UserError(f"data.shuffle_texts: task {config.task_name} as it is set up reads no text of a class")
    if config.distil.teachers:
        task.hold("teachers", open_teachers(config, store, data.split, task, device))
    return task
