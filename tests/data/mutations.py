"""What can happen to a file: cut, shuffled, flipped, swapped for something else; a reader that gets little memory."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mmcl.common.errors import UserError
from mmcl.data.clip import ClipSource, RawClip, Reader
from mmcl.data.preparation.build import prepare
from mmcl.data.preparation.finish import Summary
from mmcl.data.store import open_store

ROOM = 1 << 30  # bytes that reading may take beyond what the process has at its start
TIMEOUT = 5.0
# How the preparation words what no reader foresaw, and what came of too little memory.
UNEXPECTED = re.compile(r"unexpected [A-Z]\w+:|Traceback|worker process died|MemoryError")
NO_FILES = ("folder", "dangling link", "ring")
NO_NUMBERS = ("NaN", "inf", "1e999", "-1", "1000000000", "x", "", "9" * 5000, "0x10", "1_0", "١", '"', "[")


def damaged(data: bytes, flips: int = 8) -> dict[str, bytes]:
    """A file after all sorts of accidents, with fixed seeds."""
    rng = np.random.default_rng(len(data))
    found = {f"cut to {share:.0%}": data[: int(len(data) * share)] for share in (0, 0.02, 0.3, 0.6, 0.97)}
    found |= {"cut by one": data[:-1], "one byte": data[:1], "twice": data + data, "backwards": data[::-1]}
    found |= {
        "zeros": bytes(len(data)),
        "other tongue": "κίνησις ".encode("utf-16") + data,
        "not UTF-8": b"\xff" + data,
    }
    found |= {"middle lost": data[: len(data) // 3] + data[len(data) // 2 :], "noise": rng.bytes(2000)}
    for number in range(flips):
        flipped = bytearray(data)
        for place in rng.integers(0, len(data), (1, 4, 30)[number % 3]):
            flipped[place] ^= 1 << int(rng.integers(0, 8))
        found[f"flipped {number}"] = bytes(flipped)
    head = bytearray(data)
    for place in rng.integers(0, min(len(data), 200), 3):
        head[place] = int(rng.integers(0, 256))
    return found | {"head overwritten": bytes(head)}


def damaged_text(text: str, rounds: int = 3) -> dict[str, bytes]:
    """The same for text, and what only text knows: lines that move, numbers that are none."""
    rng, lines = np.random.default_rng(len(text)), text.split("\n")
    found = damaged(text.encode(), flips=2 * rounds)
    for number in range(rounds):
        order, place = rng.permutation(len(lines)), int(rng.integers(0, len(lines)))
        found[f"shuffled {number}"] = "\n".join(lines[at] for at in order).encode()
        found[f"line lost {number}"] = "\n".join([*lines[:place], *lines[place + 1 :]]).encode()
        found[f"line twice {number}"] = "\n".join([*lines[: place + 1], *lines[place:]]).encode()
    numbers = list(re.finditer(r"-?\d+(\.\d+)?", text))
    for value in NO_NUMBERS:
        for match in (numbers[0], numbers[1], numbers[len(numbers) // 2])[:rounds]:
            found[f"{value:.10} at {match.start()}"] = (text[: match.start()] + value + text[match.end() :]).encode()
    return found


def no_file(path: Path, kind: str) -> None:
    """Put something that is no file where one is expected."""
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(path.name if kind == "ring" else "nowhere")


def prepared(make: Callable[[], Reader], out: Path) -> Summary | None:
    """Prepare, and look at what came of it; None where the source was refused as a whole, in one line."""
    try:
        with little_memory(), little_time():
            reader = make()
            expected = len(reader.scan())
        summary = prepare(Guarded(reader), out, workers=1, timeout=TIMEOUT, progress=False)
    except UserError as error:
        assert str(error) and "\n" not in str(error) and not UNEXPECTED.search(str(error)), error
        assert not out.exists()
        return None
    for name, reason in summary.skipped:
        assert reason and "\n" not in reason, (name, reason)
        assert not UNEXPECTED.search(reason), (name, reason)
    store = open_store(out)
    assert len(store) + len(summary.skipped) == expected
    for index in range(len(store)):
        joints = store.joints(index)
        assert np.isfinite(joints).all() and joints.any(), store.ids[index]
    return summary


@contextlib.contextmanager
def little_time(seconds: int = 60) -> Iterator[None]:
    """Turn a hang into a failure."""

    def ring(*_: object) -> None:
        raise AssertionError(f"still not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def little_memory(room: int = ROOM) -> Iterator[None]:
    """Let this process map only so much more memory: whatever asks for more gets a MemoryError."""
    pages = Path("/proc/self/statm")
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    if pages.exists():
        taken = int(pages.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


class Guarded:
    """A reader whose worker processes have little memory, and none to spare for what a file merely announces."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.reader, name)

    def __reduce__(self) -> tuple[Callable[[Reader], Guarded], tuple[Reader]]:
        return Guarded, (self.reader,)

    def read(self, source: ClipSource) -> RawClip:
        with little_memory():
            return self.reader.read(source)
