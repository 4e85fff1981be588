"""``mmcl bench scale``: what processes exchange a step and what memory the loss takes, measured and calculated."""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmcl.benchmarks.machine import machine
from mmcl.benchmarks.scale_table import calculate, table
from mmcl.common.arguments import out_path
from mmcl.common.errors import UserError
from mmcl.common.files import write_json

CLIPS, LOSS_ROWS, WIDTH = 2, 64, 512  # clips of a process in a step; rows and width of the loss whose memory is counted
STEPS, CLASSES = 4, 12  # fewest steps; of the demo's clips
IMPORTED = ["mmcl.engine.loop", "mmcl.towers.llm", "open_clip", "peft", "transformers"]  # once, for all processes
EPILOG = """\
example:
  mmcl bench scale --processes 1 2 4 --json scale.json

Trains co-learning on made-up clips through the loop of `mmcl train`, on 1, 2 and 4 processes of this machine over gloo:
CTR-GCN at full width (16 frames, one body: nothing that is exchanged depends on them), a frozen CLIP and a multimodal
LLM with LoRA (tiny, with random weights). Every collective is counted where it is started. Figures for 8 and 64 GPUs
are calculated, not measured, and say so.
"""


def build_parser() -> argparse.ArgumentParser:
    """Command line of ``mmcl bench scale``."""
    parser = argparse.ArgumentParser(
        prog="mmcl bench scale",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4], metavar="N", help="how many (1 2 4)")
    parser.add_argument("--json", type=out_path, metavar="FILE", help="write the numbers there, too")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print the table."""
    args = build_parser().parse_args(argv)
    if min(args.processes) < 1 or max(args.processes) > 6:
        raise UserError("--processes must be between 1 and 6: they share this machine")
    with tempfile.TemporaryDirectory(prefix="mmcl-bench-") as folder:
        facts = measure(Path(folder), args.processes)
    print(table(facts))
    if args.json:
        write_json(args.json, facts)
    return 0


def measure(folder: Path, processes: Sequence[int], more: Sequence[str] = ()) -> dict[str, Any]:
    """Train a few steps on each number of processes.

    Args:
        folder: an empty folder for clips, towers and runs.
        processes: how many, one measurement each.
        more: further words of the command line of `mmcl train`.

    Returns:
        What was measured, by number of processes, and what was calculated; sizes in bytes, times in seconds.
    """
    words = [*_prepare(folder), *more]
    measured = []
    for count in processes:
        print(f"… {count} process(es)", file=sys.stderr, flush=True)
        measured.append(_measure(folder / f"run-{count}", words, count))
    return {"machine": machine("torch", "accelerate"), "measured": measured, "calculated": calculate((8, 64))}


def _prepare(folder: Path) -> list[str]:
    """Make clips and towers; the command line of a run on them, but for its size and its folder."""
    from mmcl.data.demo import generate
    from mmcl.data.preparation.build import prepare
    from mmcl.data.readers.demo import Demo
    from mmcl.towers.build import build_tower

    generate(folder / "raw", subjects=4, clips_per_subject=1, workers=2, progress=False)
    reader: Any = Demo(folder / "raw", None)
    prepare(reader, folder / "store", frames_per_clip=2, crop_size=56, workers=2, progress=False)
    for kind in ("tiny-clip", "tiny-llava"):
        build_tower(kind, folder / kind)
    return [
        f"--data.path={folder / 'store'}", "--data.protocol=demo/cross_subject", "--data.workers=0",
        "--task.name=colearn", f"--task.clip.model={folder / 'tiny-clip'}", f"--task.llm.path={folder / 'tiny-llava'}",
        "--task.cache=false", "--schedule.warmup_epochs=0", "--data.shots=1", "--preprocess.window=16",
        "--augmentation.crop_floor=16", "--encoder.persons=1", "--engine.log_every=2", "--engine.trackers=[]",
    ]  # fmt: skip


def _measure(folder: Path, words: Sequence[str], processes: int) -> dict[str, Any]:
    """One measurement; the processes report through files."""
    import multiprocessing

    import torch.multiprocessing as mp

    from mmcl.tasks.losses import nt_xent

    multiprocessing.set_forkserver_preload(IMPORTED)
    batch = CLIPS * processes
    own = [*words, f"--out={folder / 'run'}", f"--data.batch_size={batch}", f"--schedule.epochs={_epochs(batch)}"]
    folder.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.start_processes(_train, (processes, port, str(folder), own), nprocs=processes, start_method="forkserver")
    facts: dict[str, Any] = json.loads((folder / "0.json").read_text(encoding="utf-8"))
    lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return facts | {
        "seconds": min(batch / line["clips_per_second"] for line in lines),
        "memory_mib": lines[-1]["peak_memory_mib"],
        "loss_bytes_naive": held_bytes(nt_xent, LOSS_ROWS * processes),
    }


def _epochs(batch: int) -> int:
    """For at least so many steps out of the training clips, one a class."""
    return -(-STEPS // (CLASSES // batch))


def _train(rank: int, processes: int, port: int, folder: str, words: Sequence[str]) -> None:
    """One process: train, count, and let the first one report."""
    if processes > 1:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {"CUDA_VISIBLE_DEVICES": "", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    import torch
    from accelerate import PartialState

    from mmcl.benchmarks.traffic import Traffic
    from mmcl.engine.parsing import parse
    from mmcl.tasks.losses import nt_xent
    from mmcl.train import train

    torch.set_num_threads(1)
    PartialState(cpu=True)  # makes the process group that the loss needs
    loss_bytes = held_bytes(nt_xent, LOSS_ROWS)
    config = parse(list(words))
    with open(os.devnull, "w") as nowhere, Traffic() as traffic:
        sys.stdout = sys.stderr = nowhere
        train(config)
    if rank == 0:
        from mmcl.engine.position import read_position

        steps = int(read_position(Path(config.out) / "checkpoints" / "last")["steps"])
        facts = {"processes": processes, "batch": config.data.batch_size, "steps": steps, "loss_bytes": loss_bytes}
        write_json(Path(folder) / "0.json", facts | {"exchanged": traffic.facts(processes, steps)})


def held_bytes(loss: Any, rows: int) -> int:
    """Bytes that autograd keeps between forward and backward pass of a contrastive loss of this process's rows."""
    import torch

    kept: dict[int, int] = {}

    def note(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    a, b = (torch.randn(rows, WIDTH, requires_grad=True) for _ in range(2))
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        value = loss(a, b)
    value.backward()
    return sum(kept.values())
