"""Parts of ``mmcl bench gpu`` that train as `mmcl train` does: in fp16, and stopped and resumed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import torch
from safetensors.torch import load_file
from torch import Tensor

from mmcl.benchmarks.gpu.part import Lines, Place
from mmcl.common.errors import UserError

EPOCHS, STOP_AT = 2, 4  # of the runs; the step after which one is stopped, in the middle of an epoch


def measure_fp16(place: Place, seconds: float) -> Lines:
    """The same run in fp16, bf16 and fp32: clips a second, and where its loss ends."""
    found: Lines = []
    for precision in ("fp16", "bf16", "fp32"):  # what may not be to be had comes first
        run = place.folder / f"precision-{precision}"
        train_here([*words(place), f"--engine.precision={precision}", f"--out={run}"])
        losses, speed = losses_of(run), speed_of(run)
        finite = all(torch.isfinite(torch.tensor(losses)))
        said = f"loss {losses[0]:.4f} to {losses[-1]:.4f}{'' if finite else ', NOT finite'}, {speed:.0f} clips/s"
        found.append({"what": precision, "found": said, "losses": losses, "clips_per_second": speed, "finite": finite})
    return found


def measure_resume(place: Place, seconds: float) -> Lines:
    """The same run three times: straight, straight again, and stopped in the middle of an epoch and resumed."""
    straight, again, broken = (place.folder / f"resume-{kind}" for kind in ("straight", "again", "stopped"))
    train_here([*words(place), f"--out={straight}"])
    train_here([*words(place), f"--out={again}"])
    with stopped_after(STOP_AT):
        train_here([*words(place), f"--out={broken}"], status=130)
    train_here([*words(place), f"--out={broken}", "--resume=true"])
    expected = learned(straight)
    return [
        {"what": what, **compared(expected, learned(run))}
        for what, run in (("the same seed again", again), (f"stopped after step {STOP_AT} and resumed", broken))
    ]


def compared(expected: dict[str, Tensor], found: dict[str, Tensor]) -> dict[str, Any]:
    """What differs between the tensors of two runs, and by how much."""
    if expected.keys() != found.keys():
        raise UserError("two runs of one recipe learned tensors of different names")
    off = {name: float((found[name].double() - each.double()).abs().max()) for name, each in expected.items()}
    wrong = {name: each for name, each in off.items() if each}
    if not wrong:
        return {"found": f"all {len(off)} tensors are equal, bit for bit", "equal": True, "differing": {}}
    worst = max(wrong, key=lambda name: wrong[name])
    said = f"{len(wrong)} of {len(off)} tensors differ, {worst} most: by {wrong[worst]:.1e}"
    return {"found": said, "equal": False, "differing": wrong}


@contextmanager
def stopped_after(step: int) -> Iterator[None]:
    """Runs are asked to stop when they have taken so many steps, as a signal asks them."""
    from mmcl.engine.loop import Loop

    with mock.patch.object(Loop, "_asked_to_stop", lambda loop, stops: loop.position.steps == step):
        yield


def train_here(arguments: Sequence[str], status: int = 0) -> None:
    """``mmcl train`` in this process.

    Raises:
        UserError: it ended otherwise than with ``status``.
    """
    from mmcl.engine.configuring import configure
    from mmcl.engine.launch import forget_run
    from mmcl.train import train

    forget_run()  # as a process that trains for the first time
    if (ended := train(configure(list(arguments)))) != status:
        raise UserError(f"a training ended with status {ended}, not {status}")


def words(place: Place) -> list[str]:
    """The recipe of these runs: CTR-GCN alone on the demo's clips."""
    store = demo_store(place)
    small = ["--encoder.width=8", "--encoder.depth=3", "--preprocess.window=16", "--augmentation.crop_floor=16"]
    return [
        "--config=ntu_joint", f"--data.path={store}", "--data.protocol=demo/cross_subject", "--data.batch_size=8",
        "--data.workers=0", f"--schedule.epochs={EPOCHS}", "--schedule.warmup_epochs=1", "--schedule.milestones=[2]",
        "--optimiser.rate=0.01", "--engine.log_every=1", "--engine.trackers=[]", *(small if place.tiny else []),
    ]  # fmt: skip


def demo_store(place: Place) -> Path:
    """Clips with pictures, made by the first part that needs them."""
    from mmcl.data.demo import generate
    from mmcl.data.preparation.build import prepare
    from mmcl.data.readers import READERS

    store = place.folder / "store"
    if not store.exists():
        shutil.rmtree(place.folder / "raw", ignore_errors=True)  # of a part that took too long while it made them
        generate(place.folder / "raw", subjects=4, clips_per_subject=1, workers=1, progress=False)
        reader = READERS["demo"](place.folder / "raw", None)
        prepare(reader, store, frames_per_clip=2, crop_size=112, workers=1, progress=False)
    return store


def learned(run: Path) -> dict[str, Tensor]:
    """What a run has learned."""
    return load_file(run / "checkpoints" / "last" / "learned.safetensors")


def losses_of(run: Path) -> list[float]:
    """The loss of every step."""
    return [record["loss"] for record in _records(run)]


def speed_of(run: Path) -> float:
    """Clips a second: the median over steps."""
    return median(record["clips_per_second"] for record in _records(run))


def _records(run: Path) -> list[dict[str, Any]]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    return [record for record in lines if record["kind"] == "train"]
