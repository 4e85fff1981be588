"""One optimiser step: its micro-batches, the update of what is due, and what the task does afterwards."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import Tensor

from mmcl.common.distributed import purpose
from mmcl.common.draws import step_key
from mmcl.data.dataset import to_device
from mmcl.engine.config import TrainConfig
from mmcl.engine.meters import StepMeter
from mmcl.engine.optimiser import RunOptimiser
from mmcl.engine.plan import PlannedStage
from mmcl.engine.processes import prepare, release
from mmcl.tasks.base import Task


class Stepper:
    """Takes the steps of one stage.

    Args:
        config: of the run.
        accelerator: the processes.
        task: what is trained; it is wrapped for the processes.
        planned: the stage.
        optimiser: of the stage; it is wrapped, too.
    """

    def __init__(
        self, config: TrainConfig, accelerator: Accelerator, task: Task, planned: PlannedStage, optimiser: RunOptimiser
    ) -> None:  # fmt: skip
        self.config, self.accelerator, self.task = config, accelerator, task
        self.planned, self.optimiser = planned, optimiser
        self.model, self.wrapped = prepare(accelerator, task, optimiser, config)
        self.meter = StepMeter()
        # Batches hold pictures: they are kept for the whole step only where somebody looks at them.
        self.looks_back = type(task).after_step is not Task.after_step

    def release(self) -> None:
        """Unwrap the task, so that it can be wrapped again with other parameters trained."""
        self.model = self.wrapped = None
        release(self.accelerator, self.task)

    def __call__(self, batches: Iterator[Any], where: dict[str, Any], log: bool) -> dict[str, float]:
        """Take one step.

        Args:
            batches: gives the micro-batches.
            where: ``epoch``, ``step`` and ``progress`` of the run.
            log: whether gradient norms will be logged.

        Returns:
            Gradient norms, where they will be logged.
        """
        step, stage = where["step"] - self.planned.first_step, self.planned.stage
        step_facts = where | {
            "stage": stage.name, "stage_step": step, "stage_steps": self.planned.epochs * self.planned.steps,
            "due": self.optimiser.begin_step(step, self.planned.factor(step)), "augment": stage.augment,
            "step_key": step_key(self.config.seed, where["step"]).to(self.accelerator.device),
        }  # fmt: skip
        norms: dict[str, float] = {}
        seen: list[dict[str, Any]] = []
        given: list[dict[str, Tensor]] = []
        for micro in range(self.config.engine.accumulation):
            asked = time.perf_counter()
            batch = next(batches)
            waited = time.perf_counter() - asked
            place = {"micro": micro, "micros": self.config.engine.accumulation}
            batch = to_device(batch, self.accelerator.device) | step_facts | place
            if self.config.engine.precision == "fp64":
                batch = doubled(batch)
            outputs, norms = self._micro_batch(batch, log)
            self.meter.add(outputs, batch["labels"], waited)
            if self.looks_back:
                seen.append(batch)
                given.append({key: value.detach() for key, value in outputs.items()})
        if self.looks_back and not self.accelerator.optimizer_step_was_skipped:
            with torch.no_grad():
                self.task.after_step(stage, seen, given)
        return norms

    def _micro_batch(self, batch: dict[str, Any], log: bool) -> tuple[dict[str, Tensor], dict[str, float]]:
        """Forward and backward pass, and the update where it is the last micro-batch of the step."""
        norms: dict[str, float] = {}
        with self.accelerator.accumulate(self.model):
            with self.accelerator.autocast():  # wrapping does that, but sharding does not
                outputs = self.task.taught(batch, self.model(batch))
            # DeepSpeed takes the step here, too, and makes calls of the others that do nothing.
            with purpose("gradients"):
                self.accelerator.backward(outputs["loss"])
            if self.accelerator.sync_gradients:
                norms = self._clip(log)
            self.wrapped.step()
            self.wrapped.zero_grad()
        return outputs, norms

    def _clip(self, log: bool) -> dict[str, float]:
        """Clip the gradient if asked to, and measure it (before clipping) where it will be logged."""
        if self.accelerator.distributed_type == DistributedType.DEEPSPEED:  # which has clipped it
            return {"gradient_norm/all": float(self.model.get_global_grad_norm())} if log else {}
        self.optimiser.forget_others()
        norms, limit = {}, self.config.engine.clip_norm
        tensors = any(group["clip"] for group in self.optimiser.param_groups)
        if log or limit or tensors:
            self.accelerator.unscale_gradients()  # once: a gradient scaler refuses a second time
        if log:
            norms = {f"gradient_norm/{name}": norm for name, norm in self.optimiser.norms().items()}
        if tensors:
            self.optimiser.clip_tensors()
        if limit:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit)
        return norms


def doubled(value: Any) -> Any:
    """Every tensor of real numbers in nested dicts and lists in double precision."""
    if isinstance(value, Tensor):
        return value.double() if value.is_floating_point() else value
    if isinstance(value, dict):
        return {key: doubled(entry) for key, entry in value.items()}
    return [doubled(entry) for entry in value] if isinstance(value, list) else value
