"""What an optimiser remembers of parameters: read as whole tensors, judged, and restored as the parameters now lie."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from mmcl.common.errors import UserError

STEP = "step"  # what torch's optimisers call their count of steps, which stays on the CPU


class States:
    """Reads and restores what an optimiser remembers of a group's parameters, where it lies beside each of them."""

    def read(self, part: Optimizer, group: dict[str, Any]) -> list[dict[str, Any]]:
        """States of the group's parameters in their order, as whole tensors: collective where they are sharded."""
        return [
            {
                key: whole(value) if isinstance(value, Tensor) else value
                for key, value in part.state.get(parameter, {}).items()
            }
            for parameter in group["params"]
        ]

    def write(self, part: Optimizer, group: dict[str, Any], entries: list[dict[str, Any]]) -> None:
        """Restore what :meth:`read` gave."""
        for parameter, entry in zip(group["params"], entries, strict=True):
            if entry:
                part.state[parameter] = {
                    key: value if key == STEP else _like(value, parameter) for key, value in entry.items()
                }


def check_states(name: str, entries: list[dict[str, Any]], shapes: list[torch.Size]) -> None:
    """Whether what is remembered of a group can be of its parameters: the first step would end in an error, or in NaN.

    Raises:
        UserError: naming what cannot.
    """
    for entry, shape in zip(entries, shapes, strict=True):
        for key, value in entry.items():
            if isinstance(value, Tensor) and not ((key == STEP or value.shape == shape) and value.isfinite().all()):
                raise UserError(f"{key} of group {name} is of another shape or not finite")


def tensors_in(value: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    """Every tensor in nested mappings and lists, by where it is."""
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, Mapping):
        for key, entry in value.items():
            yield from tensors_in(entry, f"{name}.{key}")
    elif isinstance(value, list | tuple):
        for number, entry in enumerate(value):
            yield from tensors_in(entry, f"{name}.{number}")


def whole(tensor: Tensor) -> Tensor:
    """A sharded tensor put together (collective), any other as it is."""
    full: Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return full


def _like(value: Any, parameter: Any) -> Any:
    """A tensor in the parameter's shape, where and as the parameter is; anything else as it is."""
    if not isinstance(value, Tensor) or value.shape != parameter.shape:
        return value
    value = value.to(parameter.device)
    if not hasattr(parameter, "full_tensor"):
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value, parameter.device_mesh, parameter.placements)
