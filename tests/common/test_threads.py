"""What is computed side by side equals what is computed one by one, and leaves PyTorch's threads as they were."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Iterator

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mmcl.common.threads import side_by_side, threads_of_one


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def squares(x: torch.Tensor) -> torch.Tensor:
    return x @ x.T


PARTS = list(torch.randn(7, 3, 5, generator=torch.Generator().manual_seed(0)))


@torch.no_grad()
def test_outputs_are_in_order_and_come_from_threads_of_one() -> None:
    seen = set()
    both = threading.Barrier(2)

    def compute(x: torch.Tensor) -> torch.Tensor:
        if len(seen) < 2:
            both.wait(timeout=20)  # two are at work at the same time, or this breaks
        seen.add((threading.get_ident(), torch.get_num_threads()))
        return squares(x)

    found = side_by_side(compute, PARTS[:2])
    assert {threads for _, threads in seen} == {1} and len(seen) == 2
    assert threading.get_ident() not in {ident for ident, _ in seen}
    assert torch.get_num_threads() == 2
    torch.testing.assert_close(found, [squares(x) for x in PARTS[:2]])
    torch.testing.assert_close(side_by_side(squares, PARTS), [squares(x) for x in PARTS])


def test_gradients_flow_as_they_do_without_threads() -> None:
    x = PARTS[0].clone().requires_grad_()
    torch.stack(side_by_side(squares, [x, 2 * x])).sum().backward()
    y = PARTS[0].clone().requires_grad_()
    (squares(y).sum() + squares(2 * y).sum()).backward()
    torch.testing.assert_close(x.grad, y.grad)


@torch.no_grad()
def test_a_mode_that_counts_operations_sees_all_of_them() -> None:
    with FlopCounterMode(display=False) as counter:
        side_by_side(squares, PARTS)
    assert counter.get_total_flops() == len(PARTS) * 2 * 3 * 5 * 3


@torch.inference_mode()
def test_inference_tensors_stay_such() -> None:
    assert all(one.is_inference() for one in side_by_side(squares, PARTS))


@torch.no_grad()
def test_a_process_that_was_forked_has_threads_of_its_own() -> None:
    side_by_side(squares, PARTS)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        total = pool.apply_async(_total).get(timeout=60)
    assert total == pytest.approx(float(sum(squares(x).sum() for x in PARTS)), rel=1e-5)


@torch.no_grad()
def _total() -> float:
    torch.set_num_threads(2)
    return float(sum(one.sum() for one in side_by_side(squares, PARTS)))


@torch.no_grad()
def test_an_error_comes_out() -> None:
    with pytest.raises(RuntimeError, match="size mismatch|mat1 and mat2"):
        side_by_side(lambda x: x @ x, PARTS)


def test_the_process_keeps_its_own_number_of_threads() -> None:
    before = torch.get_num_threads()
    threads_of_one.cache_clear()
    threads_of_one(before + 2)
    assert torch.get_num_threads() == before
