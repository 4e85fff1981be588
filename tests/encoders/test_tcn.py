"""Temporal convolutions: equal to loops over frames, and members that are trained as if they were alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mmcl.common.errors import UserError
from mmcl.encoders.tcn import TCN, TCNOptions
from mmcl.skeletons.layout import load_layout

LAYOUT = load_layout("utd_mhad_20")


def build(**options: float) -> TCN:
    torch.manual_seed(0)
    return TCN(LAYOUT, 4, TCNOptions(**{"width": 4, "persons": 2, "input_dropout": 0.0, "dropout": 0.0, **options}))


def naive(layers: nn.Sequential, frames: np.ndarray) -> np.ndarray:
    """Convolutions, batch norms in evaluation and rectifiers of (T, channels), frame by frame."""
    for layer in layers:
        if isinstance(layer, nn.Conv1d):
            weight, T = layer.weight.detach().numpy(), len(frames)
            reach = weight.shape[2] // 2
            frames = np.array([
                sum(weight[:, :, k] @ frames[t + k - reach] for k in range(weight.shape[2]) if 0 <= t + k - reach < T)
                for t in range(T)
            ])  # fmt: skip
        elif isinstance(layer, nn.BatchNorm1d):
            frames = normalised(layer, frames)
        else:
            frames = np.maximum(frames, 0)
    return frames


def normalised(norm: nn.BatchNorm1d, frames: np.ndarray) -> np.ndarray:
    mean, var = norm.running_mean.numpy(), norm.running_var.numpy()
    return (frames - mean) / np.sqrt(var + norm.eps) * norm.weight.detach().numpy() + norm.bias.detach().numpy()


@pytest.mark.parametrize("frames", [2, 7, 16])
def test_features_equal_loops_over_frames(frames) -> None:
    network = build(members=2).double()
    network.train()(torch.randn(6, 2, 16, 20, 3, dtype=torch.float64))  # so that batch statistics are not trivial
    network.eval()
    clip = torch.randn(1, 2, frames, 20, 3, dtype=torch.float64)
    expected = []
    for member in network.members:
        x = normalised(network.norm, np.array([clip[0, :, t].flatten().numpy() for t in range(frames)]))
        for number, stage in enumerate(member):
            if number:
                x = np.array([x[t : t + 2].max(axis=0) for t in range(0, len(x), 2)])
            x = naive(stage, x)
        expected.append(x.mean(axis=0))
    with torch.no_grad():
        np.testing.assert_allclose(network.features(clip)[0].numpy(), np.concatenate(expected), rtol=1e-9)


def test_the_scores_are_the_mean_of_members_and_each_learns_alone() -> None:
    network, x, labels = build(members=3), torch.randn(5, 2, 8, 20, 3), torch.tensor([0, 1, 2, 3, 1])
    scores = network.member_scores(x)
    torch.testing.assert_close(network(x), scores.mean(dim=0))
    assert scores.shape == (3, 5, 4) and not torch.allclose(scores[0], scores[1])
    F.cross_entropy(scores.flatten(0, 1), labels.repeat(3)).backward()
    together = [parameter.grad.clone() * 3 for parameter in network.members[1].parameters()]
    network.zero_grad()
    F.cross_entropy(network.member_scores(x)[1], labels).backward()
    alone = [parameter.grad for parameter in network.members[1].parameters()]
    torch.testing.assert_close(together, alone)
    assert all(parameter.grad.abs().sum() == 0 for parameter in network.members[0].parameters())


def test_options_out_of_range_are_refused() -> None:
    for options in ({"members": 0}, {"width": 0}, {"dropout": 1.0}, {"input_dropout": -0.1}):
        with pytest.raises(UserError, match=f"tcn.{next(iter(options))} must"):
            build(**options)
