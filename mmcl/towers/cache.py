"""Frozen towers are constants of a clip: compute their features once, keep them beside the clips, read them after.

A cache is a folder for one tower with its settings, or one question; in it there is a row for each clip, found by the
digest of the clip's content. So any split, any run and any process that asks for a clip takes the row that is there,
and nothing that was made of another content or by another tower can be picked up. All processes that ask at the same
time share the work, and a kill loses no row that was written.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from filelock import FileLock, Timeout
from PIL.Image import Image
from torch import Tensor, nn
from tqdm import tqdm

from mmcl.common.errors import UserError
from mmcl.common.files import write_json
from mmcl.data.dataset import load_crops
from mmcl.data.store import ClipStore
from mmcl.towers.rows import KEY, Place, RowFolder, RowWriter
from mmcl.towers.views import view

Pictures = list[list[Image]]
ABOUT = "about.json"  # in each folder: what its rows are
SHARES = 64  # into which the clips are divided at most, to be computed by whoever comes first
WAIT = 0.2  # seconds between two looks at what other processes compute


def tower_fingerprint(module: nn.Module, settings: object) -> str:
    """Hash of a tower's weights (all of them, frozen ones too), its settings, and what it is built of: activations."""
    parts = [(name, type(part).__qualname__) for name, part in module.named_modules()]
    return tensors_fingerprint([*module.named_parameters(), *module.named_buffers()], [settings, parts])


def tensors_fingerprint(tensors: Iterable[tuple[str, Tensor]], settings: object) -> str:
    """Hash of named tensors and of settings that JSON or ``str`` can write down."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for name, tensor in sorted(tensors, key=lambda pair: pair[0]):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class CacheJob:
    """What the rows of a cache are, and how they are computed.

    Attributes:
        identity: of all that a row depends on besides its clip: tower, settings, question.
        compute: positions of n clips -> their n rows, as bytes.
        name: what is being computed, for people.
        batch_size: clips at once.
        clip_wise: what else a clip's row depends on, if anything; by position in the store.
        instead: what to do where there is no room for the cache.
    """

    identity: Sequence[str]
    compute: Callable[[Sequence[int]], Sequence[bytes]]
    name: str
    batch_size: int = 16
    clip_wise: Callable[[int], str] = field(default=lambda clip: "")
    instead: str = "task.cache=false runs the tower live"


class CachedRows(NamedTuple):
    """The folder of a cache, where in it each clip's row lies, and how many rows had not been there before."""

    folder: RowFolder
    places: dict[int, Place]
    missing: int


def cached_rows(store: ClipStore, clips: np.ndarray, job: CacheJob) -> CachedRows:
    """The rows of clips, after whatever is missing has been computed; all processes that call this share the work.

    Args:
        store: where the clips are; the cache lies in its ``features/`` folder.
        clips: positions of the clips.
        job: what the rows are.

    Raises:
        UserError: the disk has no room for the rows.
    """
    name = hashlib.sha256("\n".join(job.identity).encode()).hexdigest()[:32]
    folder = RowFolder(Path(store.path) / "features" / name)
    digests = {int(clip): store.digest(int(clip))[:KEY] for clip in clips}
    keys = {clip: _key(digest, job.clip_wise(clip)) for clip, digest in digests.items()}
    found = folder.find(keys.values())
    if missing := sum(key not in found for key in keys.values()):
        folder.path.mkdir(parents=True, exist_ok=True)
        write_json(folder.path / ABOUT, {"what": job.name, "identity": list(job.identity)})
        _fill(folder, keys, digests, job)
        found = folder.find(keys.values())
    return CachedRows(folder, {clip: found[key] for clip, key in keys.items()}, missing)


def _key(digest: bytes, more: str) -> bytes:
    return hashlib.sha256(digest + more.encode()).digest()[:KEY]


