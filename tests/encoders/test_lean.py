"""The form for use only: the same function as the published network's, for fewer operations."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from mmcl.benchmarks.encoder import lively_encoder
from mmcl.benchmarks.plain.form import published_network
from mmcl.encoders.ctrgcn.network import CTRGCNOptions
from mmcl.encoders.lean import channels_outside, normalised

VIEWS = {"view", "_unsafe_view", "select", "split", "split_with_sizes", "expand", "transpose", "permute", "unsqueeze"}
VIEWS |= {"slice", "alias", "detach", "as_strided", "squeeze", "unbind", "t"}


class Operations(TorchDispatchMode):
    """Counts operations that compute or move numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.found = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name not in VIEWS:
            self.found[name] += 1
        return func(*args, **(kwargs or {}))


def build(*, turned=False, **options):
    """An encoder in double precision; ``turned`` makes scales behind the maximum negative."""
    encoder = lively_encoder(CTRGCNOptions(**{"width": 8, "depth": 4} | options), 12, classes=5).double()
    for unit in encoder.units if turned else ():
        unit.temporal.outer_bn.weight.data.mul_(-1)
    return encoder


def clips(encoder, count, frames, *present):
    """Random clips; ``present`` names (clip, person) of the bodies that are there, all without it."""
    x = torch.randn(encoder.example(frames, count).shape, dtype=encoder.classifier.weight.dtype)
    if present:
        keep = torch.zeros(x.shape[:2], dtype=torch.bool)
        for place in present:
            keep[place] = True
        x[~keep] = 0.0
    return x


def flops(network, x):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(x)
    return counter.get_total_flops()


@pytest.mark.parametrize("frames", [12, 7])
@pytest.mark.parametrize("present", [(), ((0, 0), (1, 1), (2, 0)), ((1, 0),)])
def test_equals_the_published_network_whoever_is_there(frames, present):
    encoder = build(turned=True)
    x = clips(encoder, 3, frames, *present)
    lean = encoder.lean(12)
    torch.testing.assert_close(lean(x), published_network(encoder)(x), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(lean.head(lean.features(x)), lean(x))


def test_clips_without_anybody():
    encoder = build(persons=3)
    x = 0.0 * clips(encoder, 2, 12)
    torch.testing.assert_close(encoder.lean(12)(x), published_network(encoder)(x), rtol=1e-9, atol=1e-9)


def test_equals_the_published_network_at_its_width():
    encoder = lively_encoder(CTRGCNOptions(), 16)
    x = clips(encoder, 2, 16, (0, 0), (0, 1), (1, 0))
    with torch.no_grad():
        expected, found = published_network(encoder)(x), encoder.lean(16)(x)
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize(("together", "threads", "sizes"), [(1, 1, [1] * 4), (2, 1, [2, 2]), (3, 1, [2, 2]),
                                                            (4, 1, [4]), (4, 2, [2, 2]), (1, 8, [1] * 4)])  # fmt: skip
def test_bodies_together_and_a_few_at_a_time(together, threads, sizes, monkeypatch):
    encoder = build(turned=True)
    lean = encoder.lean()
    bodies = normalised(clips(encoder, 2, 12), lean.scale, lean.shift)
    lean.columns = together * bodies[0, 0].numel() + 1
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    parts = lean.a_few_each(bodies)
    assert [len(part) for part in parts] == sizes
    assert all(map(channels_outside, parts)) and not channels_outside(bodies)
    few = torch.cat([lean.trunk(part) for part in parts])
    torch.testing.assert_close(lean.trunk(bodies), few, rtol=1e-9, atol=1e-9)


def test_an_absent_person_costs_nothing_and_frames_may_change():
    encoder = build()
    lean = encoder.lean(12)
    two, one = clips(encoder, 2, 12), clips(encoder, 2, 12, (0, 0), (1, 0))
    head = 2 * 2 * 5 * encoder.feature_width
    assert 2 * (flops(lean, one) - head) == flops(lean, two) - head
    other = clips(encoder, 1, 20, (0, 1))
    assert flops(lean, other) > flops(lean, other)  # the second time, the empty body of 20 frames is known
    torch.testing.assert_close(lean(other), encoder(other), rtol=1e-9, atol=1e-9)


def test_an_empty_body_is_computed_once_under_autocast_too():
    encoder = build().float()
    lean, x = encoder.lean(), clips(encoder, 1, 12, (0, 1))
    with torch.autocast("cpu", torch.bfloat16):
        assert flops(lean, x) > flops(lean, x)
    assert flops(lean, x) == flops(lean, x) and lean.empty.dtype == torch.float32


def test_operations_of_one_body():
    encoder = lively_encoder(CTRGCNOptions(), 16)
    lean, published, x = encoder.lean(), published_network(encoder), clips(encoder, 1, 16)
    body = normalised(x, lean.scale, lean.shift)[:1]
    with Operations() as counted, torch.no_grad():
        lean.trunk(body)
    with Operations() as whole, torch.no_grad():
        published(x)
    products = ("mm", "addmm", "bmm", "baddbmm_", "convolution")
    # Ten units of relate, values, inner, point, both kernels, and for each subset one that makes its topology and one
    # by way of it; three shortcuts inside, where the width changes, and two around both.
    assert sum(counted.found[name] for name in products) == 10 * 12 + 3 + 2
    assert counted.found["native_batch_norm"] == counted.found["_native_batch_norm_legit_no_training"] == 0
    assert sum(counted.found.values()) <= 295 < 0.5 * sum(whole.found.values())


def test_nothing_to_train_and_independent_of_the_encoder():
    encoder = build()
    lean, x = encoder.lean(12), clips(encoder, 1, 12, (0, 0))
    assert not list(lean.parameters()) and not lean.training
    before = lean(x)
    for parameter in encoder.parameters():
        parameter.data.add_(1.0)
    assert torch.equal(lean(x), before) and not before.requires_grad


def test_traces_as_one_graph_for_any_number_of_clips_and_frames():
    encoder = build()
    lean = encoder.lean()
    axes = {0: torch.export.Dim("clips", min=1, max=64), 2: torch.export.Dim("frames", min=8, max=512)}
    program = torch.export.export(lean, (clips(encoder, 3, 12),), dynamic_shapes=(axes,), strict=True)
    other = clips(encoder, 5, 17, (0, 0), (3, 1))
    torch.testing.assert_close(program.module()(other), encoder(other), rtol=1e-9, atol=1e-9)
    compiled = torch.compile(lean, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(other), encoder(other), rtol=1e-9, atol=1e-9)
