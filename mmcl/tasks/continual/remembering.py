"""What a task keeps of clips that it will not see again: when they are offered to its memory, and with which logits."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmcl.common.distributed import gather_rows
from mmcl.tasks.base import Apply, Task
from mmcl.tasks.context import Context
from mmcl.tasks.continual.options import ContinualOptions
from mmcl.tasks.continual.recollection import Recollection
from mmcl.tasks.continual.replay import ReplayMemory
from mmcl.tasks.stages import Stage

PROBE = "probe"  # how stages of the classifier alone begin
AT_ONCE = 64  # remembered clips that are passed through the network together


def probes(stage: str) -> bool:
    """Whether a stage, by its name, trains the classifier alone."""
    return stage.startswith(PROBE)


class Remembering(Task):
    """A task with a memory that goes along from stage to stage, where its method replays.

    Attributes:
        labels: outputs that are right for the training clips.
        memory: None where nothing is replayed.
        recollection: reads what it holds.
        counts_offers: whether probing is ``released``, which alone offers clips to the memory then.
        offered: (n,) how often each training clip was offered in a step, where probing is ``released``.
    """

    offered: Tensor

    def __init__(self, context: Context, options: ContinualOptions) -> None:
        super().__init__(context)
        self.settings = options
        self.training_clips = context.training_clips
        self.labels = np.searchsorted(context.classes, context.store.labels[self.training_clips])
        self.memory = None
        if options.replays:
            self.memory = ReplayMemory(options.memory * options.kept_interval, len(context.classes))
        self.recollection = Recollection(self, options)
        self.counts_offers = options.released and options.method == "charon" and options.probe_epochs > 0
        if self.counts_offers:
            self.register_buffer("offered", torch.zeros(len(self.training_clips), dtype=torch.long))

    def after_step(
        self, stage: Stage, batches: list[dict[str, Any]], outputs: list[dict[str, Tensor]]
    ) -> None:  # fmt: skip
        """``released``: offer the step's clips to the memory, with the scores of the moment."""
        if self.memory is None or not self.settings.released or (self.counts_offers and not probes(stage.name)):
            return
        for batch, given in zip(batches, outputs, strict=True):
            clips, labels = gather_rows(batch["clips"], "memory"), gather_rows(batch["labels"], "memory")
            scores = gather_rows(given["scores"], "memory")
            draws = self.dice(batch, f"offer {batch['micro']}").uniform(len(clips)).to(clips.device)
            self.memory.offer(clips, labels, scores, draws)
            if self.counts_offers:
                self.offered[self._places(clips)] += 1

    def end(self, stage: Stage, apply: Apply) -> None:
        """After a part: offer its clips to the memory, and compute logits where there are none, or old ones."""
        if not stage.keep or self.memory is None:
            return
        assert stage.clips is not None
        clips = torch.from_numpy(stage.clips)
        if not self.settings.released:
            self._offer(stage, clips)
        elif probes(stage.name):  # steps take whole batches alone: what these left over, as often as they did
            missing = self.settings.probe_epochs - self.offered[self._places(clips)].cpu()
            self._offer(stage, clips.repeat_interleave(missing))
        places = self._without_logits(stage)
        if len(places):
            self.memory.logits[places] = self._fresh_logits(self.memory.clips[places], stage, apply)

    def _without_logits(self, stage: Stage) -> Tensor:
        """Places in the memory whose logits are computed at the end of a part.

        CHARON refreshes all. DER keeps the logits that a clip had when it was taken: ``released`` takes clips in a
        step, and their logits are of it; else clips of a part are taken at its end, and get theirs there.
        """
        assert self.memory is not None and stage.clips is not None
        held = self.memory.clips[: len(self.memory)]
        if self.settings.method == "charon":
            return torch.arange(len(held), device=held.device)
        if self.settings.released:
            return torch.arange(0, device=held.device)
        return torch.isin(held, torch.from_numpy(stage.clips).to(held)).nonzero()[:, 0]

    def _places(self, clips: Tensor) -> Tensor:
        """Where (n,) clips of the store are among those that train."""
        return torch.from_numpy(np.searchsorted(self.training_clips, clips.cpu().numpy()))

    def _offer(self, stage: Stage, clips: Tensor) -> None:
        """Offer clips in a random order, without logits."""
        assert self.memory is not None
        generator = self.generator(f"offers of {stage.name}")
        clips = clips[torch.randperm(len(clips), generator=generator)]
        labels = torch.from_numpy(self.labels)[self._places(clips)]
        logits = torch.zeros(len(clips), self.memory.logits.shape[1])  # which they get right after
        self.memory.offer(clips, labels, logits, torch.rand(len(clips), generator=generator, dtype=torch.float64))

    def _fresh_logits(self, held: Tensor, stage: Stage, apply: Apply) -> Tensor:
        """(n, K) scores of clips as the memory gives them back (``released``: augmented)."""
        assert self.memory is not None
        if not self.settings.released:
            return torch.from_numpy(apply(self._memory_scores, held.cpu().numpy())).to(self.memory.logits)
        chunks = [self.recollection.clips(clips, 0, f"refresh {stage.name}")[0] for clips in held.split(AT_ONCE)]
        return torch.cat([self.applied(self.encoder, x) for x in chunks]).to(self.memory.logits)

    def _memory_scores(self, joints: Tensor, lengths: Tensor) -> Tensor:
        """Scores (N, K) of clips as the memory gives them back, but for what an augmentation changes in place."""
        return self.encoder(self.recollection.plain(joints, lengths))
