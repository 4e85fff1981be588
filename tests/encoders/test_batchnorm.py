"""Batch-norm statistics of other clips: those of a naive computation, and nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from mmcl.common.errors import UserError
from mmcl.encoders.building import build_encoder
from mmcl.skeletons.layout import load_layout
from mmcl.surgery.adapt import measured_norms, reestimate_batchnorm


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return build_encoder(
        "ctrgcn", load_layout("kinect_v1_20"), 4, {"width": 8, "depth": 3, "persons": 2, "dropout": 0.5}
    )


def clips(count: int) -> torch.Tensor:
    """(count, 2, 12, 20, 3) with another mean and spread in every channel."""
    generator = torch.Generator().manual_seed(1)
    scale = torch.rand(2, 1, 20, 3, generator=generator) + 0.5
    return torch.randn(count, 2, 12, 20, 3, generator=generator) * scale + 3 * scale


def test_the_first_layer_gets_mean_and_variance_over_all_clips_however_they_are_batched(encoder) -> None:
    x = clips(37)
    values = x.double().numpy().transpose(1, 3, 4, 0, 2).reshape(120, -1)  # (person, joint, coordinate) x values
    for size in (37, 8, 5):
        reestimate_batchnorm(encoder, x.split(size))
        np.testing.assert_allclose(encoder.data_bn.running_mean.numpy(), values.mean(axis=1), rtol=1e-6)
        np.testing.assert_allclose(encoder.data_bn.running_var.numpy(), values.var(axis=1, ddof=1), rtol=1e-6)


def test_empty_bodies_weigh_the_same_however_clips_are_batched(encoder) -> None:
    """Two equal halves: each normalises as the whole does, so that only what an empty body counts could differ."""
    x = clips(6)
    x[1:, 1] = 0
    x[0, 1] = 0
    reestimate_batchnorm(encoder, [torch.cat([x, x])])
    whole = {name: tensor.clone() for name, tensor in encoder.state_dict().items() if "running_mean" in name}
    reestimate_batchnorm(encoder, [x, x])
    for name, tensor in whole.items():
        torch.testing.assert_close(encoder.state_dict()[name], tensor, rtol=1e-4, atol=1e-5, msg=name)
    with pytest.raises(UserError, match="no clips"):
        reestimate_batchnorm(encoder, [])
    with pytest.raises(UserError, match="two clips or more at once, and here is one"):
        reestimate_batchnorm(encoder, [x[:1]])
    assert not encoder.training and not any(norm.training for norm in measured_norms(encoder))


def test_every_layer_gets_what_batch_norm_itself_would_average_to(encoder) -> None:
    """With a single batch and no momentum, training mode writes the same numbers into every layer."""
    x = clips(16)
    expected = build_encoder("ctrgcn", encoder.layout, 4, encoder.options)
    expected.load_state_dict(encoder.state_dict())
    for module in expected.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = 1.0
    expected.train()
    expected.dropout.eval()
    with torch.no_grad():
        expected(x)
    layers = reestimate_batchnorm(encoder, [x])
    wanted = dict(expected.named_buffers())
    running = {name: buffer for name, buffer in encoder.named_buffers() if "running" in name}
    assert len(running) == 2 * layers > 20
    for name, buffer in running.items():
        torch.testing.assert_close(buffer, wanted[name], rtol=1e-4, atol=1e-6)


def test_nothing_but_running_statistics_changes(encoder) -> None:
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    encoder.train()
    reestimate_batchnorm(encoder, clips(12).split(6))
    changed = {name for name, tensor in encoder.state_dict().items() if not tensor.equal(before[name])}
    assert changed == {name for name in before if name.endswith(("running_mean", "running_var"))}
    assert not any(module.training for module in encoder.modules())
    first = encoder(clips(3))
    assert torch.equal(first, encoder(clips(3)))  # and a forward pass does not move them any more
    assert all(m.track_running_stats for m in encoder.modules() if isinstance(m, nn.BatchNorm2d))


def test_an_encoder_without_batch_norm_is_refused() -> None:
    with pytest.raises(UserError, match="no batch norm"):
        reestimate_batchnorm(nn.Linear(3, 3), [torch.ones(2, 3)])
