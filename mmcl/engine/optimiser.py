"""One optimiser object for the whole run: the encoder's (SGD or AdamW) and the helpers' AdamW behind one ``step``.

It is one object because a gradient scaler must see one: stepping two optimisers through the same fp16 scaler would
unscale the second one's gradients twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, AdamW, Optimizer

from mmcl.engine.config import OptimiserOptions
from mmcl.errors import UserError
from mmcl.tasks.base import ParameterGroup


class RunOptimiser(Optimizer):
    """Main and helper optimisers as one. ``param_groups`` are theirs, each with its ``name`` and ``peak`` rate."""

    def __init__(self, groups: list[ParameterGroup], options: OptimiserOptions) -> None:
        adamw = [g for g in groups if g.kind == "adamw"]
        if unknown := sorted(set(options.rates) - {g.name for g in adamw}):
            raise UserError(f"optimiser.rates names {unknown}: this task has {[g.name for g in adamw]}")
        main = [{"params": g.parameters, "name": g.name} for g in groups if g.kind == "main"]
        helpers = [{"params": g.parameters, "name": g.name, "lr": options.rates.get(g.name, g.rate)} for g in adamw]
        self.parts: list[Optimizer] = []
        if main and options.name == "sgd":
            nesterov = options.nesterov and options.momentum > 0
            self.parts.append(
                SGD(main, options.rate, options.momentum, nesterov=nesterov, weight_decay=options.weight_decay)
            )
        elif main:
            self.parts.append(AdamW(main, options.rate, weight_decay=options.weight_decay))
        if helpers:
            self.parts.append(AdamW(helpers, weight_decay=options.adamw_weight_decay))
        super().__init__([group for part in self.parts for group in part.param_groups], {})
        self._link()
        for group in self.param_groups:
            group["peak"] = group["lr"]

    def _link(self) -> None:
        """Show the parts' own groups, so that a change of learning rate through this object reaches them."""
        self.param_groups = [group for part in self.parts for group in part.param_groups]

    def scale_rates(self, factor: float) -> None:
        """Set every group's learning rate to ``factor`` times its peak."""
        for group in self.param_groups:
            group["lr"] = factor * group["peak"]

    def rates(self) -> dict[str, float]:
        """Learning rate of each group by name."""
        return {group["name"]: float(group["lr"]) for group in self.param_groups}

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every parameter; one that a step left out has a gradient of zero, sharded or not."""
        for parameter in (parameter for group in self.param_groups for parameter in group["params"]):
            if parameter.requires_grad and parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        for part in self.parts:
            part.step(closure)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget every gradient."""
        for part in self.parts:
            part.zero_grad(set_to_none)

    def norms(self) -> dict[str, float]:
        """L2 norm of each group's gradient, by name; collective where parameters are sharded."""
        names, norms = [], []
        for group in self.param_groups:
            gradients = [parameter.grad for parameter in group["params"] if parameter.grad is not None]
            names.append(group["name"])
            norms.append(whole(torch.nn.utils.get_total_norm(gradients)) if gradients else torch.zeros(()))
        device = next((norm.device for norm in norms if norm.device.type != "cpu"), None)
        return dict(zip(names, torch.stack([norm.to(device) for norm in norms]).tolist(), strict=True))

    def state_dict(self) -> dict[str, Any]:
        """States of the parts, in order, with whole tensors: collective where parameters are sharded."""
        parts = [part.state_dict() for part in self.parts]
        for part in parts:
            part["state"] = {
                number: {key: whole(value) if isinstance(value, Tensor) else value for key, value in entry.items()}
                for number, entry in part["state"].items()
            }
        return {"parts": parts}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` gave, sharded as the parameters are now."""
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
            for parameter, entry in part.state.items():
                entry.update({key: _like(value, parameter) for key, value in entry.items() if value is not None})
        self._link()


def whole(tensor: Tensor) -> Tensor:
    """A sharded tensor put together (collective), any other as it is."""
    full: Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return full


def _like(value: Any, parameter: Any) -> Any:
    """A tensor in the parameter's shape, sharded as the parameter is."""
    if not hasattr(parameter, "full_tensor") or not isinstance(value, Tensor) or value.shape != parameter.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value, parameter.device_mesh, parameter.placements)
