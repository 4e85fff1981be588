"""The configuration of a run: typed sections, and nothing that depends on the chosen encoder or task."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from mmcl.common.errors import UserError
from mmcl.models.description_file import Operation
from mmcl.skeletons.augmentations.combined import Augmentation
from mmcl.skeletons.preprocess_options import PreprocessOptions
from mmcl.tasks.distil import DistilOptions
from mmcl.tasks.stages import ScheduleOptions

# Keys that change no result: a run may go on with others, and the digest of its configuration leaves them out. A store
# that was moved has the same fingerprint, which is compared by itself.
FREE_KEYS = frozenset({
    "out", "resume", "config", "engine.trackers", "engine.log_every", "engine.checkpoint_steps",
    "engine.validate_every", "data.workers", "data.eval_batch_size", "data.path", "task.llm.shown",
})  # fmt: skip


@dataclass(frozen=True)
class DataOptions:
    """Clips, and how they are batched.

    Attributes:
        path: clip store, the folder that `mmcl prepare` wrote, or the URL it was put behind (s3://bucket/store).
        protocol: which clips train and which test, by name or as a .yaml file.
        validation: attribute -> values held out of the training side, for example {subject: [7]}; empty for none.
        prompts: prompt file (name or path); the data set's own where not given.
        shuffle_texts: give every class the text of another one, by the run's seed: the control that tells what the
            meaning of texts is worth.
        layout: joints the encoder works on, by name or .yaml file; the store's own where not given.
        batch_size: clips in one optimiser step, over all processes and micro-batches together.
        eval_batch_size: clips at once in evaluation.
        workers: loader processes; 0 loads in the training process.
        require_video: train only on the clips that have pictures; clips without video, or with one that cannot be used,
            are skipped. Test clips stay.
        shots: train on so many clips a class, drawn by the run's seed; 0 for all. A class with fewer gives all it has.
        share: train on a random share of the training clips, whatever their classes, drawn by the run's seed.
    """

    path: str = ""
    protocol: str = ""
    validation: dict[str, list[int | str]] = field(default_factory=dict)
    prompts: str | None = None
    shuffle_texts: bool = False
    layout: str | None = None
    batch_size: int = 64
    eval_batch_size: int = 64
    workers: int = 2
    require_video: bool = False
    shots: int = 0
    share: float = 1.0


@dataclass(frozen=True)
class StartOptions:
    """What a run starts from, other than random weights.

    Attributes:
        checkpoint: bundle, run folder or checkpoint whose encoder is loaded. Keys of encoder and preprocess, and
            data.layout, are its own where you do not give them. Its classifier is kept if its class names are the
            target's, and is new otherwise.
        weights: false takes the checkpoint's shape and input alone, and starts from random weights: the control that
            tells what its weights are worth.
        train: all of it, or head: the classifier alone, on an encoder that stays as it is (a linear probe).
    """

    checkpoint: str = ""
    weights: bool = True
    train: Literal["all", "head"] = "all"


@dataclass(frozen=True)
class OptimiserOptions:
    """What updates the parameters: the encoder, and whatever has no optimiser of its own by its task.

    Attributes:
        name: the optimiser.
        rate: peak learning rate.
        momentum: of SGD.
        nesterov: of SGD.
        betas: of Adam and AdamW.
        weight_decay: part of the gradient with SGD and Adam, separate from it with AdamW.
        rates: learning rates of the groups that have an optimiser of their own, in place of the task's (co-learning:
            projection 1e-3, lora 2e-4, clip 1e-5).
        adamw_weight_decay: of these groups, where the task does not say.
    """

    name: Literal["sgd", "adam", "adamw"] = "sgd"
    rate: float = 0.1
    momentum: float = 0.9
    nesterov: bool = True
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 4e-4
    rates: dict[str, float] = field(default_factory=dict)
    adamw_weight_decay: float = 0.01


@dataclass(frozen=True)
class EngineOptions:
    """How the loop runs.

    Attributes:
        precision: of the forward and backward pass; fp16 needs a GPU. fp64 computes and keeps everything in double
            precision: for tests, which compare numbers of processes exactly with it.
        accumulation: micro-batches per optimiser step; a contrastive loss sees one micro-batch at a time.
        clip_norm: largest gradient norm; 0 does not clip.
        sync_batchnorm: batch statistics over all processes, so that their number changes nothing.
        log_every: optimiser steps between lines of metrics.jsonl.
        checkpoint_steps: also save `checkpoints/last` every so many steps; it is saved after each epoch anyway.
        validate_every: epochs between validations, where a validation split is held out.
        trackers: accelerate's trackers (tensorboard, wandb, mlflow, …); empty for none. The project is called mmcl,
            the run by its folder; one that is resumed goes on where it was tracked before.
    """

    precision: Literal["fp32", "bf16", "fp16", "fp64"] = "fp32"
    accumulation: int = 1
    clip_norm: float = 0.0
    sync_batchnorm: bool = True
    log_every: int = 10
    checkpoint_steps: int = 0
    validate_every: int = 1
    trackers: list[str] = field(default_factory=lambda: ["tensorboard"])


class Derived(NamedTuple):
    """A value that follows from the clips of a run, and what it follows from in words."""

    value: Any
    reason: str


@dataclass(frozen=True)
class TrainConfig:
    """Everything a run needs besides the data; ``config.yaml`` of a run folder."""

    out: str
    seed: int
    resume: bool
    data: DataOptions
    start: StartOptions
    preprocess: PreprocessOptions
    augmentation: Augmentation
    optimiser: OptimiserOptions
    schedule: ScheduleOptions
    distil: DistilOptions
    engine: EngineOptions
    encoder_name: str
    encoder: Any
    surgeries: tuple[Operation, ...]  # that the encoder goes through before weights are loaded
    task_name: str
    task: Any
    text: str  # the same as YAML, as it is saved with the run
    derive: bool = False  # whether keys that nobody gives a value follow from the clips
    stars: bool = False  # whether a run without labels on the same clips comes first, and is started from
    derived: tuple[str, ...] = ()  # those that do, with their values and reasons
    notes: tuple[str, ...] = ()  # what recipes said of another encoder or task, and is left out

    def validate(self) -> None:
        """Fail on what can be known to be wrong before anything is loaded.

        Raises:
            UserError: naming the key, its value and what it should be.
        """
        data, schedule, engine, optimiser = self.data, self.schedule, self.engine, self.optimiser
        if not data.path or not data.protocol:
            raise UserError(
                "the recipe names no data: give --data.path DIR (from `mmcl prepare`) and --data.protocol NAME"
            )
        if self.start.train == "head" and not (self.start.checkpoint and self.start.weights):
            raise UserError("start.train is head, which needs the weights of a start.checkpoint: random ones are none")
        checks: list[tuple[str, object, bool, str]] = [
            ("data.batch_size", data.batch_size, data.batch_size >= 2, "at least 2"),
            ("data.eval_batch_size", data.eval_batch_size, data.eval_batch_size >= 1, "at least 1"),
            ("data.workers", data.workers, data.workers >= 0, "0 or more"),
            ("data.shots", data.shots, data.shots >= 0, "0 or more"),
            ("data.share", data.share, 0 < data.share <= 1, "in (0, 1]"),
            ("schedule.epochs", schedule.epochs, schedule.epochs >= 1, "at least 1"),
            ("schedule.warmup_epochs", schedule.warmup_epochs, schedule.warmup_epochs >= 0, "0 or more"),
            ("seed", self.seed, 0 <= self.seed < 2**31, "from 0 to 2,147,483,647"),
            ("schedule.milestones", schedule.milestones, all(m >= 0 for m in schedule.milestones), "epochs, 0 or more"),
            ("schedule.gamma", schedule.gamma, 0 < schedule.gamma <= 1, "in (0, 1]"),
            ("schedule.floor", schedule.floor, 0 <= schedule.floor <= 1, "in [0, 1]"),
            ("optimiser.momentum", optimiser.momentum, 0 <= optimiser.momentum < 1, "in [0, 1)"),
            ("optimiser.betas", optimiser.betas, all(0 <= beta < 1 for beta in optimiser.betas), "in [0, 1) each"),
            ("optimiser.weight_decay", optimiser.weight_decay, optimiser.weight_decay >= 0, "0 or more"),
            ("optimiser.rate", optimiser.rate, optimiser.rate > 0, "positive"),
            ("optimiser.rates", optimiser.rates, all(rate >= 0 for rate in optimiser.rates.values()), "0 or more each"),
            ("optimiser.adamw_weight_decay", optimiser.adamw_weight_decay, optimiser.adamw_weight_decay >= 0,
             "0 or more"),
            ("engine.accumulation", engine.accumulation, engine.accumulation >= 1, "at least 1"),
            ("engine.log_every", engine.log_every, engine.log_every >= 1, "at least 1"),
            ("engine.validate_every", engine.validate_every, engine.validate_every >= 1, "at least 1"),
            ("engine.checkpoint_steps", engine.checkpoint_steps, engine.checkpoint_steps >= 0, "0 or more"),
            ("engine.clip_norm", engine.clip_norm, engine.clip_norm >= 0, "0 or more"),
        ]  # fmt: skip
        for key, value, good, wanted in checks:
            if not good:
                raise UserError(f"{key} is {value}: it must be {wanted}")
        self.augmentation.check()
        self.distil.check()
