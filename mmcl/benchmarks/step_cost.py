"""What one training step takes: multiplications, memory, time."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from mmcl.benchmarks.steps import SteppedRun
from mmcl.encoders.counting import count_products_of

TIMED = 2  # steps


@dataclass(frozen=True)
class StepCost:
    """One step of a run.

    Attributes:
        macs: multiply-accumulates of convolutions and matrix products, forward and backward.
        kept: bytes that the backward pass needs of the forward pass, weights left out.
        held: bytes of weights, their gradients and what the optimiser remembers.
        trained: numbers that are trained.
        seconds: the quicker of two steps; of processors all together, on a GPU by the clock.
    """

    macs: int
    kept: int
    held: int
    trained: int
    seconds: float


def step_cost(run: SteppedRun) -> StepCost:
    """Take some steps: one counts operations and memory, the others are timed."""
    macs, kept = _counted(run)
    on_gpu, times = run.device.type == "cuda", []
    clock = time.perf_counter if on_gpu else time.process_time  # others may be at work here
    for _ in range(TIMED):
        began = clock()
        run()
        if on_gpu:
            torch.cuda.synchronize()
        times.append(clock() - began)
    held, trained = _held(run)
    return StepCost(macs, kept, held, trained, min(times))


def _counted(run: SteppedRun) -> tuple[int, int]:
    """Multiply-accumulates of a step, and bytes kept for its backward pass.

    Where a step has several backward passes, one after the other, what all of them need is added up. Attention is
    computed in plain products, which the counter knows on every device; its weights are then kept, too.
    """
    weights = {tensor.untyped_storage().data_ptr() for tensor in run.loop.task.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        macs = count_products_of(run)
    return macs, sum(kept.values())


def _held(run: SteppedRun) -> tuple[int, int]:
    """Bytes that stay from step to step, gradients among them; how many numbers are trained."""
    parameters = list(run.loop.task.parameters())
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    states = [
        value for part in run.loop.optimiser.parts for state in part.state.values() for value in state.values()
        if isinstance(value, Tensor)
    ]  # fmt: skip
    tensors = [*parameters, *trained, *states]  # a gradient is as large as its parameter
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors), sum(map(Tensor.numel, trained))
