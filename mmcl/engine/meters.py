"""What is measured while training: ``metrics.jsonl``, trackers, the progress bar's numbers."""

from __future__ import annotations

import json
import math
import resource
import time
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from mmcl.common.distributed import purpose
from mmcl.common.files import write_text


class MetricsFile:
    """Append-only JSON lines, one object a line; only the main process writes.

    Args:
        path: ``RUN/metrics.jsonl``.
        before_step: when a run resumes, lines of later optimiser steps are dropped: they will come again.
    """

    def __init__(self, path: Path, before_step: int | None = None) -> None:
        self.path = path
        if before_step is not None and path.is_file():
            lines = []
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    keep = json.loads(line)["step"] <= before_step
                except (json.JSONDecodeError, KeyError, TypeError):  # a line that a killed process did not finish
                    keep = False
                if keep:
                    lines.append(line + "\n")
            write_text(path, "".join(lines))

    def write(self, record: dict[str, Any]) -> None:
        """Append one record and flush it."""
        finite = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in record.items()
        }  # JSON knows no NaN and no infinity
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(finite) + "\n")


class StepMeter:
    """Averages over the steps between two log lines, without waiting for the device until a line is due."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Start a new interval."""
        self.sums: dict[str, Tensor] = {}
        self.batches, self.clips, self.waited, self.started = 0, 0, 0.0, time.perf_counter()

    def add(self, outputs: dict[str, Tensor], labels: Tensor, waited: float) -> None:
        """Take in one micro-batch: its losses, accuracy if it was scored, and the seconds the loop waited for it."""
        values = {key: value.detach().float() for key, value in outputs.items() if key.startswith("loss")}
        if "scores" in outputs:
            values["accuracy"] = (outputs["scores"].argmax(dim=-1) == labels).float().mean()
        for key, value in values.items():
            self.sums[key] = self.sums.get(key, torch.zeros_like(value)) + value
        self.batches += 1
        self.clips += len(labels)
        self.waited += waited

    def read(self, accelerator: Accelerator) -> dict[str, float]:
        """Means over the interval and all processes; collective. Then a new interval starts."""
        names = sorted(self.sums)
        means = torch.stack([self.sums[name] for name in names]) / self.batches
        with purpose("metrics"):
            means = accelerator.reduce(means, reduction="mean")
        elapsed = time.perf_counter() - self.started
        result = dict(zip(names, means.tolist(), strict=True))
        result["clips_per_second"] = self.clips * accelerator.num_processes / elapsed
        result["data_wait_share"] = self.waited / elapsed
        result["peak_memory_mib"] = peak_memory_mib(accelerator.device)
        self.reset()
        return result


def peak_memory_mib(device: torch.device) -> float:
    """Peak memory so far: of the GPU's allocator, or the process's resident size on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
