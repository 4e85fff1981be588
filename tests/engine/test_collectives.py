"""Losses and batch norm over processes: values and gradients of one process with the whole batch."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from accelerate import Accelerator
from torch import Tensor, nn

from mmcl.benchmarks.scale import held_bytes
from mmcl.benchmarks.traffic import Traffic
from mmcl.common.distributed import GlobalBatchNorm, globalise_batchnorm
from mmcl.common.errors import UserError
from mmcl.encoders.building import build_encoder
from mmcl.engine.checks import check_norms
from mmcl.engine.processes import StopCheck
from mmcl.skeletons.layout import load_layout
from mmcl.tasks.losses import SigLIP, info_nce, nt_xent

N, D, WORLD = 12, 6, 3
LABELS = torch.arange(N) % 4

LOSSES: dict[str, Callable[..., Tensor]] = {
    "nt_xent": lambda a, b, labels: nt_xent(a, b, 0.4, labels),
    "info_nce": lambda a, b, labels: info_nce(a, b, 0.1, labels),
    "siglip": lambda a, b, labels: SigLIP()(a, b, labels),
}
ENCODERS: dict[str, dict[str, Any]] = {
    "skelet": {"width": 8, "groups": [1, 2], "widen": [2], "halve": [2], "pool": [2], "drop_path": 0.0,
               "instance_pooling": True},
    "edge_gcn": {"width": 8, "main_width": 8, "last_width": 8, "dropout": 0.0},
}  # fmt: skip
NORM_ROWS = (3, 7, 2), (3, 0, 4)  # rows of a process: they may differ, and there may be none


def inputs() -> tuple[Tensor, Tensor, nn.Linear]:
    torch.manual_seed(0)
    return torch.randn(N, D), torch.randn(N, D), nn.Linear(D, D)


def one_step(name: str, supervised: bool, rows: slice) -> tuple[Tensor, Tensor]:
    """Loss of these rows, and gradients: of a shared layer before both modalities, of the loss's own parameters."""
    a, b, layer = inputs()
    labels = LABELS[rows] if supervised else None
    siglip = SigLIP() if name == "siglip" else None
    loss = (siglip or LOSSES[name])(layer(a[rows]), layer(b[rows]).tanh(), labels)
    loss.backward()
    own = [] if siglip is None else [parameter.grad.flatten() for parameter in siglip.parameters()]
    return loss.detach(), torch.cat([layer.weight.grad.flatten(), *own])


def norm_network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(2, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.BatchNorm2d(4, affine=False), nn.Flatten(1),
        nn.BatchNorm1d(4 * 9, track_running_stats=False), nn.Tanh(), nn.BatchNorm1d(4 * 9),
    )  # fmt: skip


def norm_step(network: nn.Module, rows: slice) -> dict[str, Tensor]:
    """Gradients and running statistics after one training step's backward pass on these rows."""
    torch.manual_seed(2)
    x, target = 5 + torch.randn(N, 2, 3, 3), torch.randn(N, 36)
    x = x.requires_grad_()
    ((network(x[rows]) - target[rows]).square().mean()).backward()
    result = {name: parameter.grad for name, parameter in network.named_parameters()}
    return result | dict(network.named_buffers())


def encoder_step(
    name: str, rows: slice, make: Callable[[nn.Module], nn.Module] = lambda encoder: encoder
) -> dict[str, Tensor]:
    """Gradients of an encoder's parameters on these of N clips, of which every third has one person."""
    torch.manual_seed(4)
    encoder = make(build_encoder(name, load_layout("jhmdb_15"), 4, ENCODERS[name]).double().train())
    x = torch.randn(encoder.example(8, N).shape, dtype=torch.float64)
    x[::3, 1:] = 0
    nn.functional.cross_entropy(encoder(x[rows]), LABELS[rows]).backward()
    return {name: parameter.grad for name, parameter in encoder.named_parameters() if parameter.grad is not None}


def loss_of(name: str) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda a, b: LOSSES[name](a, b, None)


def uneven_norm(norm: nn.Module, counts: tuple[int, ...], rank: int | None = None) -> tuple[Tensor, Tensor]:
    """Output of a norm, and gradient of its input, in float64, where processes hold differently many rows."""
    torch.manual_seed(3)
    x = torch.randn(sum(counts), 4, 5, dtype=torch.float64)
    x = (x if rank is None else x.split(counts)[rank]).requires_grad_()
    y = norm.double()(x)
    y.square().mul(torch.arange(1.0, 6.0)).sum().backward()
    return y.detach(), x.grad


