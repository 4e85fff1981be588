"""``accelerate launch mmcl/train.py --config RECIPE [--key.sub=value …]``: train, on one process or many."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # run as a file: keep mmcl/ itself off sys.path, so that no module of ours shadows a library
    sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != Path(__file__).resolve().parent]

import os
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from mmcl.errors import UserError, run
from mmcl.stack import require_training_stack

if TYPE_CHECKING:
    from accelerate import Accelerator

    from mmcl.engine.config import TrainConfig
    from mmcl.engine.loop import Loop

STOPPED = 130  # the exit status of a run that was asked to stop and can be resumed


def make_accelerator(config: TrainConfig) -> Accelerator:
    """Devices, processes, precision and trackers of a run.

    Raises:
        UserError: the precision or a tracker is not to be had here.
    """
    import torch
    from accelerate import Accelerator
    from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs, ProjectConfiguration

    if config.engine.precision == "fp16" and not torch.accelerator.is_available():
        raise UserError("engine.precision=fp16 needs a GPU: use bf16 or fp32 here")
    precision = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}[config.engine.precision]
    # Synchronised batch norm keeps buffers equal by itself; otherwise those of rank 0 count.
    ddp = DistributedDataParallelKwargs(
        broadcast_buffers=not config.engine.sync_batchnorm, gradient_as_bucket_view=True
    )
    try:
        return Accelerator(
            # Without this, processes that torchrun starts on a machine without a GPU would each train alone.
            cpu=not torch.accelerator.is_available(),
            mixed_precision=precision,
            gradient_accumulation_steps=config.engine.accumulation,
            log_with=list(config.engine.trackers) or None,
            project_config=ProjectConfiguration(config.out, logging_dir=str(Path(config.out) / "trackers")),
            # One process fills the tower caches while the others wait, which may take hours.
            kwargs_handlers=[ddp, InitProcessGroupKwargs(timeout=timedelta(hours=24))],
        )
    except (ValueError, RuntimeError, ImportError) as error:
        raise UserError(
            f"engine.precision={config.engine.precision}, trackers={config.engine.trackers}: {error}"
        ) from error


def train(config: TrainConfig) -> int:
    """Run the whole training of one configuration.

    Returns:
        0 when the last epoch is done, 130 when a signal stopped it (a checkpoint has been saved).
    """
    from accelerate.utils import set_seed

    from mmcl.distributed import globalise_batchnorm
    from mmcl.engine.loop import Loop
    from mmcl.engine.processes import step_batches
    from mmcl.engine.run_folder import check_run, check_shared, start_run
    from mmcl.engine.setup import build_task, open_data
    from mmcl.engine.start import start, write_start
    from mmcl.engine.trackers import begin_tracking

    accelerator = make_accelerator(config)
    if accelerator.is_main_process:
        check_run(config)
    data = open_data(config)
    step_batches(config, accelerator, data)  # refuses what it can before towers are loaded and caches filled
    set_seed(config.seed)
    with accelerator.main_process_first():  # the first one fills the caches that the others read
        task = build_task(config, data, accelerator.device)
    begun = start(config, data, task.encoder)
    folder = Path(config.out)
    if accelerator.num_processes > 1 and config.engine.sync_batchnorm:
        globalise_batchnorm(task.encoder)
    set_seed(config.seed, device_specific=True)  # from here on, processes may draw different dropout masks
    loop = Loop(config, accelerator, data, task, folder)
    if loop.finished and (folder / "summary.json").is_file():
        accelerator.print(f"{folder} is complete already: nothing to do")
        return 0
    if accelerator.is_main_process:  # only now: everything that can be refused has been
        start_run(config, data.texts)
        if begun is not None:
            write_start(begun, folder)
    accelerator.wait_for_everyone()
    check_shared(folder)
    begin_tracking(accelerator, config)
    accelerator.print(_opening(config, loop, begun))
    started = time.perf_counter()
    finished = loop.run()
    if accelerator.is_main_process and finished:
        _write_summary(config, loop, folder, time.perf_counter() - started, begun)
    accelerator.end_training()
    if not finished:
        accelerator.print(
            f"stopped after step {loop.global_step}; the same command with --resume=true goes on from there"
        )
        return STOPPED
    accelerator.print(f"done: {folder} (next: mmcl evaluate --checkpoint {folder}, mmcl export --run {folder} --out …)")
    return 0


def _opening(config: TrainConfig, loop: Loop, begun: dict[str, str] | None) -> str:
    split, accelerator = loop.data.split, loop.accelerator
    lines = [
        f"{config.task_name} training of {config.encoder_name} on {loop.data.store.title}, {config.data.protocol}: "
        f"{len(split.train)} train / {len(split.validation)} validation clips (test is not touched)",
        f"{accelerator.num_processes} process(es) on {accelerator.device.type}, {config.engine.precision}, "
        f"{loop.batches.steps} steps an epoch of {config.data.batch_size} clips, {config.schedule.epochs} epochs",
        *(f"{name}: {words}" for name, words in loop.task.loaded().items()),
    ]
    if config.data.shots:
        short = ", ".join(f"{name} {count}" for name, count in _shots(config, loop)["fewer"].items())
        lines.append(
            f"{config.data.shots} training clips a class, drawn by seed {config.seed}"
            + (f"; classes that have fewer: {short}" if short else "")
        )
    if begun is not None:
        words = [
            f"{key.replace('_', ' ')}: {value}" for key, value in begun.items() if key not in ("checkpoint", "sha256")
        ]
        lines.append(f"start: {begun['checkpoint']} ({'; '.join(words)})")
    if loop.global_step:
        lines.append(f"resuming at step {loop.global_step} (epoch {loop.position.epoch + 1})")
    return "\n".join(lines)


def _shots(config: TrainConfig, loop: Loop) -> dict[str, Any]:
    """How few training clips a class there are, by which draw, and where there are even fewer."""
    from mmcl.data.shots import short_classes

    fewer = short_classes(loop.data.split, loop.data.store, config.data.shots)
    return {"clips_a_class": config.data.shots, "seed": config.seed, "fewer": fewer}


def _write_summary(
    config: TrainConfig, loop: Loop, folder: Path, seconds: float, begun: dict[str, str] | None
) -> None:  # fmt: skip
    from importlib.metadata import version

    from mmcl.files import write_json

    store, split = loop.data.store, loop.data.split
    summary: dict[str, Any] = {
        "protocol": config.data.protocol,
        "data": {"path": store.location, "title": store.title, "fingerprint": store.fingerprint},
        "clips": {
            "train": len(split.train),
            "validation": len(split.validation),
            "training_side": loop.data.training_side,
        },
        "class_names": loop.data.class_names,
        "shots": _shots(config, loop) if config.data.shots else None,
        "start": begun,
        "selection": "last epoch",
        "epochs": config.schedule.epochs,
        "steps": loop.global_step,
        "seed": config.seed,
        "processes": loop.accelerator.num_processes,
        "device": loop.accelerator.device.type,
        "seconds_this_session": round(seconds, 1),
        "validation": {"last": loop.position.last, "best": loop.position.best} if len(split.validation) else None,
        "encoder_parameters": sum(parameter.numel() for parameter in loop.task.encoder.parameters()),
        "loaded": loop.task.loaded(),
        "versions": {name: version(name) for name in ("mmcl", "torch", "accelerate")},
    }
    write_json(folder / "summary.json", summary)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, train."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # tokenizers run in forked loader workers
    require_training_stack()
    import torch

    from mmcl.engine.allocator import keep_freed_memory
    from mmcl.engine.parsing import parse

    config = parse(arguments)
    if not torch.accelerator.is_available():  # on a GPU, it is PyTorch that keeps memory
        keep_freed_memory()
    return train(config)


if __name__ == "__main__":
    run(main)
