"""Frozen towers are constants of a clip: compute their features once, store them beside the clips, read them after.

A cache file is keyed by everything the features depend on: the content of the store, the clips covered, the tower's
weights and settings, the question asked. A stale file can therefore not be picked up; an interrupted one is not there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from mmcl.data.dataset import load_crops
from mmcl.data.store import ClipStore
from mmcl.files import atomic_file


def tower_fingerprint(module: nn.Module, settings: Any) -> str:
    """Hash of a tower's weights (all of them, frozen ones too) and its settings."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    tensors = [*module.named_parameters(), *module.named_buffers()]
    for name, tensor in sorted(tensors, key=lambda pair: pair[0]):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


class FeatureCache:
    """Features (clips, D) of one frozen tower over the clips of a store.

    Args:
        store: where the clips are; the file lies in its ``features/`` folder.
        clips: positions of the clips covered, ascending.
        key: from :func:`tower_fingerprint` and whatever else the features depend on.
        compute: pictures of n clips -> (n, D) features.
        name: what is being computed, for the progress bar.
        batch_size: clips at once.
    """

    def __init__(
        self,
        store: ClipStore,
        clips: np.ndarray,
        key: Sequence[str],
        compute: Callable[[list[list[Image.Image]]], Tensor],
        name: str,
        batch_size: int = 16,
    ) -> None:
        digest = hashlib.sha256("\n".join([store.fingerprint, *key]).encode())
        digest.update(np.ascontiguousarray(clips, dtype=np.int64).tobytes())
        self.path = Path(store.path) / "features" / f"{digest.hexdigest()[:32]}.npy"
        self.hit = self.path.is_file()
        if not self.hit:
            _fill(self.path, store, clips, compute, name, batch_size)
        self.rows = np.load(self.path, mmap_mode="r")
        self._row_of = {int(clip): row for row, clip in enumerate(clips)}

    @property
    def width(self) -> int:
        """D."""
        return int(self.rows.shape[1])

    def __call__(self, clips: Sequence[int]) -> Tensor:
        """Features of clips by their position in the store: (n,) -> (n, D) float32."""
        return torch.from_numpy(np.stack([self.rows[self._row_of[clip]] for clip in clips]))


@torch.no_grad()
def _fill(
    path: Path,
    store: ClipStore,
    clips: np.ndarray,
    compute: Callable[[list[list[Image.Image]]], Tensor],
    name: str,
    batch_size: int,
) -> None:
    rows: np.memmap | None = None
    with atomic_file(path) as temporary:
        for start in tqdm(range(0, len(clips), batch_size), desc=f"caching {name}", unit="batch"):
            part = clips[start : start + batch_size]
            features = compute([load_crops(store, int(clip)) for clip in part]).float().cpu().numpy()
            if rows is None:
                rows = np.lib.format.open_memmap(temporary, "w+", np.float32, (len(clips), features.shape[1]))
            rows[start : start + len(part)] = features
        if rows is not None:
            rows.flush()
