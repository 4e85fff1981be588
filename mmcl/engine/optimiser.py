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

from mmcl.common.errors import UserError
from mmcl.engine.config import OptimiserOptions
from mmcl.tasks.base import ParameterGroup

STEP = "step"  # what torch's optimisers call their count of steps, which stays on the CPU


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
        # The parts' own groups, so that a change of learning rate through this object reaches them.
        self.param_groups = [group for part in self.parts for group in part.param_groups]
        for group in self.param_groups:
            group["peak"] = group["lr"]
        self.states = States()

    def scale_rates(self, factor: float) -> None:
        """Set every group's learning rate to ``factor`` times its peak."""
        for group in self.param_groups:
            group["lr"] = factor * group["peak"]

    def rates(self) -> dict[str, float]:
        """Learning rate of each group by name."""
        return {group["name"]: float(group["lr"]) for group in self.param_groups}

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update the groups there are; a parameter that a step left out has a gradient of zero, sharded or not.

        ``param_groups`` may be some of the groups for a while: DeepSpeed takes a step with each.
        """
        for parameter in (parameter for group in self.param_groups for parameter in group["params"]):
            if parameter.requires_grad and parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        names = {group["name"] for group in self.param_groups}
        for part in self.parts:
            every = part.param_groups
            part.param_groups = [group for group in every if group["name"] in names]
            part.step(closure)
            part.param_groups = every

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
        """What is remembered of each parameter, by group, as whole tensors: collective where they are shared out."""
        return {"states": {group["name"]: self.states.read(part, group) for part, group in self._each()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` gave, shared out as the parameters are now.

        Raises:
            UserError: another version of mmcl wrote it.
        """
        if "states" not in state_dict:
            raise UserError("cannot resume: the checkpoint's optimiser was saved by another version of mmcl")
        for part, group in self._each():
            self.states.write(part, group, state_dict["states"][group["name"]])

    def _each(self) -> list[tuple[Optimizer, dict[str, Any]]]:
        """Every group with the optimiser that updates it."""
        return [(part, group) for part in self.parts for group in part.param_groups]


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
