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
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_unflatten

from mmcl.attributions.mean_jacobian import MeanJacobian
from mmcl.encoders.bodies import computing_every_body

_NAMES = {
    # of one tensor, each entry by itself
    "elementwise": "relu tanh sigmoid silu gelu hardswish hardsigmoid hardtanh relu6 leaky_relu elu selu celu mish "
    "softplus exp expm1 log log1p sqrt rsqrt square reciprocal abs sin cos acos asin atan arccos arcsin arctan clamp "
    "clamp_min clamp_max pow __pow__ __rpow__ __rdiv__ __rtruediv__ logsigmoid prelu threshold erf erfc exp2 log2 "
    "log10 sinh cosh tan sign softsign tanhshrink hardshrink softshrink",
    # linear in each of two tensors
    "product": "mul __mul__ __rmul__ __imul__ matmul __matmul__ __rmatmul__ bmm mm mv einsum baddbmm addmm addcmul",
    "quotient": "div divide true_divide __truediv__ __itruediv__",
    # of one entry among several
    "choice": "max_pool1d max_pool2d amax amin max min maximum minimum sort topk",
    "other": "softmax softmin log_softmax group_norm instance_norm rms_norm normalize logsumexp logaddexp norm "
    "vector_norm linalg_vector_norm hypot std var atan2 glu scaled_dot_product_attention cosine_similarity prod "
    "cumprod lerp addcdiv",
}
RULES = {name: rule for rule, names in _NAMES.items() for name in names.split()}  # by name of the operation


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
        moving = [(place, start) for place, start in zip(places, starts, strict=True) if _moves(leaves[place])]
        if not moving:
            return function(*args, **kwargs)
        forms: list[Callable[[Any], Any]] = []  # of several results, which may have names: those of a maximum do

        def call(*tensors: Tensor) -> Any:
            filled = list(leaves)
            for (place, _), tensor in zip(moving, tensors, strict=True):
                filled[place] = tensor.clone()  # an operation in place must not reach what was given
            own, named = tree_unflatten(filled, form)
            found = function(*own, **named)
            forms.append(type(found))
            return found

        ends = [leaves[place] for place, _ in moving]
        found = MeanJacobian.apply(call, kind, [start for _, start in moving], *ends)
        return found if isinstance(found, Tensor) else forms[0](found)


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


def _floats(args: Sequence[Any], kwargs: Mapping[str, Any] | None) -> list[Tensor]:
    return [leaf for leaf in tree_flatten((tuple(args), dict(kwargs or {})))[0] if _is_float(leaf)]


def _moves(tensor: Tensor) -> bool:
    """Whether a tensor depends on the input; a weight is the same in both runs, and nobody asks for its gradient."""
    return tensor.requires_grad and not isinstance(tensor, nn.Parameter)


def _is_float(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()