def worker(rank: int, folder: str) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1", "OMP_NUM_THREADS": "1", "RANK": str(rank)}
    os.environ |= {"LOCAL_RANK": str(rank), "WORLD_SIZE": str(WORLD), "CUDA_VISIBLE_DEVICES": ""}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=WORLD)
    rows = slice(rank * N // WORLD, (rank + 1) * N // WORLD)
    found: dict[str, Any] = {}
    for name in LOSSES:
        for supervised in (False, True):
            loss, gradient = one_step(name, supervised, rows)
            for tensor in (loss, gradient):
                dist.all_reduce(tensor)
            found[f"{name}-{supervised}"] = (loss / WORLD, gradient / WORLD)  # what DDP does to gradients
    with Traffic() as traffic:
        found["norm"] = norm_step(globalise_batchnorm(norm_network()), rows)
    found["norm calls"] = dict(traffic.calls)
    with Traffic() as traffic:
        one_step("nt_xent", True, rows)
    found["loss bytes"] = dict(traffic.bytes)
    found["uneven"] = [uneven_norm(GlobalBatchNorm(4), counts, rank) for counts in NORM_ROWS]
    found["held"] = {name: held_bytes(loss_of(name), N) for name in LOSSES}
    for name in ENCODERS:
        found[name] = encoder_step(name, rows, globalise_batchnorm)
        for gradient in found[name].values():
            dist.all_reduce(gradient)
            gradient /= WORLD
    check = StopCheck(Accelerator(cpu=True), seconds=1e9)
    found["stops"] = [check(rank == 1 and step >= 2) for step in range(2 * StopCheck.MOST)]
    for key, tensor in found["norm"].items():
        if not key.endswith(("running_mean", "running_var", "num_batches_tracked")):
            dist.all_reduce(tensor)
            tensor /= WORLD
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder: Path = tmp_path_factory.mktemp("ranks")
    mp.start_processes(worker, (str(folder),), nprocs=WORLD, start_method="forkserver")
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(WORLD)]


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


@pytest.mark.parametrize("name", list(ENCODERS))
def test_gradients_of_encoders_over_processes_where_persons_are_absent(found, name) -> None:
    expected = encoder_step(name, slice(0, N))
    for mine in found:
        assert mine[name].keys() == expected.keys()
        for key, tensor in expected.items():
            torch.testing.assert_close(mine[name][key], tensor, rtol=1e-6, atol=1e-9, msg=key)


class Renamed(nn.BatchNorm1d):
    """Computes what torch's does."""


class Rectified(nn.BatchNorm1d):
    """Computes more."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).relu()


def test_a_norm_that_does_more_than_to_normalise_is_named() -> None:
    encoder = nn.Sequential(Renamed(4), nn.BatchNorm1d(4), nn.SyncBatchNorm(4))
    check_norms(globalise_batchnorm(encoder))
    assert isinstance(encoder[0], GlobalBatchNorm)
    encoder.append(nn.Sequential(Rectified(4)))
    with pytest.raises(UserError, match=r"encoder\.3\.0 is a Rectified, .*--engine.sync_batchnorm=false"):
        check_norms(globalise_batchnorm(encoder))


def test_on_one_process_the_global_norm_is_the_ordinary_one() -> None:
    network = globalise_batchnorm(norm_network())
    assert sum(isinstance(module, GlobalBatchNorm) for module in network) == 4
    expected = norm_step(norm_network(), slice(0, N))
    for key, tensor in norm_step(network, slice(0, N)).items():
        torch.testing.assert_close(tensor, expected[key], msg=key)
    plain = norm_network()
    norm_step(plain, slice(0, N))  # so that both have seen the same batch
    x = torch.randn(4, 2, 3, 3)
    torch.testing.assert_close(network.eval()(x), plain.eval()(x))


def test_a_norm_takes_one_collective_forward_and_one_backward_whatever_rows_there_are(found) -> None:
    for rank, mine in enumerate(found):
        assert mine["norm calls"] == {("batch norm", "all-gather"): 4, ("batch norm", "all-reduce"): 4}
        for counts, tensors in zip(NORM_ROWS, mine["uneven"], strict=True):
            for tensor, whole in zip(tensors, uneven_norm(nn.BatchNorm1d(4), counts), strict=True):
                torch.testing.assert_close(tensor, whole.split(counts)[rank], rtol=0, atol=1e-12)


def test_a_contrastive_loss_sends_its_rows_there_and_their_gradients_back(found) -> None:
    n = N // WORLD
    for mine in found:
        assert mine["loss bytes"]["contrastive", "all-gather"] == n * 2 * D * 4 + n * 8  # both modalities, and labels
        assert mine["loss bytes"]["contrastive", "reduce-scatter"] == WORLD * n * 2 * D * 4


@pytest.mark.parametrize("name", list(LOSSES))
def test_memory_of_a_loss_grows_with_the_processes_and_not_with_their_square(found, name) -> None:
    """What is kept for the backward pass: at a fixed number of own rows, linear in the rows of everybody."""
    alone, everyone = held_bytes(loss_of(name), N), held_bytes(loss_of(name), WORLD * N)
    for mine in found:
        assert alone < mine["held"][name] < 1.1 * WORLD * alone
        assert mine["held"][name] < everyone


def test_processes_stop_at_the_same_step_and_ask_each_other_seldom(found) -> None:
    """Process 1 is asked at its third step; all learn it when they next ask, which is after 200 steps at most."""
    first = [mine["stops"].index(True) for mine in found]
    assert first == [StopCheck.MOST] * WORLD  # they asked after the first step, and then after 200 more


def test_one_process_stops_at_once_and_many_ask_by_the_clock(monkeypatch) -> None:
    now, asked = [0.0], []

    def reduce(values: Tensor, reduction: str) -> Tensor:
        asked.append(now[0])
        return 2 * values

    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    check = StopCheck(SimpleNamespace(num_processes=2, device="cpu", reduce=reduce), seconds=2.0)
    for _ in range(100):
        now[0] += 0.3
        check(False)
    assert 12 <= len(asked) <= 18 and np.diff(asked).max() < 2.0  # 30 seconds of steps that take 0.3
    assert StopCheck(SimpleNamespace(num_processes=1))(True)
