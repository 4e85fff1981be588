"""Absent persons: computed once, with what follows for scores, gradients and statistics; or each, as published."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mmcl.benchmarks.encoder import copy_with, lively_encoder
from mmcl.benchmarks.plain.form import published_network
from mmcl.common.errors import UserError
from mmcl.encoders.bodies import pack
from mmcl.encoders.ctrgcn.network import CTRGCNOptions


@pytest.fixture
def encoder():
    return lively_encoder(CTRGCNOptions(width=8, depth=3), 8, classes=5).double()


def batch():
    """Four clips of two slots: both, the first, the second, the first."""
    x = torch.randn(4, 2, 8, 25, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    x[1, 1] = x[2, 0] = x[3, 1] = 0.0
    return x


def test_rows_and_places_by_hand():
    packing = pack(batch(), exact=False)
    assert packing.rows.tolist() == [0, 1, 2, 3, 4, 5, 6]  # clip 3's second body is that of clip 1
    assert packing.places.tolist() == [0, 1, 2, 3, 4, 5, 6, 3]
    assert pack(torch.ones(2, 2, 3, 4, 3), exact=False) is None
    packing = pack(torch.zeros(3, 2, 4, 5, 3), exact=False)
    assert packing.rows.tolist() == [0, 1] and packing.places.tolist() == [0, 1] * 3


def packed_by_hand(network, x, rows, places):
    """The plain layers on the given bodies only."""
    n, m, t, v, c = x.shape
    flat = network.data_bn(x.permute(0, 1, 3, 4, 2).reshape(n, m * v * c, t))
    bodies = flat.reshape(n * m, v, c, t).permute(0, 2, 3, 1)  # (N * M, C, T, V)
    y = torch.stack([bodies[row] for row in rows])
    for number in range(1, network.depth + 1):
        y = getattr(network, f"l{number}")(y)
    found = [y[place].mean(dim=(1, 2)) for place in places]
    return network.fc(torch.stack([(found[2 * i] + found[2 * i + 1]) / 2 for i in range(n)]))


def test_once_in_training_is_the_plain_network_on_the_bodies_that_differ(encoder):
    network, x = published_network(encoder).network.train(), batch()
    encoder.train()
    expected = packed_by_hand(network, x, range(7), [0, 1, 2, 3, 4, 5, 6, 3])
    scores = encoder(x)
    torch.testing.assert_close(scores, expected, rtol=1e-9, atol=1e-9)
    for found in (scores, expected):
        torch.nn.functional.cross_entropy(found, torch.arange(4)).backward()
    torch.testing.assert_close(encoder.data_bn.weight.grad, network.data_bn.weight.grad, rtol=1e-7, atol=1e-10)
    ours, theirs = encoder.units[0].spatial, network.l1.gcn1
    torch.testing.assert_close(ours.adjacency.grad, theirs.PA.grad, rtol=1e-7, atol=1e-10)
    torch.testing.assert_close(ours.bn.running_var, theirs.bn.running_var, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(encoder.data_bn.running_var, network.data_bn.running_var, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("training", [False, True])
def test_each_is_the_published_network(encoder, training):
    each = copy_with(encoder, "each").double().train(training)
    expected = published_network(encoder).train(training)(batch())
    torch.testing.assert_close(each(batch()), expected, rtol=1e-9, atol=1e-9)


def test_evaluation_is_the_published_network(encoder):
    x = batch()
    torch.testing.assert_close(encoder(x), published_network(encoder)(x), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(encoder(x[:0].new_zeros(2, 2, 8, 25, 3)), encoder(0 * x[:2]))


def test_one_body_clips_cost_half_in_training(encoder):
    x = torch.randn(15, 2, 8, 25, 3, dtype=torch.float64)

    def flops(network, x):
        network.train()
        with FlopCounterMode(display=False) as counter:
            network.features(x).sum().backward()
        return counter.get_total_flops()

    whole = flops(encoder, x)
    x[:, 1] = 0.0
    assert flops(encoder, x) == whole * 16 // 30  # 15 bodies, and the empty one once
    assert flops(copy_with(encoder, "each").double(), x) == whole


@pytest.mark.parametrize("training", [False, True])
def test_compiles_as_one_graph(encoder, training):
    each = copy_with(encoder, "each").double().train(training)
    twin = copy_with(encoder, "each").double().train(training)
    torch.testing.assert_close(torch.compile(each, fullgraph=True, backend="eager")(batch()), twin(batch()))
    bodies = encoder.train(training).normalise(batch())[:5].detach()
    trunk = torch.compile(encoder.trunk, fullgraph=True, backend="eager")
    expected = copy_with(encoder, "once").double().train(training).trunk(bodies)
    torch.testing.assert_close(trunk(bodies), expected)


def test_evaluation_compiles_whatever_the_option_and_training_in_bfloat16_stays_close(encoder):
    x = batch()
    torch.testing.assert_close(torch.compile(encoder, fullgraph=True, backend="eager")(x), encoder(x))
    encoder.float().train()
    exact = copy_with(encoder, "once").train()(x.float())
    with torch.autocast("cpu", torch.bfloat16):
        scores = encoder(x.float())
    scores.sum().backward()
    assert (scores - exact).abs().max() < 0.1 * exact.abs().max()
    assert all(parameter.grad.isfinite().all() for parameter in encoder.parameters())


def test_another_word_is_refused():
    with pytest.raises(UserError, match="empty_bodies must be once or each, not 'never'"):
        CTRGCNOptions(empty_bodies="never")
