"""How large and how costly an encoder is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from mmcl.encoders.base import Encoder

aten = torch.ops.aten


def count_parameters(module: nn.Module) -> int:
    """Numbers in the parameters of a module, whether they are trained at the moment or not."""
    return sum(parameter.numel() for parameter in module.parameters())


def count_macs(encoder: Encoder, frames: int) -> int:
    """Multiply-accumulates of one clip: convolutions and matrix products, as papers count them.

    Papers on skeleton networks print this number (T = 64, two persons) as "FLOPs"; a multiply-accumulate is two.

    Args:
        encoder: counted as it is, with the persons, joints and channels it was built for.
        frames: T.
    """
    training = encoder.training
    encoder.eval()
    try:
        return count_products(encoder, torch.ones_like(encoder.example(frames)))  # zeros would be absent persons
    finally:
        encoder.train(training)


def count_products(network: nn.Module, *inputs: Any) -> int:
    """Multiply-accumulates of one call, convolutions and matrix products only."""
    with torch.no_grad():
        return count_products_of(lambda: network(*inputs))


def count_products_of(call: Callable[[], object]) -> int:
    """The same of whatever is called: of a training step, those of the backward pass, too.

    Attention is computed in plain products for it: the counter does not know a processor's fused kernel.
    """
    with sdpa_kernel(SDPBackend.MATH), _Counter() as counter:
        call()
    return counter.operations // 2


class _Counter(TorchDispatchMode):
    """Sums up operations by torch's own formulas.

    torch's own counter also keeps account of modules, with hooks that fail in some training steps.
    """

    def __init__(self) -> None:
        super().__init__()
        from torch.utils.flop_counter import flop_registry  # imports triton, which takes as long as a prediction

        # torch has no formulas for products that are added up in place, which cost what the others cost.
        self.formulas = {
            **flop_registry,
            aten.addmm_: flop_registry[aten.addmm],
            aten.baddbmm_: flop_registry[aten.baddbmm],
        }
        self.operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        formula = self.formulas.get(func._overloadpacket)
        if formula is None and func is not torch.ops.prim.device.default:
            with self:  # in inference mode, operations come that are made of others
                found = func.decompose(*args, **kwargs)
            if found is not NotImplemented:
                return found
        found = func(*args, **kwargs)
        self.operations += 0 if formula is None else formula(*args, **kwargs, out_val=found)
        return found
