"""Training steps as a run takes them, with the time of each part and the memory of the first one."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from mmcl.benchmarks.machine import PeakMemory
from mmcl.common.allocator import return_freed_memory
from mmcl.common.errors import UserError
from mmcl.engine.config import TrainConfig
from mmcl.engine.launch import make_accelerator
from mmcl.engine.loop import Loop
from mmcl.engine.setup import Experiment
from mmcl.tasks.base import Task

PARTS = ("data", "encoder", "CLIP", "LLM", "losses", "optimiser")


@dataclass
class Clock:
    """Charges the time that passes to one part after another.

    Attributes:
        wait: called before the clock is read, such as ``torch.cuda.synchronize``; None where that would only disturb.
        part: the part that is being charged; empty for none.
        seconds: by part, since the last :meth:`read`.
    """

    wait: Callable[[], object] | None = None
    part: str = ""
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))
    since: float = 0.0

    def switch(self, part: str) -> str:
        """Charge another part from now on; returns the one that was charged so far."""
        if self.wait is not None:
            self.wait()
        now = time.perf_counter()
        if self.part:
            self.seconds[self.part] += now - self.since
        self.part, self.since, before = part, now, self.part
        return before

    def read(self) -> dict[str, float]:
        """What was charged; then a new account."""
        taken, self.seconds = self.seconds, dict.fromkeys(PARTS, 0.0)
        return taken


class SteppedRun:
    """A run that is taken step by step.

    Args:
        config: of the run.
        data: its clips.
        task: what is trained.
        folder: for what a run writes.
        after: stages that are over: one step of each is taken, and what a task does at their ends is done.

    Attributes:
        parts: seconds by part, of each step so far.
        logged: means over the steps before the last line of the log that was due.
    """

    def __init__(self, config: TrainConfig, data: Experiment, task: Task, folder: Path, after: int = 0) -> None:
        self.loop = Loop(config, make_accelerator(config), data, task, folder)
        self.device = self.loop.accelerator.device
        if after >= len(self.loop.plan):
            raise UserError(f"the run has {len(self.loop.plan)} stages: none is left after {after}")
        self.clock, self.parts = Clock(), list[dict[str, float]]()
        self.logged: dict[str, float] = {}
        self._watch(task)
        for _ in range(after):
            self._enter()
            self()  # a memory may be filled step by step
            self.close()
            self.loop.leave()
        self._enter()
        self.parts.clear()

    def _enter(self) -> None:
        self.loop.enter()
        self.loop.trainable.train(self.loop.current.stage)
        self.batches = self._batches()

    def __call__(self) -> None:
        """Take one step, gradient norms and logged means included where they are due."""
        self.clock.switch("data")
        log = (len(self.parts) + 1) % self.loop.config.engine.log_every == 0
        stepper = self.loop.stepper
        assert stepper is not None
        stepper(self.batches, self.loop.where(), log)
        if log:
            self.logged = stepper.meter.read(self.loop.accelerator)
        self.clock.switch("")
        self.parts.append(self.clock.read())

    def close(self) -> None:
        """End the loader's workers."""
        self.batches.close()

    def medians(self, last: int) -> dict[str, float]:
        """Median seconds of each part over the last so many steps."""
        return {part: median(step[part] for step in self.parts[-last:]) for part in PARTS}

    def peak_bytes(self) -> int:
        """Take one step, and return by how much memory grew meanwhile, at its largest."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            before = torch.cuda.memory_allocated(self.device)
            self()
            return int(torch.cuda.max_memory_allocated(self.device) - before)
        return_freed_memory()
        with PeakMemory() as memory:
            self()
        return max(0, memory.parent - memory.before)

    def _batches(self) -> Generator[Any]:
        epoch = 0
        while True:
            self.loop.batches.epoch, self.loop.batches.first_step = epoch, 0
            for batch in self.loop.loader:
                self.clock.switch("losses")
                yield batch
            epoch += 1

    def _watch(self, task: Task) -> None:
        """Have the clock told when a part begins and ends, forward and (by the first gradient it gets) backward."""
        clock, accelerator = self.clock, self.loop.accelerator
        encoder: Any = task.encoder
        for owner, name in ((task, "augmented"), (encoder, "features"), (encoder, "head")):
            setattr(owner, name, _charged(clock, "encoder", getattr(owner, name)))
        for part in ("CLIP", "LLM"):
            tower = getattr(task, part.lower(), None)
            if isinstance(tower, nn.Module):
                tower.forward = _charged(clock, part, tower.forward)  # type: ignore[method-assign]
        backward = accelerator.backward

        def timed_backward(*args: Any, **kwargs: Any) -> None:
            backward(*args, **kwargs)
            clock.switch("optimiser")

        accelerator.backward = timed_backward  # type: ignore[method-assign]


def _charged(clock: Clock, part: str, call: Callable[..., Any]) -> Callable[..., Any]:
    def timed(*args: Any, **kwargs: Any) -> Any:
        before = clock.switch(part)
        try:
            output = call(*args, **kwargs)
        finally:  # what is computed again in the backward pass is broken off where it is no longer needed
            clock.switch(before)
        for tensor in output if isinstance(output, tuple) else (output,):
            if isinstance(tensor, Tensor) and tensor.requires_grad:
                tensor.register_hook(lambda _: (clock.switch(part), None)[1])
        return output

    return timed
