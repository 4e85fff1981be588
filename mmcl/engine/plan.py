"""The stages of a run: which clips, how many steps, at which rates; and which parameters a stage trains."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from mmcl.data.sampler import StepBatches
from mmcl.tasks.base import Task
from mmcl.tasks.stages import Factor, ParameterGroup, ScheduleOptions, Stage, schedule_factor


@dataclass(frozen=True, eq=False)
class PlannedStage:
    """A stage with all that it left open filled in.

    Attributes:
        stage: as the task gave it.
        clips: positions of its training clips in the store, ascending.
        epochs: how often they are passed over.
        steps: optimiser steps an epoch.
        first_epoch: epochs of the run before it.
        first_step: optimiser steps of the run before it.
        factor: of all learning rates, by the step of the stage.
    """

    stage: Stage
    clips: np.ndarray
    epochs: int
    steps: int
    first_epoch: int
    first_step: int
    factor: Factor


class Plan(Sequence[PlannedStage]):
    """All stages of a run, in order.

    Args:
        task: says which stages there are.
        clips: all that train, ascending.
        batches: says how many steps an epoch of some clips has.
        schedule: the run's.

    Raises:
        ValueError: the task's stages contradict themselves.
        UserError: a stage has fewer clips than a step takes.
    """

    def __init__(self, task: Task, clips: np.ndarray, batches: StepBatches, schedule: ScheduleOptions) -> None:
        self.stages: list[PlannedStage] = []
        self.epochs = self.steps = 0
        for stage in task.stages():
            own, curve = _clips(stage, clips), stage.schedule or schedule
            epochs = curve.epochs if stage.epochs is None else stage.epochs
            if epochs < 1:
                raise ValueError(f"stage '{stage.name}' has {epochs} epochs: it must have at least 1")
            batches.check(own, f" of stage '{stage.name}'" if stage.clips is not None else "")
            steps = len(own) // batches.batch_size
            factor = schedule_factor(curve, steps, epochs)
            self.stages.append(PlannedStage(stage, own, epochs, steps, self.epochs, self.steps, factor))
            self.epochs += epochs
            self.steps += epochs * steps
        names = [planned.stage.name for planned in self.stages]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"a task needs stages whose names differ, not {names}")

    def __len__(self) -> int:
        return len(self.stages)

    def __getitem__(self, number: int) -> PlannedStage:  # type: ignore[override]
        return self.stages[number]

    @property
    def digest(self) -> str:
        """SHA-256 over which clips each stage is trained on."""
        found = hashlib.sha256()
        for planned in self.stages:
            found.update(f"{planned.stage.name}\n{len(planned.clips)}\n".encode())
            found.update(np.ascontiguousarray(planned.clips, dtype=np.int64).tobytes())
        return found.hexdigest()


def _clips(stage: Stage, every: np.ndarray) -> np.ndarray:
    if stage.clips is None:
        return every
    own = np.unique(np.asarray(stage.clips, dtype=np.int64))
    if not np.isin(own, every).all():
        raise ValueError(f"stage '{stage.name}' names clips that are not on the training side")
    return own


class Trainable:
    """What of a task may be trained at all, and what each stage trains of it.

    Args:
        task: as it is before the first stage: what is frozen now, stays so for good.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self.names = {name for name, parameter in task.named_parameters() if parameter.requires_grad}

    def groups(self, stage: Stage) -> list[ParameterGroup]:
        """Choose what the stage trains: sets ``requires_grad``, and returns the groups that have something to train.

        Raises:
            ValueError: the task's groups leave a parameter out, hold one twice, or lack one that the stage names.
        """
        groups = self.task.parameter_groups(stage)
        wanted = [group.name for group in groups] if stage.train is None else list(stage.train)
        self._check(groups, wanted)
        may = {id(parameter) for name, parameter in self.task.named_parameters() if name in self.names}
        trained = []
        for group in groups:
            own = [parameter for parameter in group.parameters if id(parameter) in may]
            for parameter in own:
                parameter.requires_grad_(group.name in wanted)
            if own and group.name in wanted:
                trained.append(group)
        if not trained:
            raise ValueError(f"stage '{stage.name}' trains nothing")
        return trained

    def _check(self, groups: list[ParameterGroup], wanted: Sequence[str]) -> None:
        names = {id(parameter): name for name, parameter in self.task.named_parameters()}
        held = [names[id(parameter)] for group in groups for parameter in group.parameters if id(parameter) in names]
        if missing := sorted(self.names - set(held)):
            raise ValueError(f"{type(self.task).__name__}.parameter_groups leaves out {missing[0]}")
        if len(set(held)) < len(held) or len({group.name for group in groups}) < len(groups):
            raise ValueError(f"{type(self.task).__name__}.parameter_groups holds a parameter, or a name, twice")
        if strange := sorted(set(wanted) - {group.name for group in groups}):
            raise ValueError(f"a stage of {type(self.task).__name__} trains {strange[0]}, which is no parameter group")

    def train(self, stage: Stage) -> None:
        """Put the task in training mode, but for modules whose trainable parameters the stage all leaves out.

        These, and what is below them, are in evaluation mode: dropout does nothing, batch statistics stay. So are the
        encoder's modules without parameters, such as dropout of its input, unless all before its head is trained.
        """
        self.task.train()
        if stage.train is None:
            return
        _rest(self.task, "", self.names)
        encoder = self.task.encoder
        body = [one for name, one in encoder.named_parameters() if not encoder.in_head(name)]
        if not all(parameter.requires_grad for parameter in body):
            for name, child in encoder.named_children():
                child.train(child.training and (encoder.in_head(name) or any(True for _ in child.parameters())))


def _rest(module: nn.Module, prefix: str, trainable: set[str]) -> None:
    """Switch to evaluation what the stage leaves out below a module."""
    for name, child in module.named_children():
        path = f"{prefix}{name}."
        own = [parameter for key, parameter in child.named_parameters() if path + key in trainable]
        if own and not any(parameter.requires_grad for parameter in own):
            child.eval()
        elif own:
            _rest(child, path, trainable)
