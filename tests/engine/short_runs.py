"""A short run in this process, its checkpoints after each step, for tests of what its folder holds."""

from __future__ import annotations

from pathlib import Path

from forked import reset_accelerate
from running import arguments

from mmcl.engine.parsing import parse
from mmcl.train import train

SHORT = ["--schedule.epochs=2", "--engine.checkpoint_steps=1"]


def run(store: Path, out: Path, *more: str) -> int:
    """Train for two epochs, as the command does.

    Returns:
        The exit status.
    """
    reset_accelerate()
    return train(parse(arguments(store, out, *SHORT, *more)))
