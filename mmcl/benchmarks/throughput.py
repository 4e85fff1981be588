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
    clip = made_clip(bundle, 1, 0)
    forms: dict[str, Callable[[int], Callable[[], Any]]] = {"lean": _lean(bundle, clip)}
    forms |= {precision: partial(_graph, path, clip.numpy()) for precision, path in graphs.items()}
    calls: dict[tuple[str, int, str], Callable[[], Any]] = {}
    alone = {(name, count): Quickest(open_on, count) for name, open_on in forms.items() for count in threads}
    for (name, count), single in alone.items():
        for _ in range(2 * (TRIED + 1)):
            single(_call)
        calls[name, count, "many"] = partial(_all, _pool(name, count), single.on(1))
        calls[name, count, "alone"] = partial(single, _call)
    found = compare({"/".join(map(str, key)): call for key, call in calls.items()}, seconds * len(forms), threads=1)
    times = {key: timing.seconds for key, timing in zip(calls, found.values(), strict=True)}
    return [
        {
            "variant": name, "threads": count, "clips_per_second": CLIPS / times[name, count, "many"],
            "times": times[name, threads[0], "many"] / times[name, count, "many"],
            "alone": times[name, count, "alone"], "chosen": single.chosen,
        }
        for (name, count), single in alone.items()
    ]  # fmt: skip


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
