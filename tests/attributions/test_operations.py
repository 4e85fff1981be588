"""DeepLIFT through networks of other packages: operations whose multipliers times differences sum to the output's."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmcl.attributions.differences import difference_gradient

SLOPE, FLOOR = nn.Parameter(torch.tensor([0.2], dtype=torch.float64)), nn.Parameter(torch.rand(8).double())
OPERATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "a number over it": lambda x: 1.0 / (1 + x.square()),
    "a power by it": lambda x: 2**x,
    "learned slope": lambda x: F.prelu(x, SLOPE),
    "learned floor": lambda x: torch.clamp(x, min=FLOOR),
    "erf": torch.erf,
    "exp2": torch.exp2,
    "log2": lambda x: torch.log2(1 + x.abs()),
    "log10": lambda x: torch.log10(1 + x.abs()),
    "cosh": torch.cosh,
    "sinh": torch.sinh,
    "tan": lambda x: torch.tan(0.1 * x),
    "softsign": F.softsign,
    "tanhshrink": F.tanhshrink,
    "hardshrink": F.hardshrink,
    "softshrink": F.softshrink,
    "sign": lambda x: x * torch.sign(x),
    "values of a maximum": lambda x: x * x.max(dim=-1, keepdim=True).values,
    "sorted": lambda x: x.sort(dim=-1).values,
    "largest": lambda x: x.topk(8, dim=-1).values,
    "rms_norm": lambda x: F.rms_norm(x, (8,)),
    "softmin": lambda x: F.softmin(x, dim=-1),
    "logaddexp": lambda x: torch.logaddexp(x, 2 * x),
    "hypot": lambda x: torch.hypot(x, x + 1),
    "lerp": lambda x: torch.lerp(x, 2 * x, x.sigmoid()),
    "addcdiv": lambda x: torch.addcdiv(x, x, 1 + x * x),
    "cumprod": lambda x: x.cumprod(dim=-1),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_nothing_of_a_difference_is_lost_between_two_layers(name: str) -> None:
    torch.manual_seed(0)
    first, last = nn.Linear(6, 8).double(), nn.Linear(8, 3).double()
    x, start = (2 * torch.randn(5, 6).double() for _ in range(2))
    target = torch.tensor([0, 1, 2, 0, 1])

    def network(joints: Tensor) -> Tensor:
        return last(OPERATIONS[name](first(joints)))

    multipliers = difference_gradient(network, x, start, target)
    with torch.no_grad():
        difference = (network(x) - network(start)).gather(1, target[:, None])[:, 0]
    total = (multipliers * (x - start)).sum(dim=1)
    torch.testing.assert_close(total, difference, rtol=0, atol=1e-4 * float(difference.abs().max()))
