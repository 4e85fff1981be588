"""What "frozen" means for a tower: its output is a constant of its input, and its weights are in no checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


@contextmanager
def constant_forward(device: torch.device, precision: str = "fp32") -> Iterator[None]:
    """Run a frozen module: no gradient, and its own precision whatever autocast surrounds it.

    A feature computed inside a mixed-precision training step is then the one that was cached outside of it.
    """
    with torch.no_grad(), torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
        yield


def trained_names(module: nn.Module) -> set[str]:
    """Names of the state that training changes.

    That is every parameter that requires a gradient, and the buffers beside one (batch norm's running statistics).
    """
    names: set[str] = set()
    for prefix, child in module.named_modules(remove_duplicate=False):
        trained = [name for name, parameter in child.named_parameters(recurse=False) if parameter.requires_grad]
        if trained:
            names.update(f"{prefix}.{name}" if prefix else name for name in trained)
            names.update(f"{prefix}.{name}" if prefix else name for name, _ in child.named_buffers(recurse=False))
    return names


def save_only_trained(module: nn.Module) -> None:
    """Make ``state_dict()`` hold what training changes, and ``load_state_dict(strict=True)`` ask for no more.

    The frozen rest comes from the checkpoint the tower was made from, so that a run's checkpoints hold a LoRA of
    some megabytes and not the language model under it. Call it once ``requires_grad`` is settled.
    """
    trained = trained_names(module)
    seen = {"prefix": ""}  # where this module sits in the tree that is being loaded

    def drop_frozen(_: nn.Module, state: dict[str, Any], prefix: str, __: Any) -> None:
        for key in [key for key in state if key.startswith(prefix) and key[len(prefix) :] not in trained]:
            del state[key]

    def note_prefix(_: nn.Module, __: dict[str, Any], prefix: str, *___: Any) -> None:
        seen["prefix"] = prefix

    def forgive_frozen(_: nn.Module, incompatible: Any) -> None:
        prefix = seen["prefix"]
        incompatible.missing_keys[:] = [
            key for key in incompatible.missing_keys if not key.startswith(prefix) or key[len(prefix) :] in trained
        ]

    module.register_state_dict_post_hook(drop_frozen)
    module.register_load_state_dict_pre_hook(note_prefix)
    module.register_load_state_dict_post_hook(forgive_frozen)
