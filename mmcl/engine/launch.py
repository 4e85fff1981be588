"""How a run was launched: its processes, devices and precision, as ``accelerate launch`` or nobody asked for them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from accelerate.utils import (
    DistributedDataParallelKwargs,
    DistributedType,
    GradientAccumulationPlugin,
    InitProcessGroupKwargs,
    ProjectConfiguration,
)

from mmcl.common.errors import UserError
from mmcl.common.printing import complain
from mmcl.engine.config import TrainConfig
from mmcl.engine.zero import check_zero, zero_wanted

SUPPORTED = {DistributedType.NO, DistributedType.FSDP, DistributedType.DEEPSPEED} | {
    kind for kind in DistributedType if kind.startswith("MULTI_")
}


def make_accelerator(config: TrainConfig) -> Accelerator:
    """Devices, processes, precision and trackers of a run.

    Raises:
        UserError: the precision or a tracker is not to be had here.
    """
    gpu, zero = torch.accelerator.is_available(), zero_wanted()
    if not gpu and (words := launched_for_gpus(os.environ)) and os.environ.get("RANK", "0") == "0":
        complain("warning", words)
    if config.engine.precision == "fp16" and (zero or not gpu):
        raise UserError(
            f"engine.precision=fp16 {'and DeepSpeed do not go' if zero else 'needs a GPU'}: use bf16 or fp32"
        )
    precision = "no" if config.engine.precision in ("fp32", "fp64") else config.engine.precision
    # Synchronised batch norm keeps buffers equal by itself; otherwise those of rank 0 count.
    ddp = DistributedDataParallelKwargs(
        broadcast_buffers=not config.engine.sync_batchnorm, gradient_as_bucket_view=True
    )
    # Processes wait for whoever computes the last part of the towers' caches, which may take hours.
    group = InitProcessGroupKwargs(timeout=timedelta(hours=24), **({} if gpu or not zero else {"backend": "gloo"}))
    try:
        return Accelerator(
            # Without this, processes that torchrun starts on a machine without a GPU would each train alone.
            cpu=not gpu and not zero,
            mixed_precision="no" if zero else precision,  # DeepSpeed would round the weights themselves
            # As a plugin, since DeepSpeed's launcher overrules a number.
            gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=config.engine.accumulation),
            log_with=list(config.engine.trackers) or None,
            project_config=ProjectConfiguration(config.out, logging_dir=str(Path(config.out) / "trackers")),
            kwargs_handlers=[ddp, group],
        )
    except (ValueError, RuntimeError, ImportError) as error:
        raise UserError(
            f"engine.precision={config.engine.precision}, trackers={config.engine.trackers}: {error}"
        ) from error


def forget_run() -> None:
    """Make ready for another run in these processes: precision and plugins are its own, the process group stays.

    A group that is made anew would need a free port, and one that a launcher's store has not seen before.
    """
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()  # type: ignore[no-untyped-call]


def end_processes() -> None:
    """Leave the process group, where there is one: behind the last run."""
    PartialState().destroy_process_group()


def launched_for_gpus(environment: Mapping[str, str]) -> str:
    """What to say of a launch for GPUs on a machine that has none; "" where it was not for GPUs.

    Args:
        environment: of this process, as ``accelerate launch`` makes it: for processors it says ACCELERATE_USE_CPU.
    """
    launched, count = "ACCELERATE_MIXED_PRECISION" in environment, environment.get("WORLD_SIZE", "1")
    if not launched or count == "1" or environment.get("ACCELERATE_USE_CPU", "false").lower() == "true":
        return ""
    return (
        f"launched for GPUs, and this machine has none: {count} processes train on its {os.cpu_count()} processors "
        "(`accelerate launch --cpu --num_processes 1` makes it one, which is as fast)"
    )


def check_launch(accelerator: Accelerator) -> None:
    """Whether the loop can train the way that ``accelerate launch`` was asked for.

    Raises:
        UserError: it cannot; what can.
    """
    kind, plugin = accelerator.distributed_type, getattr(accelerator.state, "fsdp_plugin", None)
    if kind not in SUPPORTED:
        raise UserError(
            f"mmcl train runs data-parallel, with FSDP 2 or DeepSpeed, not with {kind.value}: "
            "see mmcl/recipes/accelerate/"
        )
    if kind == DistributedType.DEEPSPEED:
        check_zero(accelerator)
    if kind != DistributedType.FSDP or plugin is None:
        return
    if plugin.fsdp_version != 2:
        raise UserError("mmcl train shards with FSDP 2 alone: set fsdp_version: 2 in the accelerate configuration")
    if plugin.cpu_ram_efficient_loading:
        raise UserError(
            "set fsdp_cpu_ram_efficient_loading: false in the accelerate configuration: frozen weights are in no state "
            "that one process could send to the others, so that each loads them itself"
        )
