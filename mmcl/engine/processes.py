"""Processes: which clips each takes, what they exchange and need not, when they stop."""

from __future__ import annotations

import time
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from mmcl.common.distributed import purpose
from mmcl.common.errors import UserError
from mmcl.data.sampler import StepBatches
from mmcl.engine.checks import check_empty_bodies
from mmcl.engine.config import TrainConfig
from mmcl.engine.launch import check_launch
from mmcl.engine.optimiser import RunOptimiser
from mmcl.engine.setup import Experiment
from mmcl.engine.zero import ZeroStates, configure_zero
from mmcl.tasks.base import Task
from mmcl.towers.frozen import trained_names


def step_batches(config: TrainConfig, accelerator: Accelerator, data: Experiment) -> StepBatches:
    """Which clips this process sees at which step, before the task has said which stages there are.

    Raises:
        UserError: they cannot be shared out like that, or the processes were not launched in a way that can be trained.
    """
    check_launch(accelerator)
    if accelerator.num_processes > 1:
        check_empty_bodies(config, data)
    return StepBatches(
        data.split.train, config.data.batch_size, config.seed, config.engine.accumulation,
        accelerator.process_index, accelerator.num_processes,
    )  # fmt: skip


def to_device(accelerator: Accelerator, task: Task) -> None:
    """Move a task to the device that it is trained on; of what will be sharded, the frozen towers alone."""
    if accelerator.is_fsdp2:
        for tower in task.frozen_towers:
            tower.to(accelerator.device)
    elif accelerator.distributed_type != DistributedType.DEEPSPEED:
        task.to(accelerator.device)  # before optimisers are made: they must not see parameters of another device


def prepare(accelerator: Accelerator, task: Task, optimiser: RunOptimiser, config: TrainConfig) -> tuple[Any, Any]:
    """Wrap a task and the optimiser of a stage for the processes there are.

    Data-parallel processes send each other what is trained, and nothing that is frozen, neither at the start nor at a
    step; every trained parameter has a gradient at every step (see :class:`~mmcl.tasks.base.Task`), so that none is
    searched for. (A static graph, which DDP could be promised, would gain nothing beyond that, and gradient
    accumulation breaks the promise.) What is frozen or thawed afterwards is not averaged, without a word.
    """
    if accelerator.is_fsdp2:
        _choose_shards(accelerator.state.fsdp_plugin, task)
    elif accelerator.distributed_type == DistributedType.DEEPSPEED:
        configure_zero(accelerator, config)
        optimiser.states = ZeroStates(optimiser)
    else:
        names = DistributedDataParallel._set_params_and_buffers_to_ignore_for_model
        names(task, frozen_names(task))
    with purpose("start"):
        model, wrapped = accelerator.prepare(task, optimiser)
    if accelerator.is_fsdp2:
        from torch.distributed.fsdp import register_fsdp_forward_method

        for door in ("scores", "applied"):  # what comes in by another door than forward()
            register_fsdp_forward_method(task, door)
    return model, wrapped


def release(accelerator: Accelerator, task: Task) -> None:
    """Undo :func:`prepare`, so that the same task can be wrapped again with other parameters trained.

    The caller has dropped its references to what :func:`prepare` gave.
    """
    for left in ("_is_accelerate_prepared", "_original_forward", "forward"):  # of mixed precision, on the task itself
        task.__dict__.pop(left, None)
    for parameter in task.parameters():
        parameter.grad = None  # a view on memory of the wrapper
    accelerator.free_memory()  # hooks of a wrapper that is still there would average everything once more


def frozen_names(module: nn.Module) -> set[str]:
    """Names of all parameters and buffers below ``module`` that training does not change."""
    every = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    every |= {name for name, _ in module.named_buffers(remove_duplicate=False)}
    return every - trained_names(module)


def _choose_shards(plugin: Any, task: Task) -> None:
    """Each layer that a transformers model wants whole is gathered by itself; the rest of the task once a step."""
    scalars = [name for name, parameter in task.named_parameters() if not parameter.dim()]
    if scalars:
        raise UserError(
            f"FSDP cannot shard single numbers such as {scalars[0]}: choose another loss (task.alignment.loss), or "
            "train without FSDP"
        )
    here = {type(module).__name__ for module in task.modules()}
    if not plugin.transformer_cls_names_to_wrap:
        wanted = {name for module in task.modules() for name in getattr(module, "_no_split_modules", None) or ()}
        plugin.transformer_cls_names_to_wrap = sorted(wanted & here)
    # Autocast decides precision, as without sharding: a policy would round joints on their way in, and trained weights.
    plugin.mixed_precision_policy = None


class StopCheck:
    """Whether any process has been asked to stop, found out by all of them at the same step.

    Asking costs an exchange and makes a GPU's processes wait for each other, so they ask every few seconds: at each
    time, all learn the same seconds a step, and hence when to ask again.

    Args:
        accelerator: the processes.
        seconds: between two exchanges, about.
    """

    MOST = 200  # steps between two exchanges, however quick

    def __init__(self, accelerator: Accelerator, seconds: float = 2.0) -> None:
        self.accelerator, self.seconds = accelerator, seconds
        self.wait, self.steps, self.since = 1, 0, time.perf_counter()

    def __call__(self, asked: bool) -> bool:
        """Called after each step, by all processes.

        Args:
            asked: whether this process has been asked to stop.
        """
        if self.accelerator.num_processes == 1:
            return asked
        self.steps += 1
        if self.steps < self.wait:
            return False
        own = [float(asked), (time.perf_counter() - self.since) / self.steps]
        with purpose("stop"):
            values = self.accelerator.reduce(torch.tensor(own, device=self.accelerator.device), reduction="sum")
        someone, step = values.tolist()
        step /= self.accelerator.num_processes
        self.wait, self.steps = int(min(self.MOST, max(1.0, self.seconds / max(step, 1e-6)))), 0
        self.since = time.perf_counter()
        return bool(someone)
