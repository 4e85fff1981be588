"""Run a verb in a process of its own without waiting for its imports: it is forked from a server that has done them.

``conftest.py`` tells the server what to import, before a test or a fixture can start it.

What depends on how a process starts (a file run as a script, ``--help``, launchers, cold starts) starts a real one.
"""

from __future__ import annotations

import atexit
import gc
import multiprocessing
import os
import subprocess
import sys
import tempfile
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
PRELOADED = ["mmcl.engine.loop", "mmcl.tasks.colearn.task", "mmcl.engine.parsing", "torchvision", "open_clip", "peft",
             "jsonargparse", "pandas"]  # fmt: skip
ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}


def _child(words: tuple[str, ...], folder: str, cwd: Path | None, group: bool) -> None:
    import torch

    from mmcl.cli import main

    if group:
        os.setsid()
    for number, name in enumerate(("out", "err"), start=1):
        os.dup2(os.open(f"{folder}/{name}", os.O_WRONLY | os.O_CREAT, 0o600), number)
    os.environ |= ENVIRONMENT
    gc.freeze()  # what the server imported need not be looked through again
    torch.set_num_threads(1)
    if cwd is not None:
        os.chdir(cwd)
    sys.argv = ["mmcl", *words]
    try:
        main()
    finally:  # as an interpreter does at its end, and a forked process does not: loader workers that are left are ended
        atexit._run_exitfuncs()


class Started:
    """``mmcl WORDS`` while it runs; it is asked and stopped like a ``subprocess.Popen``.

    Args:
        words: the verb and what follows.
        cwd: folder in which it runs.
        group: whether it leads a process group of its own.
    """

    def __init__(self, *words: str, cwd: Path | None = None, group: bool = False) -> None:
        self.words = words
        self._folder = tempfile.TemporaryDirectory()
        self._process = CONTEXT.Process(target=_child, args=(words, self._folder.name, cwd, group))
        self._process.start()

    @property
    def pid(self) -> int:
        """Of the process, and of its group where it leads one."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Exit status, or minus the signal that ended it; None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """Its exit status, if it has ended."""
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.returncode is None:
            os.kill(self.pid, number)

    def communicate(self, timeout: float = 300) -> tuple[str, str]:
        """Wait for its end; what it printed, and what it complained of."""
        self._process.join(timeout)
        if self.returncode is None:
            self._process.kill()
            raise TimeoutError(f"mmcl {' '.join(self.words)} ran longer than {timeout:.0f} seconds")
        out, err = ((Path(self._folder.name) / name).read_text(encoding="utf-8") for name in ("out", "err"))
        self._folder.cleanup()
        return out, err


def call_verb(*words: str, cwd: Path | None = None, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """``mmcl WORDS``: its exit status and what it printed."""
    started = Started(*words, cwd=cwd)
    printed = started.communicate(timeout)
    return subprocess.CompletedProcess(words, started.returncode or 0, *printed)
