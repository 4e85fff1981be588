"""Frozen towers are constants of a clip: compute their features once, store them beside the clips, read them after.

A cache file is keyed by everything the features depend on: the content of the store, the clips covered, the tower's
weights and settings, the question asked. A stale file can therefore not be picked up; an interrupted one is not there.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor, nn
from tqdm import tqdm

from mmcl.common.errors import UserError
from mmcl.data.dataset import load_crops
from mmcl.data.store import ClipStore
from mmcl.towers.claim import claimed_file
from mmcl.towers.views import view

Pictures = list[list[Image]]


def tower_fingerprint(module: nn.Module, settings: Any) -> str:
    """Hash of a tower's weights (all of them, frozen ones too), its settings, and what it is built of: activations."""
    parts = [(name, type(part).__qualname__) for name, part in module.named_modules()]
    return tensors_fingerprint([*module.named_parameters(), *module.named_buffers()], [settings, parts])


def tensors_fingerprint(tensors: Iterable[tuple[str, Tensor]], settings: Any) -> str:
    """Hash of named tensors and of settings that JSON or ``str`` can write down."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for name, tensor in sorted(tensors, key=lambda pair: pair[0]):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def cache_path(store: ClipStore, clips: np.ndarray, key: Sequence[str], suffix: str) -> Path:
    """Where the features of these clips under this key lie: in the ``features/`` folder of the store."""
    digest = hashlib.sha256("\n".join([store.fingerprint, *key]).encode())
    digest.update(np.ascontiguousarray(clips, dtype=np.int64).tobytes())
    return Path(store.path) / "features" / f"{digest.hexdigest()[:32]}{suffix}"


def row_numbers(clips: np.ndarray, total: int) -> np.ndarray:
    """(total,) clip -> its row among ``clips``; -1 where it has none."""
    rows = np.full(total, -1)
    rows[clips] = np.arange(len(clips))
    return rows


@dataclass(frozen=True)
class Work:
    """How the rows of a cache are computed.

    Attributes:
        compute: pictures of n clips -> (n, D) features.
        name: what is being computed, for the progress bar.
        batch_size: pictures of so many clips (or views) at once.
        views: rows a clip, one for each of so many views of its pictures.
        mirror: whether views may be mirror images.
    """

    compute: Callable[[Pictures], Tensor]
    name: str
    batch_size: int = 16
    views: int = 1
    mirror: bool = False


class FeatureCache:
    """Features (clips, D) of one frozen tower over the clips of a store. Pickles as its file's name.

    Args:
        store: where the clips are; the file lies in its ``features/`` folder.
        clips: positions of the clips covered, ascending.
        key: from :func:`tower_fingerprint` and whatever else the features depend on, views included.
        work: how to compute what is not there yet.
    """

    def __init__(self, store: ClipStore, clips: np.ndarray, key: Sequence[str], work: Work) -> None:
        self.path = cache_path(store, clips, key, ".npy")
        self.views = work.views
        self.hit = self.path.is_file()
        if not self.hit:
            _fill(self.path, store, clips, work)
        self.rows = np.load(self.path, mmap_mode="r")
        self._row_of = row_numbers(clips, len(store))

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "rows": None}  # a map would be pickled as all that it shows

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.rows = np.load(self.path, mmap_mode="r")

    @property
    def width(self) -> int:
        """D."""
        return int(self.rows.shape[1])

    def __call__(self, clips: Sequence[int], views: Sequence[int] = (0,)) -> Tensor:
        """Features of clips by position in the store, each in one view: (n,), (n,) or (1,) -> (n, D) float32."""
        rows = self._row_of[clips]
        assert (rows >= 0).all(), "a clip that this cache was not made for"
        return torch.from_numpy(np.asarray(self.rows[rows * self.views + views]))


def check_room(path: Path, name: str, needed: float, instead: str = "task.cache=false runs the tower live") -> None:
    """Make sure that a file fits: a full disk ends a process that writes to a map without a word.

    Args:
        path: of the file.
        name: of what is kept in it.
        needed: bytes.
        instead: what to do about it.

    Raises:
        UserError: the disk has not that much room.
    """
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise UserError(
            f"caching {name} needs {needed / 2**30:.2f} GiB in {path.parent}, where {free / 2**30:.2f} GiB are free: "
            f"make room, or {instead}"
        )


@torch.no_grad()
def _fill(path: Path, store: ClipStore, clips: np.ndarray, work: Work) -> None:
    rows: np.memmap | None = None
    keys = [(int(clip), number) for clip in clips for number in range(work.views)]
    with claimed_file(path) as temporary:
        if temporary is None:  # another run has made it meanwhile
            return
        for start in tqdm(range(0, len(keys), work.batch_size), desc=f"caching {work.name}", unit="batch"):
            part = keys[start : start + work.batch_size]
            pictures = [view(load_crops(store, clip), clip, number, work.mirror) for clip, number in part]
            features = work.compute(pictures).float().cpu().numpy()
            if rows is None:
                check_room(path, work.name, 4 * features.shape[1] * len(keys))
                rows = np.lib.format.open_memmap(temporary, "w+", np.float32, (len(keys), features.shape[1]))
            rows[start : start + len(part)] = features
        if rows is not None:
            rows.flush()
