"""``accelerate launch mmcl/train.py --config RECIPE [--key.sub=value …]``: train, on one process or many."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # run as a file: keep mmcl/ itself off sys.path, so that no module of ours shadows a library
    sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != Path(__file__).resolve().parent]

import os
import time
from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING

from mmcl.common.errors import UserError, run
from mmcl.common.limits import is_no_memory
from mmcl.common.stack import require_training_stack

if TYPE_CHECKING:
    from accelerate import Accelerator

    from mmcl.engine.config import TrainConfig

STOPPED = 130  # the exit status of a run that was asked to stop and can be resumed


def train(config: TrainConfig) -> int:
    """Run the whole training of one configuration, the last one of these processes together.

    Returns:
        0 when the last epoch is done, 130 when a signal stopped it (a checkpoint has been saved).
    """
    from mmcl.engine.launch import end_processes

    status = _train_alone(config)
    end_processes()
    return status


def _train_alone(config: TrainConfig) -> int:
    """The same, behind which the processes still know each other; errors of memory in words, one writer a folder."""
    from mmcl.engine.launch import make_accelerator
    from mmcl.engine.memory import out_of_memory
    from mmcl.engine.run_folder import check_run
    from mmcl.engine.writer import sole_writer

    accelerator = make_accelerator(config)
    alone = accelerator.is_main_process
    if alone:
        check_run(config)
    with sole_writer(config) if alone else nullcontext():
        accelerator.wait_for_everyone()  # until what an earlier run left has been cleared away
        try:
            return _train(config, accelerator)
        except (RuntimeError, MemoryError) as error:
            if not is_no_memory(error):
                raise
            raise UserError(out_of_memory(config, error)) from error


def train_from_contrast(arguments: Sequence[str]) -> int:
    """Two runs: one without labels on the clips of the command line, then its own, which starts from that one.

    Args:
        arguments: the command line; the folder of the run without labels is called OUT-stars.

    Returns:
        As :func:`train`.
    """
    from mmcl.engine.configuring import configure, configure_contrast
    from mmcl.engine.launch import end_processes, forget_run
    from mmcl.engine.run_folder import check_run

    first, own = configure_contrast(arguments)
    check_run(own)  # before the first run, not after it
    if stopped := _train_alone(first):
        end_processes()
        return stopped
    forget_run()
    return train(configure([*arguments, "--stars=false", f"--start.checkpoint={first.out}"]))


def _train(config: TrainConfig, accelerator: Accelerator) -> int:
    """The same, as the run folder's only writer."""
    from accelerate.utils import set_seed

    from mmcl.common.distributed import globalise_batchnorm
    from mmcl.common.files import write_json
    from mmcl.engine.checks import check_norms
    from mmcl.engine.loop import Loop
    from mmcl.engine.processes import step_batches
    from mmcl.engine.run_folder import check_joints, check_shared, start_run
    from mmcl.engine.setup import build_task, open_data
    from mmcl.engine.start import start, write_start
    from mmcl.engine.summary import describe_run, opening, write_summary
    from mmcl.engine.trackers import begin_tracking
    from mmcl.models.run_checkpoints import RUN_MODEL

    data = open_data(config)
    step_batches(config, accelerator, data)  # refuses what it can before towers are loaded and caches filled
    set_seed(config.seed)
    task = build_task(config, data, accelerator.device)  # all processes together fill the caches of towers
    begun, folder = start(config, data, task.encoder), Path(config.out)
    description = describe_run(config, data, task, begun)
    if accelerator.num_processes > 1 and config.engine.sync_batchnorm:
        globalise_batchnorm(task)
        check_norms(task.encoder)
    set_seed(config.seed, device_specific=True)  # from here on, processes may draw different dropout masks
    if config.resume:
        check_joints(folder, description)
    loop = Loop(config, accelerator, data, task, folder)
    if loop.position.complete and (folder / "summary.json").is_file():
        accelerator.print(f"{folder} is complete already: nothing to do")
        return 0
    if accelerator.is_main_process:  # only now: everything that can be refused has been
        start_run(config, data.texts)
        if begun is not None:
            write_start(begun, folder)
        if not (folder / RUN_MODEL).is_file():
            write_json(folder / RUN_MODEL, description.to_json())
    accelerator.wait_for_everyone()
    check_shared(folder)
    begin_tracking(accelerator, config)
    accelerator.print(opening(config, loop, begun))
    started = time.perf_counter()
    finished = loop.run()
    if accelerator.is_main_process and finished:
        write_summary(config, loop, folder, time.perf_counter() - started, begun)
    for tracker in accelerator.trackers:
        tracker.finish()
    if not finished:
        accelerator.print(
            f"stopped after step {loop.position.steps}; the same command with --resume=true goes on from there"
        )
        return STOPPED
    if task.classifies:
        then = f"mmcl evaluate --checkpoint {folder}, mmcl export --run {folder} --out …"
    else:  # a bundle of it would name classes by a classifier that nobody has trained
        then = f"mmcl probe --checkpoint {folder}, mmcl train … --start.checkpoint={folder} --out …"
    accelerator.print(f"done: {folder} (next: {then})")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, train."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # tokenizers run in forked loader workers
    require_training_stack()
    import torch

    from mmcl.common.allocator import keep_freed_memory
    from mmcl.engine.configuring import configure

    config = configure(arguments)
    if not torch.accelerator.is_available():  # on a GPU, it is PyTorch that keeps memory
        keep_freed_memory()
    return train_from_contrast(arguments) if config.stars else train(config)


if __name__ == "__main__":
    run(main)
