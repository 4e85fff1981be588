"""What a frozen encoder says of clips: computed once, kept beside the clips, and read again by clip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import torch
from torch import Tensor

from mmcl.common.errors import UserError
from mmcl.tasks.base import Task
from mmcl.towers.cache import CacheJob, cached_rows, tower_fingerprint

AT_ONCE = 32  # clips that are passed through the network together


class BackboneRows:
    """Features of clips by a task's frozen encoder, by position in the store.

    Args:
        task: whose encoder and preprocessing they are of.
        clips: (n,) positions in the store, ascending.
        cache: keep them in the store's folder; all processes that ask at the same time share the work.
    """

    def __init__(self, task: Task, clips: np.ndarray, cache: bool) -> None:
        self.task, self.clips, self.cache = task, clips, cache
        self.rows: Tensor | None = None

    def __call__(self, clips: Tensor) -> Tensor:
        """(N,) positions in the store -> (N, D) on their device."""
        rows = self.every(clips.device)
        places = np.searchsorted(self.clips, clips.cpu().numpy())
        return rows[torch.from_numpy(places).to(rows.device)]

    def every(self, device: torch.device) -> Tensor:
        """(n, D) of all clips; they are computed, or read, when first asked for: a resumed run has begun before."""
        if self.rows is None:
            self.rows = self._load()
        self.rows = self.rows.to(device)
        return self.rows

    def _load(self) -> Tensor:
        if any(hasattr(parameter, "full_tensor") for parameter in self.task.encoder.parameters()):
            raise UserError("sa_dvae trains some dense layers on a frozen encoder: there is nothing to shard, use DDP")
        if not self.cache:
            return torch.cat([self._compute(part) for part in _parts(self.clips)])
        found = cached_rows(self.task.store, self.clips, CacheJob(self._identity(), self._bytes, "backbone features"))
        rows = np.stack([found.folder.read(found.places[int(clip)]) for clip in self.clips]).view("<f4")
        return torch.from_numpy(rows.copy()).to(next(self.task.encoder.parameters()).dtype)

    def _identity(self) -> list[str]:
        encoder, preprocess = self.task.encoder, self.task.preprocess
        layouts = preprocess.source.to_dict(), preprocess.target.to_dict()
        settings = [type(encoder).__qualname__, asdict(encoder.options), asdict(preprocess.options), layouts]
        return ["backbone", tower_fingerprint(encoder, settings)]

    def _bytes(self, clips: Sequence[int]) -> list[bytes]:
        rows = self._compute(np.asarray(clips)).float().cpu().numpy().astype("<f4")
        return [row.tobytes() for row in rows]

    @torch.no_grad()
    def _compute(self, clips: np.ndarray) -> Tensor:
        """(n, D) of some clips, in the precision of the encoder."""
        batch = self.task.recall(clips, epoch=0)
        encoder = self.task.encoder
        mode = encoder.training
        try:
            encoder.eval()
            with torch.autocast(batch["joints"].device.type, enabled=False):
                return self.task.features(batch["joints"], batch["lengths"])
        finally:
            encoder.train(mode)


def _parts(clips: np.ndarray) -> list[np.ndarray]:
    return [clips[start : start + AT_ONCE] for start in range(0, len(clips), AT_ONCE)]
