"""Run a verb in a process of its own without waiting for its imports: it is forked from a server that has done them.

``conftest.py`` tells the server what to import, before a test or a fixture can start it.

What depends on how a process starts (a file run as a script, ``--help``, launchers, cold starts) starts a real one.
"""

from __future__ import annotations

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


def _child(words: tuple[str, ...], folder: str, cwd: Path | None) -> None:
    import torch

    from mmcl.cli import main

    for number, name in enumerate(("out", "err"), start=1):
        os.dup2(os.open(f"{folder}/{name}", os.O_WRONLY | os.O_CREAT, 0o600), number)
    os.environ |= ENVIRONMENT
    torch.set_num_threads(1)
    if cwd is not None:
        os.chdir(cwd)
    sys.argv = ["mmcl", *words]
    main()


def call_verb(*words: str, cwd: Path | None = None, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """``mmcl WORDS``: its exit status and what it printed."""
    with tempfile.TemporaryDirectory() as folder:
        process = CONTEXT.Process(target=_child, args=(words, folder, cwd))
        process.start()
        process.join(timeout)
        if process.is_alive():
            process.kill()
            raise TimeoutError(f"mmcl {' '.join(words)} ran longer than {timeout:.0f} seconds")
        printed = [(Path(folder) / name).read_text(encoding="utf-8") for name in ("out", "err")]
        return subprocess.CompletedProcess(words, process.exitcode or 0, *printed)
