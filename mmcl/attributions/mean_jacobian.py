"""The mean of an operation's Jacobian along the straight path between two inputs, as that operation's backward pass.

Activations and quotients have closed forms, and choices share out what is missing; others are averaged over points.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from mmcl.attributions.integrated_gradients import nodes

STEPS = 16  # points of the path for operations without a closed form
SMALL = 1e-6  # differences of inputs below it are rounding: the derivative is taken


class MeanJacobian(torch.autograd.Function):
    """An operation whose backward pass is the mean of its Jacobian between starts and ends."""

    @staticmethod
    def forward(ctx: Any, call: Callable[..., Any], kind: str, starts: list[Tensor], *ends: Tensor) -> Any:
        """The operation at the ends; of several results, gradients go through the first."""
        ctx.call, ctx.kind, ctx.starts = call, kind, starts
        ctx.save_for_backward(*ends)
        found = call(*ends)
        if isinstance(found, Tensor):
            return found
        ctx.mark_non_differentiable(*found[1:])
        return tuple(found)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        """Gradients of the ends alone, each times the mean Jacobian."""
        ends, wanted = ctx.saved_tensors, gradients[0]
        if ctx.kind == "elementwise" and len(ends) == 1:
            found = [_slope(ctx.call, ctx.starts[0], ends[0]) * wanted]
        elif ctx.kind == "quotient" and len(ends) == 2:
            found = _quotient(ctx.starts, ends, wanted)
        elif ctx.kind == "choice":
            found = _chosen(ctx.call, ctx.starts, ends, wanted)
        else:
            found = _mean_jacobian(ctx.call, ctx.starts, ends, wanted, 1 if ctx.kind == "product" else STEPS)
        return None, None, None, *found


def _slope(call: Callable[[Tensor], Tensor], start: Tensor, end: Tensor) -> Tensor:
    """Difference of outputs over that of inputs, entry by entry; the derivative where inputs hardly differ."""
    with torch.enable_grad():
        leaf = end.detach().clone().requires_grad_(True)
        after = call(leaf)
        (derivative,) = torch.autograd.grad(after.sum(), leaf)
    with torch.no_grad():
        step = end - start
        near = step.abs() < SMALL
        return torch.where(near, derivative, (after - call(start)) / torch.where(near, 1.0, step))


def _quotient(starts: Sequence[Tensor], ends: Sequence[Tensor], wanted: Tensor) -> list[Tensor]:
    """The mean Jacobian of a division in closed form, since points on the path miss a divisor that begins near zero."""
    (a0, b0), (a, b) = starts, ends
    step, ratio = b - b0, b / b0
    even = (step.abs() < SMALL * b.abs()) | ~(ratio > 0)  # hardly another divisor, or one that passes through zero
    mean = torch.where(even, 1 / b, torch.where(even, 1.0, ratio).log() / torch.where(even, 1.0, step))  # of 1 / b
    rest = (a / b - a0 / b0 - (a - a0) * mean) / torch.where(step == 0, 1.0, step)
    rest = torch.where(step.abs() < SMALL * b.abs(), -a / b.square(), rest)
    return [(wanted * mean).sum_to_size(a.shape), (wanted * rest).sum_to_size(b.shape)]


def _mean_jacobian(
    call: Callable[..., Any], starts: Sequence[Tensor], ends: Sequence[Tensor], wanted: Tensor, steps: int = STEPS
) -> list[Tensor]:
    """A gradient passed back through an operation at points between starts and ends, and averaged."""
    total = [torch.zeros_like(end) for end in ends]
    for way, weight in zip(*nodes(steps), strict=True):
        with torch.enable_grad():
            between = [point.requires_grad_(True) for point in _between(starts, ends, float(way))]
            parts = torch.autograd.grad(_first(call(*between)), between, wanted)
        for sum_of, part in zip(total, parts, strict=True):
            sum_of.add_(part, alpha=float(weight))
    return total


def _chosen(call: Callable[..., Any], starts: Sequence[Tensor], ends: Sequence[Tensor], wanted: Tensor) -> list[Tensor]:
    """The mean Jacobian of a maximum, whose steps no number of points meets exactly.

    What is missing of an output's difference is shared among the entries that are the largest somewhere on the path,
    in proportion to their squared differences and to how long they are.
    """
    steps = [end - start for start, end in zip(starts, ends, strict=True)]
    squares = [step.square() for step in steps]
    met, size = torch.zeros_like(wanted), torch.zeros_like(wanted)
    for way, weight in zip(*nodes(STEPS), strict=True):
        point = _between(starts, ends, float(way))
        for sum_of, tangents in ((met, steps), (size, squares)):
            sum_of.add_(_forward(call, point, tangents), alpha=float(weight))
    missing = _first(call(*ends)) - _first(call(*starts)) - met
    share = torch.where(size > 0, missing / torch.where(size > 0, size, 1.0), 0.0)
    plain = _mean_jacobian(call, starts, ends, wanted)
    rest = _mean_jacobian(call, starts, ends, wanted * share)
    return [one + step * other for one, step, other in zip(plain, steps, rest, strict=True)]


def _forward(call: Callable[..., Any], point: Sequence[Tensor], tangents: Sequence[Tensor]) -> Tensor:
    """The Jacobian times tangents, by two backward passes: the first is linear in what it passes back."""
    with torch.enable_grad():
        leaves = [each.detach().requires_grad_(True) for each in point]
        found = _first(call(*leaves))
        passed = torch.zeros_like(found, requires_grad=True)
        back = torch.autograd.grad(found, leaves, passed, create_graph=True)
        (result,) = torch.autograd.grad(back, passed, tangents)
    return result


def _between(starts: Sequence[Tensor], ends: Sequence[Tensor], way: float) -> list[Tensor]:
    return [torch.lerp(start, end.detach(), way) for start, end in zip(starts, ends, strict=True)]


def _first(found: Any) -> Tensor:
    """The values of an operation that may also say where they stand."""
    return found if isinstance(found, Tensor) else found[0]
