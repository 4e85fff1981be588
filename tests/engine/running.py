"""Run trainings in processes of their own."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from forked_verbs import Started, call_verb
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[2]
TRAIN = str(ROOT / "mmcl" / "train.py")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
SMALL = [
    "--data.protocol=demo/cross_subject", "--data.batch_size=8", "--data.workers=0", "--preprocess.window=16",
    "--augmentation.crop_floor=16", "--encoder.width=8", "--encoder.depth=3", "--schedule.epochs=3",
    "--schedule.warmup_epochs=1", "--schedule.milestones=[2]", "--engine.log_every=1", "--engine.trackers=[]",
]  # fmt: skip


def arguments(store: Path, out: Path, *more: str) -> list[str]:
    """Command line of a small run on the demo store; ``more`` overrides."""
    return [*SMALL, f"--data.path={store}", f"--out={out}", *more]


def launch(*words: str, group: bool = False) -> Started:
    """Start a training, as the leader of a process group of its own where that is asked for."""
    return Started("train", *words, group=group)


def train(*words: str, processes: int = 1, status: int = 0) -> str:
    """Train to the end and check the exit status; returns what was printed, errors last."""
    if processes == 1:
        done = call_verb("train", *words)
    else:
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        command = [sys.executable, *launcher, TRAIN, *words]
        done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    output = done.stdout + done.stderr
    assert done.returncode == status, output
    return output


def records(run: Path, kind: str = "train") -> list[dict[str, Any]]:
    """Lines of metrics.jsonl of one kind."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if record["kind"] == kind]


def weights(run: Path, name: str = "last") -> dict[str, torch.Tensor]:
    """What a run has learned."""
    return load_file(run / "checkpoints" / name / "learned.safetensors")


def assert_alike(one: Path, two: Path) -> None:
    """Two runs took the same steps, but for rounding, which kinks of the network blow up from the second step on."""
    for a, b in zip(records(one), records(two), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], abs=2e-4)
        norms = {key: value for key, value in a.items() if key.startswith("gradient_norm/")}
        if "gradient_norm/all" in b:  # DeepSpeed tells no other
            norms = {"gradient_norm/all": math.hypot(*norms.values())}
        for key, norm in norms.items():
            assert norm == pytest.approx(b[key], rel=2e-2, abs=1e-4), (a["step"], key)
    expected, found = weights(one), weights(two)
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        named = partial("{}: {}".format, name)
        torch.testing.assert_close(found[name], tensor, rtol=2e-3, atol=5e-4, msg=named)
