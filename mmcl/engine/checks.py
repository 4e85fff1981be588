"""Whether a task, its encoder and its clips can be trained the way that the processes were launched, and still are."""

from __future__ import annotations

import math
from collections.abc import Callable

from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import nn

from mmcl.common.distributed import local_norms
from mmcl.common.errors import UserError
from mmcl.engine.config import TrainConfig
from mmcl.engine.setup import Experiment
from mmcl.tasks.base import Task
from mmcl.tasks.stages import ParameterGroup


def check_compared(config: TrainConfig, task: Task, together: int) -> None:
    """Whether a task that tells clips from each other sees two of them at a time.

    Raises:
        UserError: it sees one.
    """
    if task.compares and together < 2:
        raise UserError(
            f"task {config.task_name} tells clips of a micro-batch from each other, and there is one in each: "
            f"data.batch_size {config.data.batch_size} must be at least twice engine.accumulation "
            f"({config.engine.accumulation})"
        )


def check_empty_bodies(config: TrainConfig, data: Experiment) -> None:
    """Whether batch statistics are those of one process where persons are absent.

    An encoder that computes one body for all that are empty has one in every process, and counts each.

    Raises:
        UserError: they are not, and the run asks for it.
    """
    options, clips = config.encoder, data.split.train
    if getattr(options, "empty_bodies", "each") == "each" or not config.engine.sync_batchnorm:
        return
    if len(clips) and int(data.store.bodies[clips].min()) < options.persons:
        raise UserError(
            f"encoder.empty_bodies is once, and clips have fewer bodies than encoder.persons ({options.persons}): on "
            "several processes batch statistics would not be those of one. Say --encoder.empty_bodies=each, or "
            "--engine.sync_batchnorm=false"
        )


def check_norms(encoder: nn.Module) -> None:
    """Whether all batch norms of an encoder are over the clips of all processes.

    Towers are not asked: those of a CLIP that is trained itself may be each process's own.

    Raises:
        UserError: one is of a class whose ``forward`` is not torch's own.
    """
    for name, norm in local_norms(encoder).items():
        raise UserError(
            f"encoder.{name} is a {type(norm).__name__}, which computes something of its own: its batch statistics "
            "would be each process's. Make it a norm of torch.nn and what goes around it, or say "
            "--engine.sync_batchnorm=false"
        )


def check_groups(accelerator: Accelerator, groups: list[ParameterGroup], stages: int) -> None:
    """Whether these groups can be trained the way that the processes were launched.

    Raises:
        UserError: they cannot; why.
    """
    if accelerator.is_fsdp2 and stages > 1:
        raise UserError(f"this task trains in {stages} stages, which FSDP 2 cannot do: train it without FSDP")
    clipped = [group.name for group in groups if group.clip]
    if clipped and accelerator.distributed_type == DistributedType.DEEPSPEED:
        raise UserError(f"the gradients of {clipped[0]} are clipped tensor by tensor, which DeepSpeed cannot do: train "
                        "without DeepSpeed")  # fmt: skip


def check_finite(loss: float, step: int, advice: Callable[[], str]) -> None:
    """Whether training has diverged.

    Args:
        loss: mean over all processes, the same on each, so that all of them stop.
        step: the last one that was taken.
        advice: says what to go on from.

    Raises:
        UserError: the loss is no finite number.
    """
    if not math.isfinite(loss):
        raise UserError(f"the loss is {loss} at step {step}: training has diverged; {advice()}")
