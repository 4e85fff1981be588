"""Loads batches in worker processes that no signal ends, where shared memory has room for them."""

from __future__ import annotations

import multiprocessing
import shutil
import signal
import sys
from collections.abc import Sequence
from multiprocessing.context import BaseContext, ForkContext, ForkProcess
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from mmcl.common.errors import UserError
from mmcl.data.dataset import ClipDataset, ExtraInputs, Sample, collate
from mmcl.data.sampler import StepBatches
from mmcl.data.store import ClipStore

SHARED = Path("/dev/shm")
_STOPPING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
PATIENCE = 900  # seconds that a batch may take; a worker that was ended while it had a lock makes the others wait


class _Collate:
    """Collation with a task's extras; a class, so that spawned workers can unpickle it."""

    def __init__(self, extras: ExtraInputs | None) -> None:
        self.extras = extras

    def __call__(self, samples: Sequence[Sample]) -> dict[str, Any]:
        return collate(samples, self.extras)


def _end_workers() -> None:
    """End the workers that are left when a process exits: Python's own way, SIGTERM, is a signal that they ignore."""
    for process in multiprocessing.active_children():
        if process.daemon:
            process.kill()


def _leave_signals_to_the_main_process(worker: int) -> None:
    """A signal to the whole process group asks for a checkpoint: the batch that is under way is still needed."""
    for number in _STOPPING:
        signal.signal(number, signal.SIG_IGN)


class _Worker(ForkProcess):
    """A loader worker that never sees a signal to stop, from its first moment on.

    One that gets it before it has come to ignore it ends without a word, and the main process would wait for its batch
    until the loader's patience is over.
    """

    def start(self) -> None:
        """Fork with the signals blocked, which the new process takes over."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)
        try:
            super().start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Workers(ForkContext):
    """Where the loader gets its workers from on Linux: forked, they start at once and share what is read already.

    A server that forks them, Python's own way since 3.14, would itself end of a signal to the process group.
    """

    Process = _Worker


def _workers() -> BaseContext | None:
    return _Workers() if sys.platform == "linux" else None


def check_shared_memory(store: ClipStore, clips: int, workers: int) -> None:
    """Whether shared memory holds a batch of each worker: where it does not, workers die or wait for ever.

    Args:
        store: the clips.
        clips: in a batch.
        workers: loader processes.

    Raises:
        UserError: it does not.
    """
    if not workers or not SHARED.is_dir() or not len(store):
        return
    numbers = float((store.bodies * store.frames).mean()) * store.layout.joint_count * store.channels
    needed, free = int(4 * numbers * clips * workers), shutil.disk_usage(SHARED).free
    if free < needed:
        raise UserError(
            f"{SHARED} has {free / 1e6:.1f} MB left, and batches of {workers} loader workers take "
            f"{needed / 1e6:.1f} MB: --data.workers=0, or give it more (docker run --shm-size=1g)"
        )


def loader(dataset: ClipDataset, batches: Any, workers: int = 0, extras: ExtraInputs | None = None) -> DataLoader[Any]:
    """A DataLoader over ``batches`` (lists of keys); pinned memory where there is a GPU, workers kept over epochs.

    Raises:
        UserError: there is too little shared memory for that many workers.
    """
    size = batches.micro if isinstance(batches, StepBatches) else max(map(len, batches), default=0)
    check_shared_memory(dataset.store, size, workers)
    if workers:  # runs before Python waits for its children, also where `atexit` is not heard: in multiprocessing's own
        Finalize(None, _end_workers, exitpriority=0)
    return DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=_Collate(extras),
        pin_memory=torch.cuda.is_available(),
        persistent_workers=workers > 0,
        timeout=PATIENCE if workers else 0,
        # Its own: every new iterator draws a seed, and from the global generator that would shift what a resumed run
        # draws next. Nothing here uses it, since a clip's randomness comes with its key.
        generator=torch.Generator(),
        worker_init_fn=_leave_signals_to_the_main_process,
        multiprocessing_context=_workers() if workers else None,
    )
