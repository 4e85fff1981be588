"""A backward pass that carries finite differences instead of derivatives, through any network of torch operations.

A network is run on a start and on an end. Going back, each operation passes on the mean of its Jacobian along the
straight path between what it was given in the two runs. For an activation that is DeepLIFT's rescale rule, the
difference of its outputs over that of its inputs. For a product of two results it is the mean of the other factor, as
Shapley's value of two players has it. A linear operation passes on its derivative. Multipliers times differences of the
input then sum to the difference of the output, since they do so at every operation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_unflatten

from mmcl.attributions.integrated_gradients import nodes
from mmcl.encoders.bodies import computing_every_body

_NAMES = {
    # of one tensor, each entry by itself
    "elementwise": "relu tanh sigmoid silu gelu hardswish hardsigmoid hardtanh relu6 leaky_relu elu selu celu mish "
    "softplus exp expm1 log log1p sqrt rsqrt square reciprocal abs sin cos acos asin atan arccos arcsin arctan clamp "
    "clamp_min clamp_max pow __pow__ logsigmoid prelu threshold",
    # linear in each of two tensors
    "product": "mul __mul__ __rmul__ __imul__ matmul __matmul__ __rmatmul__ bmm mm mv einsum baddbmm addmm addcmul",
    "quotient": "div divide true_divide __truediv__ __itruediv__",
    # of one entry among several
    "choice": "max_pool1d max_pool2d amax amin max min maximum minimum",
    "other": "__rtruediv__ softmax log_softmax group_norm instance_norm normalize logsumexp norm vector_norm "
    "linalg_vector_norm std var atan2 glu scaled_dot_product_attention cosine_similarity prod",
}
RULES = {name: rule for rule, names in _NAMES.items() for name in names.split()}  # by name of the operation
STEPS = 16  # points of the path for operations without a closed form
SMALL = 1e-6  # differences of inputs below it are rounding: the derivative is taken


def difference_gradient(network: Callable[[Tensor], Tensor], x: Tensor, start: Tensor, target: Tensor) -> Tensor:
    """Multipliers of inputs: what a network's output changes by, per difference of an input.

    Args:
        network: (R, …) -> (R, K); in evaluation, the same operations whatever it is given.
        x: (R, …) ends.
        start: (R, …) starts.
        target: (R,) outputs to look at.

    Returns:
        (R, …) like ``x``; times ``x - start`` and summed, it is the difference of the target output.
    """
    leaf = x.detach().clone().requires_grad_(True)
    with computing_every_body(), torch.enable_grad():  # both times, since a network may go another way without
        with _Recording() as record:
            network(start)
        with _Replaying(record.inputs):
            total = network(leaf).gather(1, target[:, None]).sum()
        (gradient,) = torch.autograd.grad(total, leaf)
    return gradient


def _kind(function: Any) -> str | None:
    """Which rule an operation follows; None for what is taken to be linear."""
    name = getattr(function, "__name__", "")
    return RULES.get(name if name.startswith("__") else name.rstrip("_"))  # in place or not


class _Recording(TorchFunctionMode):
    """Keeps the tensors that operations with a rule are given, in their order."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs: list[list[Tensor]] = []

    def __torch_function__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if getattr(function, "__name__", "") == "layer_norm":
            with self:
                return _layer_norm(*args, **(kwargs or {}))
        if _kind(function) is not None:
            self.inputs.append([each.detach().clone() for each in _floats(args, kwargs)])
        return function(*args, **(kwargs or {}))


class _Replaying(TorchFunctionMode):
    """Runs the same operations on the end, each with a backward pass that knows what it was given at the start."""

    def __init__(self, inputs: list[list[Tensor]]) -> None:
        super().__init__()
        self.starts = iter(inputs)

    def __torch_function__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kind, kwargs = _kind(function), dict(kwargs or {})
        if getattr(function, "__name__", "") == "layer_norm":
            with self:
                return _layer_norm(*args, **kwargs)
        if kind is None:
            return function(*args, **kwargs)
        leaves, form = tree_flatten((tuple(args), kwargs))
        places = [number for number, leaf in enumerate(leaves) if _is_float(leaf)]
        starts = next(self.starts)
        moving = [(place, start) for place, start in zip(places, starts, strict=True) if leaves[place].requires_grad]
        if not moving:
            return function(*args, **kwargs)

        def call(*tensors: Tensor) -> Any:
            filled = list(leaves)
            for (place, _), tensor in zip(moving, tensors, strict=True):
                filled[place] = tensor.clone()  # an operation in place must not reach what was given
            own, named = tree_unflatten(filled, form)
            return function(*own, **named)

        ends = [leaves[place] for place, _ in moving]
        return _MeanJacobian.apply(call, kind, [start for _, start in moving], *ends)


class _MeanJacobian(torch.autograd.Function):
    """An operation whose backward pass is the mean of its Jacobian between starts and ends."""

    @staticmethod
    def forward(ctx: Any, call: Callable[..., Any], kind: str, starts: list[Tensor], *ends: Tensor) -> Any:
        ctx.call, ctx.kind, ctx.starts = call, kind, starts
        ctx.save_for_backward(*ends)
        found = call(*ends)
        if isinstance(found, Tensor):
            return found
        ctx.mark_non_differentiable(*found[1:])
        return tuple(found)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
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


def _layer_norm(
    x: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, bias: Tensor | None = None,
    eps: float = 1e-5, **_: Any,
) -> Tensor:  # fmt: skip
    """A layer norm in products and a root: as one operation it turns too sharply where a path crosses its centre."""
    axes = list(range(-len(normalized_shape), 0))
    centred = x - x.mean(dim=axes, keepdim=True)
    found = centred * torch.rsqrt((centred * centred).mean(dim=axes, keepdim=True) + eps)
    found = found if weight is None else found * weight
    return found if bias is None else found + bias


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


def _floats(args: Sequence[Any], kwargs: Mapping[str, Any] | None) -> list[Tensor]:
    return [leaf for leaf in tree_flatten((tuple(args), dict(kwargs or {})))[0] if _is_float(leaf)]


def _is_float(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()
