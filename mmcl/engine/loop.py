"""The order of events in a run, on one process or many: stages, epochs, validation, checkpoints. It knows no task.

Of each stage: ``begin``, its epochs with a checkpoint after each, ``end``, validation, and a checkpoint that stands
before the next stage. A run that is resumed between two of these goes through what the last checkpoint does not know
of again: ``begin`` and ``end`` are functions of saved state, and validation changes nothing.

Collective calls are made on every process; files are written by the main process only.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from tqdm import tqdm

from mmcl.common.interrupts import stop_requests
from mmcl.data.dataset import ClipDataset
from mmcl.data.loader import loader
from mmcl.engine.checkpoint import Checkpoints
from mmcl.engine.checks import check_compared, check_finite, check_groups
from mmcl.engine.config import TrainConfig
from mmcl.engine.evaluator import Evaluator
from mmcl.engine.optimiser import RunOptimiser
from mmcl.engine.plan import Plan, PlannedStage, Trainable
from mmcl.engine.position import Position
from mmcl.engine.processes import StopCheck, step_batches, to_device
from mmcl.engine.run_log import RunLog
from mmcl.engine.setup import Experiment
from mmcl.engine.steps import Stepper
from mmcl.tasks.base import Task


class Loop:
    """Trains a task through its stages.

    Args:
        config: the run's configuration.
        accelerator: devices, processes, precision, trackers.
        data: store and split.
        task: what is trained.
        folder: the run folder.

    Attributes:
        plan: the stages.
        position: where the run is.
        stepper: takes the steps of the stage at hand; None between stages.
    """

    def __init__(
        self, config: TrainConfig, accelerator: Accelerator, data: Experiment, task: Task, folder: Path
    ) -> None:
        self.config, self.accelerator, self.data, self.task = config, accelerator, data, task
        self.batches = step_batches(config, accelerator, data)
        check_compared(config, task, accelerator.num_processes * self.batches.micro)
        self.plan = Plan(task, data.split.train, self.batches, config.schedule)
        dataset = ClipDataset(data.store, config.seed, task.needs_images, data.split.classes, task.shown_clip)
        self.loader = loader(dataset, self.batches, config.data.workers, task.extras())
        if config.engine.precision == "fp64":
            task.double()
            task.preprocess.dtype = torch.float64
        self.position = Position(data.store.fingerprint, data.digest(self.plan), accelerator.num_processes)
        self.checkpoints = Checkpoints(folder / "checkpoints", accelerator, task, self.position, config.seed)
        self.trainable = Trainable(task)
        self.resumes = config.resume and self.checkpoints.exists()
        if self.resumes:
            self.position.go_on_from(folder / "checkpoints" / "last")
            self.position.check(self.plan, folder / "checkpoints" / "last")
            self.checkpoints.load_learned()
        to_device(accelerator, task)
        self.stepper: Stepper | None = None
        self.optimiser = self._new_optimiser()
        if self.resumes:
            self.checkpoints.load_random()
        self.stop_check = StopCheck(accelerator)
        self.evaluator = Evaluator(accelerator, data, task, config.data)
        self.log = RunLog(accelerator, task, folder, self.position)

    @property
    def current(self) -> PlannedStage:
        """The stage at hand; the last one once all are done."""
        return self.plan[min(self.position.stage, len(self.plan) - 1)]

    def run(self) -> bool:
        """Train to the end of the last stage, or until asked to stop.

        Returns:
            True when the run is complete, False when it was stopped (a checkpoint has been saved).
        """
        hidden, position = not self.accelerator.is_main_process, self.position
        bar = tqdm(total=self.plan.steps, initial=position.steps, desc="training", unit="step", disable=hidden)
        with stop_requests() as stops, bar:
            self.log.show(self.plan.epochs)
            while not position.complete:
                while position.epoch < self.current.epochs:
                    self.enter()
                    if not self._epoch(bar, stops):
                        self.checkpoints.save(self.optimiser)
                        return False
                    position.epoch, position.step, position.epochs = position.epoch + 1, 0, position.epochs + 1
                    if position.epoch < self.current.epochs:
                        self._validate()
                    self.checkpoints.save(self.optimiser)
                    self.log.show(self.plan.epochs)
                self.leave()
        return True

    def enter(self) -> None:
        """Make ready for the next step: begin the stage if it has to be begun, and wrap the task for the processes."""
        if self.stepper is not None:
            return
        begins, early = self.position.begins_stage(), not self.accelerator.is_fsdp2
        if begins and early:  # what begin changes of the weights must be there before optimisers copy them
            self._call(self.task.begin)
        self.stepper = Stepper(self.config, self.accelerator, self.task, self.current, self.optimiser)
        if self.resumes:
            self.checkpoints.load_training(None if begins and not self.current.stage.continues else self.optimiser)
        self.resumes = False
        if begins and not early:  # sharded weights are whole on no process that could begin with them
            self._call(self.task.begin)
        self.batches.clips = self.current.clips

    def leave(self) -> None:
        """End the stage, whose optimiser is needed no more unless the next one continues; stand before that one."""
        if self.stepper is None:  # resumed behind the last step: what is saved below must know of the scale of the loss
            self.checkpoints.load_training(self.optimiser if self._continues() else None)
        position, memory = self.position, self.optimiser.state_dict() if self._continues() else None
        if self.stepper is not None and not self.accelerator.is_fsdp2:
            self.stepper.release()
        self.stepper, self.optimiser = None, self._new_optimiser()
        self._call(self.task.end)
        self._validate()
        if self.current.stage.keep:
            self.checkpoints.save(self.optimiser, self.current.stage.name)
        position.stage, position.epoch, position.step = position.stage + 1, 0, 0
        position.complete = position.stage == len(self.plan)
        if not position.complete:
            position.best = None
            self.optimiser = self._new_optimiser()
            if memory is not None:
                self.optimiser.load_state_dict(memory)
        self.checkpoints.save(self.optimiser)

    def _continues(self) -> bool:
        """Whether the next stage goes on with what the optimiser of the one that ends remembers."""
        following = self.position.stage + 1
        return following < len(self.plan) and self.plan[following].stage.continues

    def _new_optimiser(self) -> RunOptimiser:
        """Choose what the stage at hand trains; its optimiser, which remembers nothing yet."""
        stage = self.current.stage
        groups = self.trainable.groups(stage)
        check_groups(self.accelerator, groups, len(self.plan))
        return RunOptimiser(groups, self.config.optimiser, stage.rate)

    @torch.no_grad()
    def _call(self, event: Callable[..., None]) -> None:
        self.evaluator.stand_still()
        event(self.current.stage, self.evaluator.apply)

    def _epoch(self, bar: Any, stops: list[int]) -> bool:
        """Train one epoch from the current position on; False when asked to stop."""
        engine, position, planned, stepper = self.config.engine, self.position, self.current, self.stepper
        assert stepper is not None
        self.batches.epoch, self.batches.first_step = position.epochs, position.step
        self.batches.steps_before = position.epoch * planned.steps
        self.trainable.train(planned.stage)
        stepper.meter.reset()
        batches = iter(self.loader)
        while position.step < planned.steps:
            due = engine.checkpoint_steps and (position.steps + 1) % engine.checkpoint_steps == 0
            log = (position.steps + 1) % engine.log_every == 0 or due or position.step + 1 == planned.steps
            norms = stepper(batches, self.where(), bool(log))
            position.step, position.steps = position.step + 1, position.steps + 1
            bar.update()
            if log:
                self._log(stepper.meter.read(self.accelerator) | norms, bar)
            if self._asked_to_stop(stops):
                return False
            if due:
                self.checkpoints.save(self.optimiser)
        return True

    def where(self) -> dict[str, Any]:
        """What a batch is told of where the run is."""
        position = self.position
        return {"epoch": position.epochs, "step": position.steps, "progress": position.steps / self.plan.steps}

    def _log(self, values: dict[str, float], bar: Any) -> None:
        rates = {f"rate/{name}": rate for name, rate in self.optimiser.rates().items()}
        self.log.record("train", values | rates, self.current.stage.name)
        self.log.remark(values)
        check_finite(values["loss"], self.position.steps, self.checkpoints.advice)
        bar.set_postfix(epoch=self.position.epochs + 1, loss=f"{values['loss']:.3f}", refresh=False)

    def _asked_to_stop(self, stops: list[int]) -> bool:
        return self.stop_check(bool(stops))

    def _validate(self) -> None:
        """Judge by the clips held out of the training side; keeps ``checkpoints/best`` of the last stage."""
        position, last_stage = self.position, len(self.plan) - 1
        ends = position.epoch == self.current.epochs
        if not len(self.data.split.validation) or not (ends or position.epoch % self.config.engine.validate_every == 0):
            return
        values = self.evaluator.validation()
        position.metric, position.last = next(iter(values.items()))
        self.log.record("validation", values, self.current.stage.name)
        if position.stage == last_stage and (position.best is None or position.last > position.best):
            position.best = position.last
            self.checkpoints.save(self.optimiser, "best")
