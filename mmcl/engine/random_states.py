"""The random states of a process: everything that a library may draw from without being given a generator."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmcl.common.errors import UserError
from mmcl.common.torch_files import read_torch

WORDS = 624  # of the state of a Mersenne Twister


def random_file(process: int) -> str:
    """Name of the file of a checkpoint that holds those of one process."""
    return f"random_{process}.pt"


def random_states() -> dict[str, Any]:
    """States of Python's, NumPy's and PyTorch's generators, as plain values that ``torch.save`` keeps."""
    name, keys, *rest = np.random.get_state()
    accelerator = torch.accelerator.is_available()
    return {
        "python": random.getstate(),
        "numpy": (name, np.asarray(keys).tolist(), *rest),
        "torch": torch.get_rng_state(),
        "device": torch.get_device_module().get_rng_state() if accelerator else None,
    }


def restore_random_states(file: Path) -> None:
    """Restore what :func:`random_states` gave.

    Raises:
        UserError: the file is missing, damaged, or holds something else.
    """
    try:
        states = read_torch(file)
        name, keys, place, *rest = states["numpy"]
        if len(keys) != WORDS or not 0 <= place <= WORDS:  # NumPy would read beyond them
            raise ValueError(f"NumPy's generator has {WORDS} words, not {len(keys)} at {place}")
        random.setstate(states["python"])
        np.random.set_state((name, np.array(keys, dtype=np.uint32), place, *rest))
        torch.set_rng_state(states["torch"])
        if states["device"] is not None and torch.accelerator.is_available():
            torch.get_device_module().set_rng_state(states["device"])
    except (UserError, RuntimeError, ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
        words = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"cannot resume: {file} is missing or damaged ({words:.100})") from error
