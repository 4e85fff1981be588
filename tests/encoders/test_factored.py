"""Factored layers compute what their product computes, and are still what they were to whoever asks."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from mmcl.common.errors import UserError
from mmcl.encoders.factored import Factored, factored, kind_of, merge

LAYERS = {
    "linear": (lambda: nn.Linear(6, 8), (5, 6), [3]),
    "fused": (lambda: nn.Linear(6, 12, bias=False), (5, 6), [1, 4, 2]),
    "fused with bias": (lambda: nn.Linear(6, 12), (5, 6), [1, 4]),
    "point": (lambda: nn.Conv2d(6, 8, 1, stride=(1, 2)), (2, 6, 3, 7), [2]),
    "fused point": (lambda: nn.Conv1d(6, 8, 1), (2, 6, 7), [2, 3]),
    "groups": (lambda: nn.Conv2d(6, 12, 1, groups=3), (2, 6, 3, 4), [2]),
    "taps": (lambda: nn.Conv2d(4, 6, (1, 5), (1, 2), (0, 4), (1, 2)), (2, 4, 3, 11), [5]),
    "taps in groups": (lambda: nn.Conv1d(4, 6, 3, groups=2, bias=False), (2, 4, 9), [2]),
}  # fmt: skip


def naive(layer: Factored, x: Tensor) -> Tensor:
    """The layer as loops over groups, parts and single numbers of the factors."""
    groups, rows = getattr(layer, "groups", 1), sum(len(up) for up in layer.up)
    shape = layer.down.shape[1:]
    weight = torch.zeros(rows, *shape)
    starts = [0, *itertools.accumulate(layer.ranks)]
    for row in range(rows):
        group, inside = divmod(row, rows // groups)
        part, place = divmod(inside, rows // groups // len(layer.ranks))
        for k in range(layer.ranks[part]):
            direction = layer.down[group * sum(layer.ranks) + starts[part] + k]
            weight[row] += layer.up[part][group * len(layer.up[part]) // groups + place, k] * direction
    plain = layer.merged()
    plain.weight = nn.Parameter(weight)
    return plain(x)


@pytest.mark.parametrize("name", LAYERS)
def test_a_factored_layer_is_its_naive_loop(name: str) -> None:
    torch.manual_seed(0)
    make, shape, ranks = LAYERS[name]
    plain = make()
    layer, x = factored(plain, ranks), torch.randn(shape)
    torch.testing.assert_close(layer(x), naive(layer, x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(layer.merged()(x), layer(x), rtol=1e-4, atol=1e-5)
    assert isinstance(layer, type(plain)) and kind_of(layer) is type(plain) is type(layer.merged())
    assert layer.weight.shape == plain.weight.shape and layer.extra_repr() == plain.extra_repr()
    assert layer.bias is plain.bias
    held = layer.down.numel() + sum(up.numel() for up in layer.up)
    assert layer.saved == plain.weight.numel() - held
    layer(x).square().sum().backward()
    assert all(bool(parameter.grad.any()) for parameter in layer.parameters())


def test_random_factors_have_the_scale_of_the_weight_that_they_replace() -> None:
    torch.manual_seed(0)
    plain = nn.Linear(300, 200)
    nn.init.normal_(plain.weight, 0.0, 0.7)
    for ranks in ([20], [10, 40]):
        assert float(factored(plain, ranks).weight.detach().std()) == pytest.approx(0.7, rel=0.1)


@pytest.mark.parametrize("ranks", [[], [0], [7], [True], [2.0], ["2"], [2, 2, 2], [5, 1]])
def test_ranks_that_do_not_fit_are_refused(ranks: list) -> None:
    with pytest.raises(UserError, match="fit"):
        factored(nn.Linear(6, 8), ranks)


def test_layers_with_a_weight_of_another_kind_are_left_alone() -> None:
    for layer in (nn.BatchNorm1d(4), nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"), nn.Bilinear(2, 2, 2)):
        assert kind_of(layer) is None
        with pytest.raises(UserError, match="no weight that can be factored"):
            factored(layer, [1])
    network = nn.Sequential(factored(nn.Linear(6, 8), [2]), nn.ReLU(), factored(nn.Linear(8, 3), [1]))
    x = torch.randn(4, 6)
    expected = network(x)
    torch.testing.assert_close(merge(network)(x), expected)
    assert [type(layer) for layer in network] == [nn.Linear, nn.ReLU, nn.Linear]
