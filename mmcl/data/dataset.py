"""From the clip store to padded batches. Workers only gather: all tensor work is done later, on the device."""

from __future__ import annotations

import multiprocessing
import shutil
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from multiprocessing.context import BaseContext, ForkContext, ForkProcess
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from torch.utils.data import DataLoader, Dataset

from mmcl.common.draws import clip_keys
from mmcl.common.errors import UserError
from mmcl.data.crops import decode
from mmcl.data.sampler import Key, StepBatches
from mmcl.data.split import outputs_of
from mmcl.data.store import ClipStore

SHARED = Path("/dev/shm")
_STOPPING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
PATIENCE = 900  # seconds that a batch may take; a worker that was ended while it had a lock makes the others wait


@dataclass(frozen=True)
class Sample:
    """One clip on its way into a batch.

    Attributes:
        clip: position in the store.
        label: output of the model.
        joints: (M, T, V, C), see :meth:`mmcl.data.store.ClipStore.numbers`.
        key: of its random numbers, :func:`mmcl.common.draws.clip_keys`.
        images: its crops, where they are wanted.
        step: optimiser step that it is for, see :class:`mmcl.data.sampler.Key`.
    """

    clip: int
    label: int
    joints: np.ndarray
    key: int
    images: list[Image]
    step: int = 0


# Adds a task's own inputs (tower pixels, tokens, cached features) to a batch; runs in the loader's workers.
ExtraInputs = Callable[[Sequence[Sample]], dict[str, Any]]


class ClipDataset(Dataset[Sample]):
    """Clips of a store by :class:`mmcl.data.sampler.Key`.

    Args:
        store: the clips.
        seed: run seed; with the key it determines all that is drawn for a clip.
        images: also decode the stored person crops.
        classes: (K,) store labels of the model's outputs, ascending; sample labels count among them. All where None.
        shown_clip: (clips,) the clip whose pictures each clip gets; itself where None.

    Raises:
        ValueError: of a clip whose class is not among them, when it is asked for.
    """

    def __init__(
        self, store: ClipStore, seed: int = 0, images: bool = False, classes: np.ndarray | None = None,
        shown_clip: np.ndarray | None = None,
    ) -> None:  # fmt: skip
        self.store, self.seed, self.images, self.shown_clip = store, seed, images, shown_clip
        self.classes = np.arange(len(store.class_names)) if classes is None else classes

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, key: Key | tuple[int, int]) -> Sample:
        epoch, clip, step = Key(*key)
        seen = clip if self.shown_clip is None else int(self.shown_clip[clip])
        return Sample(
            clip=clip,
            label=int(outputs_of(self.classes, self.store.labels[[clip]])[0]),
            joints=self.store.numbers(clip),
            key=int(clip_keys(self.seed, epoch, [clip])[0]),
            images=load_crops(self.store, seen) if self.images else [],
            step=step,
        )


def load_crops(store: ClipStore, clip: int) -> list[Image]:
    """The person crops of one clip as RGB pictures, in time order; empty where the clip has no video."""
    return [decode(jpeg) for jpeg in store.crops(clip)]


def collate(samples: Sequence[Sample], extras: ExtraInputs | None = None) -> dict[str, Any]:
    """Pad clips to a batch.

    Returns:
        joints (N, M, T, V, C) float32 padded with zeros to the longest clip and the most bodies, lengths (N,),
        labels (N,), keys (N,) of their random numbers, clips (N,) positions in the store, and whatever ``extras`` adds.
    """
    bodies = max(sample.joints.shape[0] for sample in samples)
    frames = max(sample.joints.shape[1] for sample in samples)
    joints = np.zeros((len(samples), bodies, frames, *samples[0].joints.shape[2:]), dtype=np.float32)
    for row, sample in zip(joints, samples, strict=True):
        row[: sample.joints.shape[0], : sample.joints.shape[1]] = sample.joints
    batch: dict[str, Any] = {
        "joints": torch.from_numpy(joints),
        "lengths": torch.tensor([sample.joints.shape[1] for sample in samples]),
        "labels": torch.tensor([sample.label for sample in samples]),
        "keys": torch.tensor([sample.key for sample in samples]),
        "clips": torch.tensor([sample.clip for sample in samples]),
    }
    return batch | extras(samples) if extras else batch


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


def plain_batches(clips: Iterable[int], size: int) -> list[list[Key]]:
    """Batches in the given order for evaluation: every clip once, the last batch as small as it comes."""
    keys = [Key(0, int(clip)) for clip in clips]
    return [keys[i : i + size] for i in range(0, len(keys), size)]


def to_device(value: Any, device: torch.device) -> Any:
    """Move every tensor in nested dicts and lists to a device, without waiting for the copy."""
    if isinstance(value, torch.Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, dict):
        return {key: to_device(item, device) for key, item in value.items()}
    if isinstance(value, list):
        return [to_device(item, device) for item in value]
    return value
