"""Clips a second where there are many, as ``mmcl predict`` takes files, and one at a time on the quickest threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmcl.benchmarks.deploy_forms import made_clip
from mmcl.benchmarks.timing import compare
from mmcl.common.threads import threads_of_one
from mmcl.deploy.onnx import INPUT
from mmcl.deploy.quickest import TRIED, Quickest
from mmcl.encoders.base import lean_form
from mmcl.models.model import Model
from mmcl.models.session import open_session

CLIPS = 8  # that are taken side by side, as a batch of files


def throughput(bundle: Model, graphs: dict[str, Path], threads: Sequence[int], seconds: float) -> list[dict[str, Any]]:
    """Lines of the table, for clips of one body.

    Args:
        bundle: that the graphs are of.
        graphs: precision -> file.
        threads: clips at once; every number in turn.
        seconds: for each form, all numbers together.

    Returns:
        Of each form and number: clips a second; ``times`` of the first number's; and ``alone``, seconds of one clip
        at a time, on the ``chosen`` number of threads.
    """
    clip, lines = made_clip(bundle, 1, 0), []
    forms: dict[str, Callable[[int], Callable[[], Any]]] = {"lean": _lean(bundle, clip)}
    forms |= {precision: partial(_graph, path, clip.numpy()) for precision, path in graphs.items()}
    for name, open_on in forms.items():
        one = open_on(1)
        pools = {count: _pool(name, count) for count in threads}
        batches = {str(count): partial(_all, pool, one) for count, pool in pools.items()}
        alone = {count: Quickest(open_on, count) for count in threads}
        singles = {f"alone {count}": partial(each, _call) for count, each in alone.items()}
        for each in alone.values():
            for _ in range(2 * (TRIED + 1)):
                each(_call)
        times = compare(batches | singles, seconds, threads=1)
        rates = {count: CLIPS / times[str(count)].seconds for count in threads}
        lines += [
            {
                "variant": name, "threads": count, "clips_per_second": rate, "times": rate / rates[threads[0]],
                "alone": times[f"alone {count}"].seconds, "chosen": alone[count].chosen,
            }
            for count, rate in rates.items()
        ]  # fmt: skip
    return lines


def _pool(form: str, threads: int) -> Executor | None:
    if threads == 1:
        return None
    return threads_of_one(threads) if form == "lean" else ThreadPoolExecutor(threads)


def _all(pool: Executor | None, call: Callable[[], Any]) -> None:
    """As many clips as there are in a batch: side by side, or one after the other without a pool."""
    if pool is None:
        for _ in range(CLIPS):
            call()
    else:
        list(pool.map(lambda _: call(), range(CLIPS)))


def _call(form: Callable[[], Any]) -> None:
    form()


def _graph(path: Path, joints: np.ndarray, threads: int) -> Callable[[], Any]:
    return partial(open_session(path, threads).run, ["scores"], {INPUT: joints})


def _lean(bundle: Model, clip: torch.Tensor) -> Callable[[int], Callable[[], Any]]:
    """The folded form in PyTorch, which takes its number of threads from the process, or from the pool's thread."""
    network = lean_form(bundle.encoder, bundle.preprocess.options.window)

    def open_on(threads: int) -> Callable[[], Any]:
        @torch.inference_mode()
        def call() -> Any:
            with _on_threads(threads):
                return network(bundle.preprocess(clip))

        return call

    return open_on


@contextmanager
def _on_threads(number: int) -> Iterator[None]:
    """PyTorch's number of threads for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
