"""What a task gets back from its memory: clips of the store as a memory of compressed clips would give them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmcl.common.distributed import rank, world_size
from mmcl.common.draws import clip_keys, derived_keys
from mmcl.skeletons.augmentations.combined import Augmentation
from mmcl.tasks.base import Task
from mmcl.tasks.continual.options import ContinualOptions
from mmcl.tasks.continual.replay import ReplayMemory, compress, inflate

WHOLE = Augmentation(crop_min=1.0, crop_max=1.0, uneven=False, rotation=0.0)  # a clip from end to end, as it is


class Rows(NamedTuple):
    """Clips that a step passes through the network for one of its terms.

    Attributes:
        name: of the term.
        x: (n, M, T, V, C).
        labels: (n,).
        keys: (n,) of the clips, for random numbers.
        logits: (n, K) that were remembered; None of the stream.
        share: weight of this process's rows in the mean over all processes.
    """

    name: str
    x: Tensor
    labels: Tensor
    keys: Tensor
    logits: Tensor | None = None
    share: float = 1.0


class Recollection:
    """Reads remembered clips from the store, thinned and interpolated as if no more of them had been kept.

    Args:
        task: gives store, preprocessing, augmentation and random numbers.
        options: of the memory.
    """

    def __init__(self, task: Task, options: ContinualOptions) -> None:
        self.task, self.settings = task, options
        # A remembered clip is one series of frames: no other part of it can be cut out of what was kept. Released, that
        # is the part that was trained on.
        whole = replace(task.augmentation, crop_min=1.0, crop_max=1.0, uneven=False)
        self.augmentation = task.augmentation if options.released else whole

    def crop_keys(self, clips: Tensor) -> Tensor | None:
        """(n,) ``released``: keys of the first epoch, by which (n,) clips are cropped once for all; else None.

        The released code crops clips where it loads them. What turns them is drawn anew in every epoch.
        """
        if not self.settings.released:
            return None
        return torch.from_numpy(clip_keys(self.task.seed, 0, clips.cpu().numpy())).to(clips.device)

    def batches(self, memory: ReplayMemory, batch: dict[str, Any], count: int) -> list[Rows]:
        """Two batches from the memory that do not depend on each other, this process's share of each.

        Args:
            memory: may be empty.
            batch: of the stream.
            count: clips of the stream on this process.
        """
        if not len(memory):
            return []
        found = []
        for name, weight in zip(("logits", "labels"), self.settings.weights, strict=True):
            if not weight:
                continue
            wanted = count * world_size()
            if total := self.settings.memory_batch:  # of the step, shared out over its micro-batches
                wanted = max(1, (total + batch["micro"]) // batch["micros"])
            draws = self.task.dice(batch, f"memory {name} {batch['micro']}").uniform(len(memory.clips))
            places = memory.choose(wanted, draws.to(memory.clips.device))
            own, share = places[rank() :: world_size()], 1.0
            if len(own):
                share = len(own) * world_size() / len(places)
            else:  # fewer are held than there are processes: all take all of them
                own = places
            purpose = f"{name} {batch['step']} {batch['micro']}"
            x, keys = self.clips(memory.clips[own], batch["epoch"], purpose)
            found.append(Rows(name, x, memory.labels[own], keys, memory.logits[own], share))
        return found

    def clips(self, clips: Tensor, epoch: int, purpose: str) -> tuple[Tensor, Tensor]:
        """Remembered clips, augmented.

        Args:
            clips: (n,) positions in the store.
            epoch: of the run.
            purpose: one that no other call of the epoch has: the augmentation hangs on it.

        Returns:
            (n, M, T, V, C), and (n,) keys of the clips for this purpose.
        """
        batch = self.task.recall(clips, epoch)
        keys = derived_keys(batch["keys"], purpose)
        with torch.autocast(batch["joints"].device.type, enabled=False):
            x = self.task.preprocess(
                batch["joints"], batch["lengths"], keys, self.augmentation, crop_keys=self.crop_keys(clips)
            )
            return self.compressed(x), keys

    def plain(self, joints: Tensor, lengths: Tensor) -> Tensor:
        """Raw clips (N, M, T, V, C) as :meth:`clips` reads them, whole and of which a part was kept; not augmented."""
        with torch.autocast(joints.device.type, enabled=False):
            keys = torch.zeros(len(joints), dtype=torch.int64, device=joints.device)  # nothing hangs on them
            return self.compressed(self.task.preprocess(joints, lengths, keys, WHOLE))

    def compressed(self, x: Tensor) -> Tensor:
        """(N, M, T, V, C) -> the same clips of which only every ``interval``-th frame was kept."""
        interval = self.settings.kept_interval
        return inflate(compress(x, interval), x.shape[2], interval, self.settings.released) if interval > 1 else x