@torch.no_grad()
def _fill(folder: RowFolder, keys: dict[int, bytes], digests: dict[int, bytes], job: CacheJob) -> None:
    """Compute what is missing. The clips are divided into shares, of which each process takes those that are free."""
    shares = _shares(keys, job.batch_size)
    main = os.environ.get("RANK", "0") == "0"
    progress = _Progress(folder, keys, job, main)
    # processes begin at different places, so that they rarely ask for the same share
    waiting = sorted(shares, key=lambda number: (number - os.getpid()) % SHARES)
    with RowWriter(folder.path) as writer, progress.bar:
        while waiting:
            left = []
            for number in waiting:
                with _alone(folder.path / f"{number:02x}.lock") as ours:
                    if not ours:
                        left.append(number)
                        continue
                    there = folder.find(keys[clip] for clip in shares[number])
                    missing = [clip for clip in shares[number] if keys[clip] not in there]
                    for start in range(0, len(missing), job.batch_size):
                        part = missing[start : start + job.batch_size]
                        rows = job.compute(part)
                        progress.announce(part, rows)
                        writer.add([keys[clip] for clip in part], [digests[clip] for clip in part], rows)
                        progress.bar.update(len(part))
            if len(left) == len(waiting):
                progress.wait()
            waiting = left


def _shares(keys: dict[int, bytes], batch_size: int) -> dict[int, list[int]]:
    """The clips in shares of some batches each, by their keys: the same clip is in the same share for everybody."""
    count = SHARES
    while count > 1 and len(keys) < 2 * batch_size * count:
        count //= 2
    shares: dict[int, list[int]] = {}
    for clip, key in keys.items():
        shares.setdefault(key[0] % count, []).append(clip)
    return shares


@contextmanager
def _alone(file: Path) -> Iterator[bool]:
    """Whether this process has the lock of that file now. Without locks (some network disks), everybody has."""
    lock = FileLock(file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    except (OSError, NotImplementedError):
        yield True
        return
    try:
        yield True
    finally:
        lock.release()


class _Progress:
    """Tells how much there is to do, how long that will take and whether there is room for it.

    Args:
        folder: that is filled.
        keys: of all rows that are wanted.
        job: what is computed.
        main: whether this process speaks for the others of its run.
    """

    def __init__(self, folder: RowFolder, keys: dict[int, bytes], job: CacheJob, main: bool) -> None:
        self.folder, self.job, self.main = folder, job, main
        self.total, self.missing = len(keys), len(keys) - len(folder.find(keys.values()))
        self.bar = tqdm(total=self.missing, desc=f"caching {job.name}", unit="clip", disable=not main, leave=False)
        self.began, self.announced, self.waited = time.monotonic(), False, False

    def announce(self, part: Sequence[int], rows: Sequence[bytes]) -> None:
        """Say how large and how long it is going to be, by the first rows, before they are written.

        Raises:
            UserError: the disk has not that much room.
        """
        if self.announced:
            return
        self.announced = True
        each = sum(map(len, rows)) / len(rows)
        seconds = (time.monotonic() - self.began) / len(part) * self.missing
        if self.main:
            print(
                f"{self.job.name}: {self.total - self.missing} of {self.total} clips are there; {each / 2**20:.2f} MiB "
                f"a clip, {each * self.missing / 2**30:.2f} GiB and about {_duration(seconds)} of one process for the "
                f"others, in {self.folder.path.parent}", file=sys.stderr, flush=True,
            )  # fmt: skip
        check_room(self.folder.path.parent, self.job.name, each * self.missing, self.job.instead)

    def wait(self) -> None:
        """Let other processes get on; say so once."""
        if not self.waited:
            self.waited = True
            print(f"waiting for other processes, which compute the last {self.job.name}", file=sys.stderr, flush=True)
        time.sleep(WAIT)


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min" if minutes else "a minute"


def check_room(folder: Path, name: str, needed: float, instead: str) -> None:
    """Make sure that rows fit, before the first of them is written.

    Args:
        folder: that they go to.
        name: of what is kept in it.
        needed: bytes.
        instead: what to do about it.

    Raises:
        UserError: the disk has not that much room.
    """
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"caching {name} needs {needed / 2**30:.2f} GiB in {folder}, where {free / 2**30:.2f} GiB are free: "
            f"make room, or {instead}"
        )


class FeatureCache:
    """Features (D,) of one frozen tower for each of several views of a clip's pictures. Pickles small.

    Args:
        store: where the clips are.
        clips: positions of the clips covered.
        identity: from :func:`tower_fingerprint` and whatever else the features depend on, views included.
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
