"""The machine that a measurement was made on, and how much memory processes took meanwhile."""

from __future__ import annotations

import os
import platform
import threading
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from mmcl import __version__
from mmcl.data.preparation.pool import default_workers

EVERY = 0.05  # seconds between two looks at the processes


def machine(*packages: str) -> dict[str, Any]:
    """Processor, memory, threads and versions."""
    return {
        "processor": _processor(),
        "instructions": _instructions(),
        "processors": default_workers(),
        "memory_bytes": psutil.virtual_memory().total,
        "system": platform.platform(terse=True),
        "threads": os.environ.get("OMP_NUM_THREADS", "not set"),
        "waiting": os.environ.get("OMP_WAIT_POLICY", "not set"),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "versions": {
            "python": platform.python_version(),
            "mmcl": __version__,
            **{name: version(name) for name in packages},
        },
    }


def in_words(here: dict[str, Any]) -> str:
    """What speed depends on, of what :func:`machine` found, in one line."""
    waiting = "" if here["waiting"] == "not set" else f", OMP_WAIT_POLICY={here['waiting']}, which moves all ratios"
    kinds = f" ({here['instructions']})" if here["instructions"] else ""
    return f"{here['processor']}{kinds}, {here['processors']} processors, load {here['load']} at the start{waiting}"


def _processor() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _instructions() -> str:
    """The widest vectors, and whether products of 8-bit integers are summed in one instruction."""
    flags = set(_cpuinfo("flags").split())
    width = next((name for flag, name in (("avx512f", "AVX-512"), ("avx2", "AVX2")) if flag in flags), "")
    return f"{width} VNNI" if flags & {"avx512_vnni", "avx_vnni"} else width


def _cpuinfo(key: str) -> str:
    cpus = Path("/proc/cpuinfo")
    lines = cpus.read_text(encoding="utf-8").splitlines() if cpus.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")


class PeakMemory:
    """Largest resident sizes of this process and of those it started, while the block runs.

    Looks at the processes many times a second, since the kernel's own peak of child processes is that of the largest
    one alone. Pages that processes share count for each of them, so the sum is an upper bound. A process counts from
    the second look on: one that has just been started has the memory of the process that started it until its own
    program begins, and would count all of that twice.

    Attributes:
        before: bytes of this process when the block began.
        parent: bytes of this process at its largest.
        children: bytes of all others together at their largest.
        together: bytes of all at the moment when they were largest.
    """

    def __enter__(self) -> PeakMemory:
        self.before = psutil.Process().memory_info().rss
        self.parent = self.children = self.together = 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        me = psutil.Process()
        seen: set[psutil.Process] = set()
        while True:
            others = set(me.children(recursive=True))
            parent, children = me.memory_info().rss, sum(map(_resident, others & seen))
            seen = others
            self.parent, self.children = max(self.parent, parent), max(self.children, children)
            self.together = max(self.together, parent + children)
            if self._end.wait(EVERY):
                return

    def facts(self) -> dict[str, int]:
        """The attributes, for a report."""
        return {name: getattr(self, name) for name in ("before", "parent", "children", "together")}


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:  # it has ended meanwhile
        return 0
