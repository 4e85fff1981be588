"""One optimiser object for a stage: one torch optimiser for each distinct way of updating, behind one ``step``.

It is one object because a gradient scaler must see one: stepping two optimisers through the same fp16 scaler would
unscale the second one's gradients twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import torch
from torch.optim import SGD, Adam, AdamW, Optimizer

from mmcl.common.errors import UserError
from mmcl.engine.config import OptimiserOptions
from mmcl.engine.optimiser_states import States, check_states, whole
from mmcl.tasks.stages import ParameterGroup, Update

CLIP_EPS = 1e-6  # that torch adds to a norm before it divides by it


class RunOptimiser(Optimizer):
    """The optimisers of a stage as one, which updates the groups that are due and leaves the others alone.

    Args:
        groups: that the stage trains.
        options: the run's own optimiser, and rates of groups by name.
        rate: factor on every learning rate.

    Attributes:
        param_groups: the parts' own, each with its ``name``, ``peak`` rate and ``clip``.
        due: names of the groups that the next step updates; all, until :meth:`begin_step` says otherwise.

    Raises:
        UserError: ``optimiser.rates`` names a group that has no rate of its own.
    """

    def __init__(self, groups: list[ParameterGroup], options: OptimiserOptions, rate: float = 1.0) -> None:
        _check_rates(groups, options)
        entries: dict[Update, list[dict[str, Any]]] = {}
        for group in groups:
            update = resolve(group, options)
            peak = update.rate * group.scale * rate
            entries.setdefault(update, []).append(
                {"params": group.parameters, "name": group.name, "lr": peak, "peak": peak, "clip": group.clip}
            )
        self.parts = [_torch_optimiser(update, own) for update, own in entries.items()]
        super().__init__([group for part in self.parts for group in part.param_groups], {})
        # The parts' own groups, so that a change of learning rate through this object reaches them.
        self.param_groups = [group for part in self.parts for group in part.param_groups]
        # Of the groups, no parameters are kept: sharding replaces them.
        self.beats = {group.name: (group.first, group.every) for group in groups}
        self.counts = {group.name: len(group.parameters) for group in groups}
        self.shapes = {group.name: [parameter.shape for parameter in group.parameters] for group in groups}
        self.due: tuple[str, ...] = tuple(self.beats)
        self.states = States()

    def begin_step(self, step: int, factor: float) -> tuple[str, ...]:
        """Set learning rates for a step of the stage, and return the names of the groups that it updates."""
        for group in self.param_groups:
            group["lr"] = factor * group["peak"]
        beats = self.beats.items()
        self.due = tuple(name for name, (first, every) in beats if step >= first and (step - first) % every == 0)
        return self.due

    def rates(self) -> dict[str, float]:
        """Learning rate of each group by name."""
        return {group["name"]: float(group["lr"]) for group in self.param_groups}

    def forget_others(self) -> None:
        """Drop the gradients of groups that are not due: nothing that looks at all gradients shall count them."""
        for group in self.param_groups:
            if group["name"] not in self.due:
                for parameter in group["params"]:
                    parameter.grad = None

    @torch.no_grad()
    def clip_tensors(self) -> None:
        """Shorten the gradient of each tensor to its group's ``clip``; collective where parameters are sharded.

        By the factor of ``torch.nn.utils.clip_grad_norm_``, whose norms end a little below the bound.
        """
        for group in self.param_groups:
            if group["clip"]:
                for gradient in (parameter.grad for parameter in group["params"] if parameter.grad is not None):
                    norm = whole(torch.linalg.vector_norm(gradient))
                    gradient.mul_((group["clip"] / (norm + CLIP_EPS)).clamp_max(1.0))

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update the groups that are due; a parameter of theirs that a step left out has a gradient of zero.

        ``param_groups`` may be some of the groups for a while: DeepSpeed takes a step with each.
        """
        due = [group for group in self.param_groups if group["name"] in self.due]
        for parameter in (parameter for group in due for parameter in group["params"]):
            if parameter.requires_grad and parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        names = {group["name"] for group in due}
        for part in self.parts:
            every = part.param_groups
            part.param_groups = [group for group in every if group["name"] in names]
            if part.param_groups:
                part.step(closure)
            part.param_groups = every

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget every gradient."""
        for part in self.parts:
            part.zero_grad(set_to_none)

    def norms(self) -> dict[str, float]:
        """L2 norm of the gradient of each group that is due, by name; collective where parameters are sharded."""
        norms = {}
        for group in self.param_groups:
            gradients = [parameter.grad for parameter in group["params"] if parameter.grad is not None]
            if group["name"] in self.due:
                norms[group["name"]] = whole(torch.nn.utils.get_total_norm(gradients)) if gradients else torch.zeros(())
        device = next((norm.device for norm in norms.values() if norm.device.type != "cpu"), None)
        values = torch.stack([norm.to(device) for norm in norms.values()]).tolist() if norms else []
        return dict(zip(norms, values, strict=True))

    def state_dict(self) -> dict[str, Any]:
        """What is remembered of each parameter, by group, as whole tensors: collective where they are shared out."""
        return {"states": {group["name"]: self.states.read(part, group) for part, group in self._each()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` gave, shared out as the parameters are now.

        Raises:
            UserError: it is of other groups, or of groups of other parameters, or holds what is not finite.
        """
        if {name: len(entries) for name, entries in state_dict["states"].items()} != self.counts:
            raise UserError("cannot resume: the checkpoint's optimiser was saved by another version of mmcl")
        for name, entries in state_dict["states"].items():
            check_states(name, entries, self.shapes[name])
        for part, group in self._each():
            self.states.write(part, group, state_dict["states"][group["name"]])

    def remembers(self, state_dict: dict[str, Any]) -> bool:
        """Whether it has something of a step in it, as every optimiser leaves but plain gradient descent."""
        plain = all(isinstance(part, SGD) and not part.defaults["momentum"] for part in self.parts)
        return plain or any(entry for entries in state_dict["states"].values() for entry in entries)

    def _each(self) -> list[tuple[Optimizer, dict[str, Any]]]:
        """Every group with the optimiser that updates it."""
        return [(part, group) for part in self.parts for group in part.param_groups]


def resolve(group: ParameterGroup, options: OptimiserOptions) -> Update:
    """How a group is updated: as it says, as the run says where it says nothing, with the rate that the run names."""
    if group.update is None:
        nesterov = options.nesterov and options.momentum > 0
        decay = options.weight_decay if group.decays else 0.0
        return Update(options.name, options.rate, options.momentum, nesterov, options.betas, decay)
    own = options.adamw_weight_decay if group.update.weight_decay is None else group.update.weight_decay
    rate = options.rates.get(group.name, group.update.rate)
    return replace(group.update, rate=rate, weight_decay=own if group.decays else 0.0)


def _check_rates(groups: Iterable[ParameterGroup], options: OptimiserOptions) -> None:
    if fixed := sorted({group.name for group in groups if group.update is None} & set(options.rates)):
        raise UserError(f"optimiser.rates names {', '.join(fixed)}, whose rate is optimiser.rate")


def _torch_optimiser(update: Update, groups: list[dict[str, Any]]) -> Optimizer:
    if update.name == "sgd":
        momentum, decay = update.momentum, update.weight_decay or 0.0
        return SGD(groups, update.rate, momentum, nesterov=update.nesterov and momentum > 0, weight_decay=decay)
    kind = AdamW if update.name == "adamw" else Adam
    return kind(groups, update.rate, update.betas, weight_decay=update.weight_decay or 0.0)
