"""Several small computations at once on a CPU, each on one thread: small products gain nothing from being cut in two.

PyTorch cuts every product into as many parts as it has threads, and waits for the last one. For products of a few
hundred rows that costs more time than it saves, and clips that are computed side by side do not wait.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from threading import Barrier

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_in_torch_dispatch_mode


def side_by_side(compute: Callable[[Tensor], Tensor], parts: Sequence[Tensor]) -> list[Tensor]:
    """Outputs of ``compute`` for each of some tensors, in their order.

    On a CPU, as many are computed at once as PyTorch has threads, each of them on one thread. One after the other where
    there is a single tensor or thread, on other devices, and where gradients, autocast or a mode that watches
    operations (one that counts them, say) are on, which belong to the thread that asks.

    Args:
        compute: gives the same output for a part whatever else is computed; several threads may call it at once.
        parts: tensors on the same device.
    """
    threads = min(torch.get_num_threads(), len(parts))
    busy = torch.is_grad_enabled() or torch.is_autocast_enabled("cpu") or is_in_torch_dispatch_mode()
    if threads < 2 or busy or parts[0].device.type != "cpu":
        return [compute(part) for part in parts]
    inference = torch.is_inference_mode_enabled()

    def alone(part: Tensor) -> Tensor:
        with torch.inference_mode(inference), torch.no_grad():
            return compute(part)

    return list(threads_of_one(torch.get_num_threads()).map(alone, parts))


@lru_cache(maxsize=1)
def threads_of_one(threads: int) -> ThreadPoolExecutor:
    """Threads of Python on which PyTorch computes with one thread; all are started before the number is put back."""
    started, before = Barrier(threads), torch.get_num_threads()
    pool = ThreadPoolExecutor(threads, "mmcl", initializer=_compute_alone)
    list(pool.map(lambda _: started.wait(), range(threads)))  # nobody goes on before all are there
    torch.set_num_threads(before)  # a thread that sets its own number also sets that of threads which come later
    return pool


def _compute_alone() -> None:
    torch.get_num_threads()  # a thread takes the process's number when it is first asked, and would forget its own
    torch.set_num_threads(1)


os.register_at_fork(after_in_child=threads_of_one.cache_clear)  # the threads stay with the parent
