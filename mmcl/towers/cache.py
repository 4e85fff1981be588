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
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor, nn

from mmcl.common.files import write_json
from mmcl.data.store import ClipStore
from mmcl.towers.cache_progress import Progress
from mmcl.towers.rows import KEY, Place, RowFolder, RowWriter

ABOUT = "about.json"  # in each folder: what its rows are
SHARES = 64  # into which the clips are divided at most, to be computed by whoever comes first


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
    progress = Progress(folder, keys, job.name, job.instead, main)
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
