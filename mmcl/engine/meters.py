"""What is measured while training: ``metrics.jsonl``, trackers, the progress bar's numbers."""

from __future__ import annotations

import json
import math
import os
import resource
import time
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from mmcl.common.distributed import purpose
from mmcl.common.precision import widen
from mmcl.common.printing import complain


class MetricsFile:
    """Append-only JSON lines, one object a line.

    Args:
        path: ``RUN/metrics.jsonl``.
        keep: bytes of it that stay when a run resumes: what was written after them will be written again.
        writes: whether this process writes it.
    """

    def __init__(self, path: Path, keep: int, writes: bool) -> None:
        self.path, self.length, self.writes = path, keep, writes
        if writes:
            self._cut(keep)

    def _cut(self, keep: int) -> None:
        """End the file with a whole line, after as many bytes as stay: the next record would be glued to half a one."""
        content = self.path.read_bytes() if self.path.is_file() else b""
        whole = keep
        if len(content) < keep:
            whole = content.rfind(b"\n") + 1
            lost = f"ends after {len(content)} of {keep} bytes that were written: what was measured then is lost"
            complain("note", f"{self.path} {lost}, the run goes on")
        elif content[:keep][-1:] not in (b"", b"\n"):
            # A line twice is better than none; of a last one without end, nothing is known.
            whole = content.find(b"\n", keep) + 1 or content.rfind(b"\n", 0, keep) + 1
        if len(content) > whole:
            os.truncate(self.path, whole)
        self.length = whole

    def write(self, record: dict[str, Any]) -> int:
        """Append one record and flush it; returns how long the file is now."""
        finite = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in record.items()
        }  # JSON knows no NaN and no infinity
        if self.writes:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(finite) + "\n")
            self.length = self.path.stat().st_size
        return self.length


class StepMeter:
    """Averages over the steps between two log lines, without waiting for the device until a line is due."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Start a new interval."""
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}  # micro-batches that had a value: a loss may be there every third step
        self.clips, self.waited, self.started = 0, 0.0, time.perf_counter()

    def add(self, outputs: dict[str, Tensor], labels: Tensor, waited: float) -> None:
        """Take in one micro-batch: losses and shares, accuracy if it was scored, the seconds the loop waited for it."""
        values = {key: widen(value.detach()) for key, value in outputs.items() if key.startswith(("loss", "share_"))}
        if "scores" in outputs:
            values["accuracy"] = (outputs["scores"].argmax(dim=-1) == labels).to(outputs["loss"].dtype).mean()
        for key, value in values.items():
            self.sums[key] = self.sums.get(key, torch.zeros_like(value)) + value
            self.counts[key] = self.counts.get(key, 0) + 1
        self.clips += len(labels)
        self.waited += waited

    def read(self, accelerator: Accelerator) -> dict[str, float]:
        """Means over the interval and all processes; collective. Then a new interval starts."""
        names = sorted(self.sums)
        means = torch.stack([self.sums[name] / self.counts[name] for name in names])
        with purpose("metrics"):
            means = accelerator.reduce(means, reduction="mean")
        elapsed = time.perf_counter() - self.started
        result = dict(zip(names, means.tolist(), strict=True))
        result["seconds"] = elapsed
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
