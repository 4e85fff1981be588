"""What a task asks of the engine, as plain data: groups of parameters, how they are updated, stages, schedules."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from torch import nn


@dataclass(frozen=True)
class Update:
    """How an optimiser updates parameters. Groups with equal updates share one optimiser.

    Attributes:
        name: sgd, adam (weight decay is part of the gradient) or adamw (weight decay is separate from it).
        rate: peak learning rate; ``optimiser.rates`` of the run may name another one for a group.
        momentum: of SGD.
        nesterov: of SGD.
        betas: of Adam and AdamW.
        weight_decay: None takes the run's ``optimiser.adamw_weight_decay``.
    """

    name: Literal["sgd", "adam", "adamw"] = "adamw"
    rate: float = 1e-3
    momentum: float = 0.0
    nesterov: bool = False
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float | None = None


@dataclass
class ParameterGroup:
    """Parameters that are trained in one way.

    Attributes:
        name: unique in the task; for logs, ``optimiser.rates``, :attr:`Stage.train` and ``batch["due"]``.
        parameters: the tensors.
        update: how they are updated; None takes the run's own optimiser, as the recipe gives it.
        scale: factor on the learning rate, for rates that differ by layer.
        every: the group is updated at every so many steps of a stage. In between it has no gradient, and neither its
            values nor the optimiser's memory of it change. ``forward`` leaves it out then (``Task.idle``): DeepSpeed
            alone cannot be kept from counting a gradient when it clips.
        first: the step of the stage, from 0, at which it is updated first.
        clip: largest norm of the gradient of EACH tensor; 0 does not clip.
        decays: False: without weight decay, whatever ``update`` or the run's own optimiser says.
    """

    name: str
    parameters: list[nn.Parameter]
    update: Update | None = None
    scale: float = 1.0
    every: int = 1
    clip: float = 0.0
    first: int = 0
    decays: bool = True


@dataclass(frozen=True)
class ScheduleOptions:
    """Learning rates over time; one factor for all groups.

    Attributes:
        name: step (times gamma at each milestone) or cosine (down to `floor` times the peak).
        epochs: length of the run; the last epoch is the result.
        warmup_epochs: linear warm-up, step by step.
        milestones: epochs after which the step schedule decays.
        gamma: factor of each decay.
        floor: what cosine ends at, relative to the peak.
    """

    name: Literal["step", "cosine"] = "step"
    epochs: int = 110
    warmup_epochs: float = 5
    milestones: list[int] = field(default_factory=lambda: [90, 100])
    gamma: float = 0.1
    floor: float = 0.0


@dataclass(frozen=True, eq=False)
class Stage:
    """One phase of a task's training, with a schedule of its own, and an optimiser unless it continues the last one.

    Attributes:
        name: unique in the task; batches carry it.
        clips: positions in the store, all from the training side; None for every clip that trains.
        epochs: None takes those of the schedule.
        train: names of the groups that are trained; the others get no gradient and are in evaluation mode. None for
            all groups.
        rate: factor on every learning rate.
        schedule: of this stage; None takes the run's, stretched to the stage's length.
        augment: whether clips are augmented.
        keep: keep what was learned at the end of the stage as a checkpoint of the stage's name.
        continues: optimisers go on with what they remember of the stage before, which trains the same groups.
    """

    name: str = "train"
    clips: np.ndarray | None = None
    epochs: int | None = None
    train: tuple[str, ...] | None = None
    rate: float = 1.0
    schedule: ScheduleOptions | None = None
    augment: bool = True
    keep: bool = False
    continues: bool = False


Factor = Callable[[int], float]


def schedule_factor(options: ScheduleOptions, steps_per_epoch: int, epochs: int | None = None) -> Factor:
    """The learning-rate factor as a pure function of the optimiser step (0-based): nothing to save or restore.

    Args:
        options: the curve.
        steps_per_epoch: optimiser steps an epoch.
        epochs: stretch the curve to so many: warm-up and milestones keep their share of the length.
    """
    unit = steps_per_epoch * (1.0 if epochs is None else epochs / options.epochs)
    warmup, total = options.warmup_epochs * unit, options.epochs * unit

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        if options.name == "step":
            return options.gamma ** sum(step >= milestone * unit for milestone in options.milestones)
        progress = (step - warmup) / max(1.0, total - warmup)
        return options.floor + (1 - options.floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))

    return factor
