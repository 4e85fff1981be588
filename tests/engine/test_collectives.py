"""Losses and batch norm over processes: values and gradients of one process with the whole batch."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from mmcl.distributed import GlobalBatchNorm, globalise_batchnorm
from mmcl.tasks.losses import SigLIP, info_nce, nt_xent

N, D, WORLD = 12, 6, 3
LABELS = torch.arange(N) % 4

LOSSES: dict[str, Callable[..., Tensor]] = {
    "nt_xent": lambda a, b, labels: nt_xent(a, b, 0.4, labels),
    "info_nce": lambda a, b, labels: info_nce(a, b, 0.1, labels),
    "siglip": lambda a, b, labels: SigLIP()(a, b, labels),
}


def inputs() -> tuple[Tensor, Tensor, nn.Linear]:
    torch.manual_seed(0)
    return torch.randn(N, D), torch.randn(N, D), nn.Linear(D, D)


def one_step(name: str, supervised: bool, rows: slice) -> tuple[Tensor, Tensor]:
    """Loss of these rows, and the gradient of a shared layer before both modalities."""
    a, b, layer = inputs()
    labels = LABELS[rows] if supervised else None
    loss = LOSSES[name](layer(a[rows]), layer(b[rows]).tanh(), labels)
    loss.backward()
    return loss.detach(), layer.weight.grad


def norm_network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(2, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(1), nn.BatchNorm1d(4 * 9))


def norm_step(network: nn.Module, rows: slice) -> dict[str, Tensor]:
    """Gradients and running statistics after one training step's backward pass on these rows."""
    torch.manual_seed(2)
    x, target = 5 + torch.randn(N, 2, 3, 3), torch.randn(N, 36)
    x = x.requires_grad_()
    ((network(x[rows]) - target[rows]).square().mean()).backward()
    result = {name: parameter.grad for name, parameter in network.named_parameters()}
    return result | dict(network.named_buffers())


def worker(rank: int, folder: str) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"}
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=WORLD)
    rows = slice(rank * N // WORLD, (rank + 1) * N // WORLD)
    found: dict[str, Any] = {}
    for name in LOSSES:
        for supervised in (False, True):
            loss, gradient = one_step(name, supervised, rows)
            for tensor in (loss, gradient):
                dist.all_reduce(tensor)
            found[f"{name}-{supervised}"] = (loss / WORLD, gradient / WORLD)  # what DDP does to gradients
    found["norm"] = norm_step(globalise_batchnorm(norm_network()), rows)
    for key, tensor in found["norm"].items():
        if not key.endswith(("running_mean", "running_var", "num_batches_tracked")):
            dist.all_reduce(tensor)
            tensor /= WORLD
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder: Path = tmp_path_factory.mktemp("ranks")
    mp.spawn(worker, (str(folder),), nprocs=WORLD)
    return [torch.load(folder / f"{rank}.pt") for rank in range(WORLD)]


@pytest.mark.parametrize("supervised", [False, True])
@pytest.mark.parametrize("name", list(LOSSES))
def test_contrastive_losses_over_processes(found, name, supervised) -> None:
    loss, gradient = one_step(name, supervised, slice(0, N))
    for mine in found:
        torch.testing.assert_close(mine[f"{name}-{supervised}"][0], loss)
        torch.testing.assert_close(mine[f"{name}-{supervised}"][1], gradient)


def test_batch_norm_over_processes(found) -> None:
    expected = norm_step(norm_network(), slice(0, N))
    for mine in found:
        assert mine["norm"].keys() == expected.keys()
        for key, tensor in expected.items():
            torch.testing.assert_close(mine["norm"][key], tensor, msg=key)


def test_on_one_process_the_global_norm_is_the_ordinary_one() -> None:
    network = globalise_batchnorm(norm_network())
    assert sum(isinstance(module, GlobalBatchNorm) for module in network) == 2
    expected = norm_step(norm_network(), slice(0, N))
    for key, tensor in norm_step(network, slice(0, N)).items():
        torch.testing.assert_close(tensor, expected[key], msg=key)
    plain = norm_network()
    norm_step(plain, slice(0, N))  # so that both have seen the same batch
    x = torch.randn(4, 2, 3, 3)
    torch.testing.assert_close(network.eval()(x), plain.eval()(x))
