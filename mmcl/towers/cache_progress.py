"""Tells how far a cache has come and how long the rest takes, and refuses rows for which there is no room."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from mmcl.common.errors import UserError
from mmcl.towers.rows import RowFolder

WAIT = 0.2  # seconds between two looks at what other processes compute


class Progress:
    """Tells how much there is to do, how long that will take and whether there is room for it.

    Args:
        folder: that is filled.
        keys: of all rows that are wanted.
        name: what is being computed, for people.
        instead: what to do where there is no room for it.
        main: whether this process speaks for the others of its run.
    """

    def __init__(self, folder: RowFolder, keys: dict[int, bytes], name: str, instead: str, main: bool) -> None:
        self.folder, self.name, self.instead, self.main = folder, name, instead, main
        self.total, self.missing = len(keys), len(keys) - len(folder.find(keys.values()))
        self.bar = tqdm(total=self.missing, desc=f"caching {name}", unit="clip", disable=not main, leave=False)
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
                f"{self.name}: {self.total - self.missing} of {self.total} clips are there; {each / 2**20:.2f} MiB "
                f"a clip, {each * self.missing / 2**30:.2f} GiB and about {_duration(seconds)} of one process for the "
                f"others, in {self.folder.path.parent}", file=sys.stderr, flush=True,
            )  # fmt: skip
        check_room(self.folder.path.parent, self.name, each * self.missing, self.instead)

    def wait(self) -> None:
        """Let other processes get on; say so once."""
        if not self.waited:
            self.waited = True
            print(f"waiting for other processes, which compute the last {self.name}", file=sys.stderr, flush=True)
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
