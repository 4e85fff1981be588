"""Official state dicts on their way to ours: names change, some tensors are stacked, no number does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from mmcl.common.errors import UserError

BATCH_NORM = ("weight", "bias", "running_mean", "running_var")
COUNT = "num_batches_tracked"  # absent from very old files


class Conversion:
    """Tensors that were found under official names, and those made of them so far.

    Args:
        what: the network's name, for messages.
        found: official state dict; half precision becomes float32.

    Attributes:
        state: our state dict.
        used: official names that were asked for.
    """

    def __init__(self, what: str, found: Mapping[str, Tensor]) -> None:
        self.what, self.found = what, found
        self.state: dict[str, Tensor] = {}
        self.used: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self.found

    def take(self, name: str) -> Tensor:
        """One of the official tensors.

        Raises:
            UserError: there is none of that name.
        """
        if name not in self.found:
            raise UserError(f"not an official {self.what} checkpoint: no tensor '{name}'")
        self.used.add(name)
        tensor = self.found[name]
        return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor

    def shape(self, name: str, axes: int) -> tuple[int, ...]:
        """The shape of one of the official tensors, from which sizes are read.

        Raises:
            UserError: there is none of that name with so many axes, or it is empty.
        """
        shape = tuple(self.found[name].shape) if name in self.found else ()
        if len(shape) != axes or 0 in shape:
            raise UserError(f"not an official {self.what} checkpoint: no tensor '{name}' with {axes} axes")
        return shape

    def tensor(self, ours: str, official: str, change: Callable[[Tensor], Tensor] = lambda tensor: tensor) -> None:
        """Take over one tensor, in another form."""
        self.state[ours] = change(self.take(official)).contiguous()

    def layer(
        self, ours: str, *official: str, kinds: Sequence[str] = ("weight", "bias"),
        change: Callable[[Tensor], Tensor] = lambda tensor: tensor,
    ) -> None:  # fmt: skip
        """Take over a layer, or several stacked along their output channels.

        Args:
            ours: name of the layer here.
            official: of one layer or more there.
            kinds: its tensors; those that the first official layer lacks are left out, but for the weight.
            change: of each tensor.
        """
        for kind in kinds:
            if kind == "weight" or f"{official[0]}.{kind}" in self:
                parts = [self.take(f"{name}.{kind}") for name in official]
                stacked = torch.cat(parts) if len(parts) > 1 else parts[0]  # a large one is not copied
                self.state[f"{ours}.{kind}"] = change(stacked).contiguous()

    def linear(self, ours: str, official: str) -> None:
        """Take over a 1x1 convolution as a linear layer."""
        self.layer(ours, official, change=lambda tensor: tensor.flatten(1) if tensor.dim() > 1 else tensor)

    def norm(self, ours: str, *official: str) -> None:
        """Take over a batch norm, or several stacked."""
        self.layer(ours, *official, kinds=BATCH_NORM)
        count = f"{official[0]}.{COUNT}"
        self.state[f"{ours}.{COUNT}"] = self.take(count).long() if count in self else torch.tensor(0)
        self.used.update(f"{name}.{COUNT}" for name in official)


def time_last(tensor: Tensor) -> Tensor:
    """A kernel over (time, joints) as one over (joints, time), which is how tensors lie here; biases as they are."""
    return tensor.transpose(2, 3) if tensor.dim() == 4 else tensor
