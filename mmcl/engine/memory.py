"""What to do where a run does not fit into memory."""

from __future__ import annotations

from typing import Any

import torch

from mmcl.engine.config import TrainConfig
from mmcl.tasks import TASKS


def out_of_memory(config: TrainConfig, error: BaseException) -> str:
    """What was wanted, and which options need less; those that are in use already are not named.

    Args:
        config: of the run.
        error: that was raised.
    """
    return f"out of memory ({_wanted(error)}): these need less: {', '.join(_savers(config))}"


def _wanted(error: BaseException) -> str:
    """The first sentences of what PyTorch says: how much it asked for."""
    said = " ".join(str(error).split()) or type(error).__name__
    return ". ".join(said.split(". ")[:2])[:90].rstrip(".")


def _savers(config: TrainConfig) -> list[str]:
    parts = 2 * config.engine.accumulation
    micro = [f"--engine.accumulation={parts} (the same step in {parts} parts, but for losses that compare clips)"]
    savers = [key for key in TASKS[config.task_name].memory_savers if not _in_use(config, key)]
    if config.engine.precision == "fp32" and torch.accelerator.is_available():
        savers.append("engine.precision=bf16")
    return [*micro, *(f"--{key}" for key in savers)]


def _in_use(config: TrainConfig, saver: str) -> bool:
    """Whether a run has that option on already: what ``key=value`` says, or a number that is not the default 0."""
    key, _, value = saver.partition("=")
    found: Any = config
    for name in key.split("."):
        found = getattr(found, name)
    return str(found).lower() == value or (value.isdecimal() and bool(found))
