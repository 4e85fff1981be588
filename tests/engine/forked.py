"""Run training in several processes, and count what they exchange."""

from __future__ import annotations

import gc
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as mp

from mmcl.benchmarks.traffic import Traffic
from mmcl.engine.loop import Loop
from mmcl.engine.parsing import parse
from mmcl.train import train

FACTS: dict[str, Any] = {}


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def reset_accelerate() -> None:
    from accelerate.state import AcceleratorState, GradientState, PartialState

    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()


def note_model(loop: Loop) -> None:
    """What can be asked of the wrapped model only while it is there."""
    model = loop.stepper.model
    FACTS["wrapper"] = type(model).__name__
    FACTS["searches"] = getattr(model, "find_unused_parameters", None)
    FACTS["modules"] = {name for name, _ in loop.task.named_children()}
    FACTS["trained"] = {name: p.numel() for name, p in loop.task.named_parameters() if p.requires_grad}
    FACTS["frozen"] = sum(p.numel() for p in loop.task.parameters() if not p.requires_grad)
    FACTS["aside"] = [sum(p.numel() for p in tower.parameters()) for tower in loop.task.frozen_towers]


def join_processes(rank: int, processes: int, port: int, **variables: str) -> None:
    """Be one of several processes, as a launcher makes them."""
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port), "CUDA_VISIBLE_DEVICES": "", **variables,
    }  # fmt: skip
    torch.set_num_threads(1)
    gc.freeze()  # what was imported need not be looked through again after every run


def parse_and_train(words: Sequence[str]) -> int:
    return train(parse(list(words)))


def worker(
    rank: int, processes: int, port: int, folder: str, words: Sequence[str], variables: dict[str, str],
    prepare: Sequence[Callable[[], None]], begin: Callable[[Sequence[str]], int],
) -> None:  # fmt: skip
    join_processes(rank, processes, port, **variables)
    for change in prepare:
        change()
    enter = Loop.enter

    def noted(loop: Loop) -> None:
        enter(loop)
        note_model(loop)

    Loop.enter = noted  # type: ignore[method-assign]
    with Traffic() as traffic:
        FACTS["status"] = begin(words)
    torch.save(FACTS | {"calls": dict(traffic.calls), "bytes": dict(traffic.bytes)}, f"{folder}/{rank}.pt")


def train_forked(
    folder: Path, words: Sequence[str], processes: int = 2, prepare: Sequence[Callable[[], None]] = (),
    begin: Callable[[Sequence[str]], int] = parse_and_train, **variables: str,
) -> list[dict[str, Any]]:  # fmt: skip
    """Train in ``processes`` processes, in each of which ``prepare`` is called first; what each noted and counted.

    The command line goes to ``begin``.

    They are forked from a server that has done nothing but import: autograd's threads do not survive a fork.
    """
    folder.mkdir(exist_ok=True)
    arguments = (processes, free_port(), str(folder), list(words), variables, list(prepare), begin)
    mp.start_processes(worker, arguments, nprocs=processes, start_method="forkserver")
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(processes)]
