"""How fast clips come out of a store, and how fast text goes in at best."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from mmcl.common.errors import BadClip, UserError
from mmcl.data.clip import ClipSource
from mmcl.data.readers.ntu import NTU120
from mmcl.data.store import ClipStore, open_store

PARSED = 200  # files whose text is parsed: a second or two
BATCH = 64
STEPS, STEP_BATCH, WARM = 10, 8, 3  # training steps, clips in each, and first steps that do not count
TRAIN = Path(__file__).resolve().parents[1] / "train.py"


def time_parse(reader: NTU120, files: Sequence[Path]) -> dict[str, float]:
    """Seconds that one process takes for text: the reader, and NumPy's C parser on the very same text alone.

    Args:
        reader: of the folder that the files lie in.
        files: recordings; of more than ``PARSED``, that many or fewer at even distances. Bad ones are left out.

    Returns:
        files and bytes of text that were timed; reader_seconds and text_seconds for all of them, best of three.
    """
    names = {file.name for file in files[:: -(-len(files) // PARSED)]}
    sources = [source for source in reader.scan() if Path(source.skeleton).name in names and _good(reader, source)]
    texts = [Path(source.skeleton).read_bytes() for source in sources]

    def clock(work: Any) -> float:
        began = time.perf_counter()
        work()
        return time.perf_counter() - began

    read = min(clock(lambda: [reader.read(source) for source in sources]) for _ in range(3))
    plain = min(clock(lambda: [np.fromstring(text, sep=" ") for text in texts]) for _ in range(3))
    return {
        "files": len(texts),
        "bytes": sum(map(len, texts)),
        "reader_seconds": read,
        "text_seconds": plain,
    }


def _good(reader: NTU120, source: ClipSource) -> bool:
    try:
        reader.read(source)
    except BadClip:
        return False
    return True


def time_open(path: Path) -> float:
    """Seconds to open a store, median of five."""
    times = []
    for _ in range(5):
        began = time.perf_counter()
        open_store(path)
        times.append(time.perf_counter() - began)
    return median(times)


def time_loader(store: ClipStore, workers: int) -> dict[str, float]:
    """One shuffled epoch through the loader and nothing else.

    Returns:
        clips, batch (clips), seconds, and clips_per_second from the first batch on (before it the workers start).
    """
    from mmcl.data.dataset import ClipDataset
    from mmcl.data.loader import loader
    from mmcl.data.sampler import StepBatches

    batches = StepBatches(np.arange(len(store)), min(BATCH, len(store) // 2))
    began, first, clips = time.perf_counter(), 0.0, 0
    for batch in loader(ClipDataset(store), batches, workers):
        first = first or time.perf_counter()
        clips += len(batch["labels"])
    ended = time.perf_counter()
    return {
        "clips": clips,
        "batch": batches.micro,
        "seconds": ended - began,
        "clips_per_second": (clips - batches.micro) / (ended - first),
    }


def time_training(store: ClipStore, folder: Path, workers: int) -> dict[str, float]:
    """A few steps of the training script as a user runs it, with the NTU recipe but small batches, on the CPU.

    Returns:
        clips in a batch; steps that counted; of these, median seconds and median share spent waiting for data.

    Raises:
        UserError: the script failed.
    """
    clips = np.linspace(0, len(store) - 1, min(STEPS * STEP_BATCH + 1, len(store))).astype(int)
    names = [store.ids[clip] for clip in clips]
    rule = {"dataset": store.dataset, "train": {"id": names[1:]}, "test": {"id": names[:1]}}
    protocol, run = folder / "protocol.yaml", folder / "run"
    protocol.write_text(json.dumps({"bench/few": rule}), encoding="utf-8")
    words = [
        "--config", "ntu_joint", f"--data.path={store.path}", f"--data.protocol={protocol}:bench/few", f"--out={run}",
        f"--data.batch_size={STEP_BATCH}", f"--data.workers={workers}", "--schedule.epochs=1",
        "--schedule.milestones=[]", "--schedule.warmup_epochs=0", "--engine.log_every=1", "--engine.trackers=[]",
    ]  # fmt: skip
    on_cpu = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, str(TRAIN), *words], capture_output=True, text=True, env=on_cpu)
    if done.returncode:
        raise UserError(f"the few training steps failed: {' '.join(done.stderr.strip().splitlines()[-1:])}")
    lines = map(json.loads, (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    steps = [line for line in lines if line["kind"] == "train"][WARM:]
    return {
        "batch": STEP_BATCH,
        "steps": len(steps),
        "seconds": median(STEP_BATCH / line["clips_per_second"] for line in steps),
        "waiting": median(line["data_wait_share"] for line in steps),
    }
