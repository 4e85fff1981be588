"""Saliencies of a batch that is spread over processes are those of the whole batch on one."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from test_long_tail import bodies, made_batch, made_task
from torch import Tensor

PROCESSES = 2
COUNTS = (10, 5, 2, 8)  # of clips a process; a quarter of all clips is looked at: 3 + 2, 2 + 1, 1 + 0 and 2 + 2


def saliencies(count: int, rows: slice) -> Tensor:
    """After two steps on these rows of a batch of ``PROCESSES`` times so many clips."""
    task = made_task(warmup_epochs=0).eval()
    x, labels = bodies(PROCESSES * count), [clip * 7 % 3 for clip in range(PROCESSES * count)]
    for step in range(2):
        batch = made_batch(task, x, labels, epoch=1, step=step)
        batch |= {key: batch[key][rows] for key in ("joints", "lengths", "labels", "keys", "clips")}
        outputs = task(batch)
        task.after_step(SimpleNamespace(), [batch], [outputs])
    return task.saliency.values


def worker(rank: int, folder: str) -> None:
    os.environ |= {"CUDA_VISIBLE_DEVICES": "", "RANK": str(rank), "WORLD_SIZE": str(PROCESSES)}
    torch.set_num_threads(1)
    meet, patience = f"file://{folder}/meet", timedelta(seconds=60)
    dist.init_process_group("gloo", init_method=meet, rank=rank, world_size=PROCESSES, timeout=patience)
    found = {count: saliencies(count, slice(rank * count, (rank + 1) * count)) for count in COUNTS}
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[int, Tensor]]:
    folder: Path = tmp_path_factory.mktemp("ranks")
    mp.start_processes(worker, (str(folder),), nprocs=PROCESSES, start_method="forkserver")
    return [torch.load(folder / f"{rank}.pt") for rank in range(PROCESSES)]


@pytest.mark.parametrize("count", COUNTS)
def test_saliencies_do_not_depend_on_the_number_of_processes(found: list[dict[int, Tensor]], count: int) -> None:
    """Also where processes look at differently many clips, or one of them at none."""
    expected = saliencies(count, slice(None))
    assert (expected != expected[0, 0]).any()
    for mine in found:
        torch.testing.assert_close(mine[count], expected, rtol=1e-5, atol=1e-7)
