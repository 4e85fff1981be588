"""The training loop on Accelerate: one process or many, CPU or GPU. It knows no task by name.

Collective calls are made on every process; files are written by the main process only.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from tqdm import tqdm

from mmcl.common.distributed import purpose
from mmcl.common.errors import UserError
from mmcl.data.dataset import ClipDataset, loader, to_device
from mmcl.engine.checkpoint import Checkpoints, Position
from mmcl.engine.config import TrainConfig, schedule_factor
from mmcl.engine.meters import MetricsFile, StepMeter
from mmcl.engine.optimiser import RunOptimiser
from mmcl.engine.processes import StopCheck, prepare, step_batches, stop_requests
from mmcl.engine.scoring import score_clips
from mmcl.engine.setup import Experiment
from mmcl.tasks.base import Task


class Loop:
    """Trains a task; every object it needs is made once, here.

    Args:
        config: the run's configuration.
        accelerator: devices, processes, precision, trackers.
        data: store and split.
        task: what is trained.
        folder: the run folder.
    """

    def __init__(
        self, config: TrainConfig, accelerator: Accelerator, data: Experiment, task: Task, folder: Path
    ) -> None:
        self.config, self.accelerator, self.data, self.task = config, accelerator, data, task
        self.batches = step_batches(config, accelerator, data)
        dataset = ClipDataset(data.store, config.seed, task.needs_images, data.split.classes, task.pairing)
        self.loader = loader(dataset, self.batches, config.data.workers, task.extras())
        self.factor = schedule_factor(config.schedule, self.batches.steps)
        self.position = Position(data.store.fingerprint, self.batches.stretches)
        self.checkpoints = Checkpoints(folder / "checkpoints", accelerator, task, self.position, self._probe())
        resumes = config.resume and self.checkpoints.exists()
        if resumes:
            self.checkpoints.load_learned()
        self.run_optimiser = RunOptimiser(task.parameter_groups(), config.optimiser)
        self.model, self.optimiser = prepare(accelerator, task, self.run_optimiser, config)
        if resumes:
            self.checkpoints.load_state(self.run_optimiser)
        self.stop_check = StopCheck(accelerator)
        self.metrics = MetricsFile(folder / "metrics.jsonl", self.global_step) if accelerator.is_main_process else None

    @property
    def global_step(self) -> int:
        """Optimiser steps finished since the run began."""
        return self.position.epoch * self.batches.steps + self.position.step

    @property
    def total(self) -> int:
        """Optimiser steps of the whole run."""
        return self.config.schedule.epochs * self.batches.steps

    @property
    def finished(self) -> bool:
        """Whether the last epoch is done."""
        return self.position.epoch >= self.config.schedule.epochs

    def run(self) -> bool:
        """Train to the last epoch, or until asked to stop.

        Returns:
            True when the run is complete, False when it was stopped (a checkpoint has been saved).
        """
        hidden = not self.accelerator.is_main_process
        bar = tqdm(total=self.total, initial=self.global_step, desc="training", unit="step", disable=hidden)
        with stop_requests() as stops, bar:
            while not self.finished:
                if not self._epoch(bar, stops):
                    self.checkpoints.save(self.run_optimiser)
                    return False
                self.position.epoch, self.position.step = self.position.epoch + 1, 0
                self._validate()
                self.checkpoints.save(self.run_optimiser)
        return True

    def _epoch(self, bar: Any, stops: list[int]) -> bool:
        """Train one epoch from the current position on; False when asked to stop."""
        engine, position = self.config.engine, self.position
        self.batches.epoch, self.batches.first_step = position.epoch, position.step
        self.model.train()
        meter, batches = StepMeter(), iter(self.loader)
        while position.step < self.batches.steps:
            self.run_optimiser.scale_rates(self.factor(self.global_step))
            due = engine.checkpoint_steps and (self.global_step + 1) % engine.checkpoint_steps == 0
            log = (self.global_step + 1) % engine.log_every == 0 or due or position.step + 1 == self.batches.steps
            norms = self._step(batches, meter, log)
            position.step += 1
            bar.update()
            if log:
                self._log(meter.read(self.accelerator) | norms, bar)
            if self._asked_to_stop(stops):
                return False
            if due:
                self.checkpoints.save(self.run_optimiser)
        return True

    def _step(self, batches: Iterator[Any], meter: StepMeter, log: bool) -> dict[str, float]:
        """One optimiser step: all its micro-batches; gradient norms where they will be logged."""
        norms: dict[str, float] = {}
        for _ in range(self.config.engine.accumulation):
            asked = time.perf_counter()
            batch = next(batches)
            waited = time.perf_counter() - asked
            batch = to_device(batch, self.accelerator.device)
            batch |= {"epoch": self.position.epoch, "progress": self.global_step / self.total}
            with self.accelerator.accumulate(self.model):
                with self.accelerator.autocast():  # wrapping does that, but sharding does not
                    outputs = self.model(batch)
                # DeepSpeed takes the step here, too, and makes calls of the others that do nothing.
                with purpose("gradients"):
                    self.accelerator.backward(outputs["loss"])
                if self.accelerator.sync_gradients:
                    norms = self._clip(log)
                self.optimiser.step()
                self.optimiser.zero_grad()
            meter.add(outputs, batch["labels"], waited)
        return norms

    def _clip(self, log: bool) -> dict[str, float]:
        """Clip the gradient if asked to, and measure it (before clipping) where it will be logged."""
        if self.accelerator.distributed_type == DistributedType.DEEPSPEED:  # which has clipped it
            return {"gradient_norm/all": float(self.model.get_global_grad_norm())} if log else {}
        norms, limit = {}, self.config.engine.clip_norm
        if log or limit:
            self.accelerator.unscale_gradients()  # once: a gradient scaler refuses a second time
        if log:
            norms = {f"gradient_norm/{name}": norm for name, norm in self.run_optimiser.norms().items()}
        if limit:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit)
        return norms

    def _log(self, values: dict[str, float], bar: Any) -> None:
        rates = {f"rate/{name}": rate for name, rate in self.run_optimiser.rates().items()}
        self._record("train", values | rates)
        if not math.isfinite(values["loss"]):  # the same on all processes; weights that are saved are from before
            raise UserError(
                f"the loss is {values['loss']} at step {self.global_step}: training has diverged, and "
                f"{self.checkpoints.folder / 'last'}, if it is there, is from before; a smaller optimiser.rate, "
                "engine.clip_norm or a longer schedule.warmup_epochs may help, in another --out"
            )
        bar.set_postfix(epoch=self.position.epoch + 1, loss=f"{values['loss']:.3f}", refresh=False)

    def _record(self, kind: str, values: dict[str, float]) -> None:
        """One line of metrics.jsonl, and the same numbers to the trackers."""
        if self.metrics is not None:
            self.metrics.write({"kind": kind, "step": self.global_step, "epoch": self.position.epoch, **values})
        self.accelerator.log({f"{kind}/{key}": value for key, value in values.items()}, step=self.global_step)

    def _asked_to_stop(self, stops: list[int]) -> bool:
        return self.stop_check(bool(stops))

    def _validate(self) -> None:
        """Accuracy on the clips held out of the training subjects; keeps ``checkpoints/best``."""
        clips, epoch = self.data.split.validation, self.position.epoch
        due = epoch % self.config.engine.validate_every == 0 or epoch == self.config.schedule.epochs
        if not len(clips) or not due:
            return
        scores = self.scores(clips)
        labels = self.data.split.targets(self.data.store.labels[clips])
        top1 = float((scores.argmax(axis=1) == labels).mean())
        self.position.last = top1
        self._record("validation", {"top1": top1})
        if top1 > self.position.best:
            self.position.best = top1
            self.checkpoints.save(self.run_optimiser, "best")

    def scores(self, clips: np.ndarray) -> np.ndarray:
        """(len(clips), K) scores of the skeleton branch, outside autocast; the work is shared by all processes."""
        self.task.eval()
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        padded = np.concatenate([clips, clips[-1:].repeat(-len(clips) % world)])
        # A stretch each, so that of a store behind a URL nobody fetches everything.
        mine = score_clips(
            self.task.scores, self.data.store, padded.reshape(world, -1)[rank], self.accelerator.device,
            self.config.data.eval_batch_size, self.config.data.workers,
        )  # fmt: skip
        with purpose("validation"):
            everyone = self.accelerator.gather(torch.from_numpy(mine).to(self.accelerator.device)).cpu().numpy()
        return np.asarray(everyone[: len(clips)])

    def _probe(self) -> dict[str, Any]:
        """A few training clips, which checkpoints store with the scores they get."""
        dataset = ClipDataset(self.data.store)
        clips = self.data.split.train[:: max(1, len(self.data.split.train) // 8)][:8]
        batch = next(iter(loader(dataset, [[(0, int(clip)) for clip in clips]])))
        return {key: batch[key] for key in ("joints", "lengths")}
