"""Keeps the features of a frozen tower for the pictures of each clip, in one or several views."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from mmcl.data.dataset import load_crops
from mmcl.data.store import ClipStore
from mmcl.towers.cache import CacheJob, cached_rows
from mmcl.towers.views import view

Pictures = list[list[Image]]


class FeatureCache:
    """Features (D,) of one frozen tower for each of several views of a clip's pictures. Pickles small.

    Args:
        store: where the clips are.
        clips: positions of the clips covered.
        identity: from :func:`mmcl.towers.cache.tower_fingerprint` and whatever else the features depend on, views
            included.
        compute: pictures of n clips -> (n, D) features.
        name: what is computed, for people.
        batch_size: pictures of so many clips (or views) at once.
        views: features a clip, one for each of so many views of its pictures.
        mirror: whether views may be mirror images.

    Attributes:
        missing: clips whose features had to be computed.
    """

    def __init__(
        self, store: ClipStore, clips: np.ndarray, identity: Sequence[str], compute: Callable[[Pictures], Tensor],
        name: str, batch_size: int = 16, views: int = 1, mirror: bool = False,
    ) -> None:  # fmt: skip
        def rows(part: Sequence[int]) -> list[bytes]:
            shown = [view(load_crops(store, clip), clip, number, mirror) for clip in part for number in range(views)]
            parts = [compute(shown[start : start + batch_size]) for start in range(0, len(shown), batch_size)]
            features = torch.cat(parts).float().cpu().numpy().astype("<f4")
            return [block.tobytes() for block in np.split(features, len(part))]

        self.views = views
        # which windows a view has depends on the clip's place in its store
        where = str if views > 1 else lambda clip: ""
        job = CacheJob(identity, rows, name, max(batch_size // views, 1), where)
        self.folder, self.places, self.missing = cached_rows(store, clips, job)

    @property
    def width(self) -> int:
        """D."""
        return next(iter(self.places.values())).size // (4 * self.views)

    def __call__(self, clips: Sequence[int], views: Sequence[int] = (0,)) -> Tensor:
        """Features of clips by position in the store, each in one view: (n,), (n,) or (1,) -> (n, D) float32."""
        chosen, size = np.broadcast_to(np.asarray(views), len(clips)).tolist(), 4 * self.width
        rows = np.empty((len(clips), size), dtype=np.uint8)
        for row, clip, number in zip(rows, clips, chosen, strict=True):
            row[:] = self.folder.read(self.places[int(clip)])[number * size : (number + 1) * size]
        return torch.from_numpy(rows.view("<f4"))
