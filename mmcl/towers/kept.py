"""What lies in a store's ``features/`` folder, for people: listed and cleared up by ``mmcl check``."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmcl.common.errors import UserError
from mmcl.data.store import ClipStore
from mmcl.towers.cache import ABOUT
from mmcl.towers.rows import KEY, Place, RowFolder, RowWriter

ALL = "all"
STALE = ""  # what is of no use any more


@dataclass(frozen=True)
class KeptFeatures:
    """One cache.

    Attributes:
        path: its folder, or a file of an older mmcl.
        what: what its rows are, in words.
        rows: of clips that the store holds.
        others: rows of clips that it does not hold any more.
        bytes: on the disk.
    """

    path: Path
    what: str
    rows: int
    others: int
    bytes: int

    def __str__(self) -> str:
        others = f" and {self.others} of clips that are not here any more" if self.others else ""
        return f"{self.path.name[:8]}  {self.what}: {self.rows} rows{others}, {self.bytes / 1e6:.1f} MB"


def kept_features(store: ClipStore) -> list[KeptFeatures]:
    """The caches of a store, by name."""
    folder, clips = Path(store.path) / "features", _clips(store)
    found = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if not path.is_dir():
            found.append(KeptFeatures(path, "of an older mmcl, read no more", 0, 0, path.stat().st_size))
            continue
        size = sum(file.stat().st_size for file in path.iterdir())
        owners = [bytes(clip) for entries in RowFolder(path).entries().values() for clip in entries["clip"]]
        here = sum(owner in clips for owner in owners)
        found.append(KeptFeatures(path, _about(path), here, len(owners) - here, size))
    return found


def prune_features(store: ClipStore, which: str = STALE) -> int:
    """Delete cached features; they are computed again when they are needed. Nothing may be training on them.

    Args:
        store: whose they are.
        which: beginning of a cache's name; ALL; or STALE: rows of clips that are not in the store any more, and files
            of older versions.

    Returns:
        Bytes that were freed.

    Raises:
        UserError: no cache is called that.
    """
    caches = kept_features(store)
    before = sum(cache.bytes for cache in caches)
    if which == STALE:
        for cache in caches:
            if not cache.rows:
                _remove(cache.path)
            elif cache.others:
                _keep_only(cache.path, _clips(store))
    else:
        chosen = [cache for cache in caches if which == ALL or cache.path.name.startswith(which)]
        if not chosen:
            names = ", ".join(cache.path.name[:8] for cache in caches) or "none"
            raise UserError(f"no cached features '{which}' in {store.location}: there are {names}")
        for cache in chosen:
            _remove(cache.path)
    return before - sum(cache.bytes for cache in kept_features(store))


def _clips(store: ClipStore) -> set[bytes]:
    return {store.digest(index)[:KEY] for index in range(len(store))}


def _about(path: Path) -> str:
    """What a cache's folder says of itself."""
    try:
        about = json.loads((path / ABOUT).read_text(encoding="utf-8"))
        question = about["identity"][2:3]
        return str(about["what"]) + (f" ({question[0]})" if question else "")
    except (OSError, ValueError, KeyError, TypeError):
        return "unknown"


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def _keep_only(path: Path, clips: set[bytes]) -> None:
    """Write the rows of these clips anew, then delete the older files."""
    folder = RowFolder(path)
    older = folder.entries()
    with RowWriter(path) as writer:
        for name, entries in older.items():
            for entry in entries[[bytes(clip) in clips for clip in entries["clip"]]]:
                row = folder.read(Place(name, int(entry["start"]), int(entry["size"])))
                writer.add([bytes(entry["key"])], [bytes(entry["clip"])], [np.asarray(row).tobytes()])
    for name in older:
        for suffix in (".index", ".rows"):
            (path / f"{name}{suffix}").unlink()
