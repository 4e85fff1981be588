"""One optimiser object for the whole run: the encoder's (SGD or AdamW) and the helpers' AdamW behind one ``step``.

It is one object because a gradient scaler must see one: stepping two optimisers through the same fp16 scaler would
unscale the second one's gradients twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
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
        """Update every parameter."""
        for part in self.parts:
            part.step(closure)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget every gradient."""
        for part in self.parts:
            part.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """States of the parts, in order."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` gave."""
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self._link()
