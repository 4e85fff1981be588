"""What a run says while it trains: lines of metrics.jsonl, trackers, notes, and what the task shows in its folder."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from tqdm import tqdm

from mmcl.common.printing import complain, one_line
from mmcl.engine.meters import MetricsFile
from mmcl.engine.position import Position
from mmcl.tasks.base import Task


class RunLog:
    """Tells of a run, on the main process alone; where the run is, its position says.

    Args:
        accelerator: whose trackers are told.
        task: makes remarks, and shows.
        folder: the run folder.
        position: where the run is; how long metrics.jsonl has grown is kept in it.
    """

    def __init__(self, accelerator: Accelerator, task: Task, folder: Path, position: Position) -> None:
        self.accelerator, self.task, self.folder, self.position = accelerator, task, folder, position
        self.already_said = set[str]()
        self.metrics = MetricsFile(folder / "metrics.jsonl", position.metrics, accelerator.is_main_process)

    def record(self, kind: str, values: dict[str, float], stage: str) -> None:
        """Write one line of metrics.jsonl, and send the same numbers to the trackers.

        Args:
            kind: train or validation.
            values: by name.
            stage: name of the stage at hand.
        """
        position = self.position
        place = {"step": position.steps, "epoch": position.epochs, "stage": stage}
        position.metrics = self.metrics.write({"kind": kind, **place, **values})
        self.accelerator.log({f"{kind}/{key}": value for key, value in values.items()}, step=position.steps)

    def remark(self, values: Mapping[str, float]) -> None:
        """Print what the task has to say of a line of the log, each remark once."""
        for words in self.task.remarks(values):
            if (about := words.partition(":")[0]) not in self.already_said:
                self.already_said.add(about)
                if self.accelerator.is_main_process:
                    complain("note", words)

    @torch.no_grad()
    def show(self, epochs: int) -> None:
        """Let the task show how it is getting on, now and then.

        Args:
            epochs: of the whole run.
        """
        accelerator, done = self.accelerator, self.position.epochs
        sharded = accelerator.is_fsdp2 or accelerator.distributed_type == DistributedType.DEEPSPEED
        if not accelerator.is_main_process or sharded or (done & (done - 1) and done != epochs):
            return
        self.task.eval()
        for line in self.task.show(self.folder, done):
            tqdm.write(one_line(line), file=sys.stdout)
