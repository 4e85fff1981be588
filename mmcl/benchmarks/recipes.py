"""``mmcl bench recipes``: each NTU recipe opened and stepped on a made-up store, and what a whole run would take."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from mmcl.benchmarks.machine import machine
from mmcl.benchmarks.made_ntu import SIDES, make_ntu
from mmcl.benchmarks.recipes_table import DryRun, table
from mmcl.benchmarks.step import open_run
from mmcl.benchmarks.step_cost import step_cost
from mmcl.common.arguments import out_path
from mmcl.common.errors import UserError
from mmcl.common.files import write_json
from mmcl.common.interrupts import stop_as_interrupt
from mmcl.data.protocols import load_protocol
from mmcl.data.sampler import StepBatches
from mmcl.engine.config import TrainConfig
from mmcl.engine.configuring import configure
from mmcl.engine.parsing import parse
from mmcl.engine.plan import Plan
from mmcl.engine.setup import build_task, open_data

EPILOG = """\
examples:
  mmcl bench recipes
  mmcl bench recipes --only ntu_mamp ntu_stars --tflops 30

Each recipe is opened as it is, on a store of as many clips, classes and people as its data set has: its protocol is
applied, its task is built, its steps are counted. Then it takes steps of a small batch on one clip a class. Towers are
tiny and random: what a real CLIP or language model takes is not in any figure. Nor is what is done once (features of
a frozen network), or between stages. Two bodies are in every clip, the most that there are.
"""


@dataclass(frozen=True)
class Case:
    """A recipe as it is run.

    Attributes:
        name: of the row.
        recipes: laid over each other.
        parent: recipe of the run that it starts from, made on the data and protocol of this one; "" for none.
        words: of `mmcl train`, so that the steps taken are those of most of the run.
        after: stages that are over, one step each.
    """

    name: str
    recipes: tuple[str, ...]
    parent: str = ""
    words: tuple[str, ...] = ()
    after: int = 0


CASES = (
    Case("ntu_joint", ("ntu_joint",)),
    Case("ntu_colearn", ("ntu_colearn",)),
    Case("ntu_long_tail", ("ntu_joint", "ntu_long_tail"), words=("--task.warmup_epochs=0",)),
    Case("ntu_mamp", ("ntu_mamp",)),
    Case("ntu_stars", ("ntu_stars",), parent="ntu_mamp"),
    Case("ntu_sa_dvae", ("ntu_sa_dvae",), parent="ntu_joint"),
    Case("ntu_charon", ("ntu_charon",), after=2),  # a part and its probing, which fill the memory
)


def build_parser() -> argparse.ArgumentParser:
    """Command line of ``mmcl bench recipes``."""
    parser = argparse.ArgumentParser(
        prog="mmcl bench recipes", description=__doc__, epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    names = [case.name for case in CASES]
    parser.add_argument("--only", nargs="+", metavar="RECIPE", choices=names, default=names, help=", ".join(names))
    parser.add_argument("--batch", type=int, default=4, metavar="N", help="clips of the steps that are taken (4)")
    parser.add_argument("--tflops", type=float, default=10.0, metavar="R", help="assumed to be sustained by a GPU (10)")
    parser.add_argument("--json", type=out_path, metavar="FILE", help="write the numbers there, too")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Open and step the recipes, and print the table."""
    args = build_parser().parse_args(argv)
    if args.batch < 2 or args.tflops <= 0:
        raise UserError("--batch must be at least 2, and --tflops positive")
    here = machine("torch")
    with stop_as_interrupt(), tempfile.TemporaryDirectory(prefix="mmcl-bench-") as folder:
        runs = measure([case for case in CASES if case.name in args.only], Path(folder), args.batch)
    print(table(runs, here, args.tflops))
    if args.json:
        write_json(args.json, {"machine": here, "tflops": args.tflops, "runs": [asdict(run) for run in runs]})
    return 0


def measure(cases: Sequence[Case], folder: Path, batch: int, more: Sequence[str] = ()) -> list[DryRun]:
    """Open each recipe whole, and take some steps of it.

    Args:
        cases: the recipes.
        folder: an empty one, for stores, towers and runs.
        batch: clips of a step.
        more: words of `mmcl train` for all of them.
    """
    found = []
    for case in cases:
        print(f"… {case.name}", file=sys.stderr, flush=True)
        found.append(dry_run(case, folder, batch, more))
    return found


def dry_run(case: Case, folder: Path, batch: int, more: Sequence[str] = ()) -> DryRun:
    """Open one recipe and take steps of it; stores that are there already are used again."""
    words = _words(case, folder, batch, more)
    began = time.perf_counter()
    config, clips, steps = _opened([*words, f"--out={folder / 'whole'}"])
    opened = time.perf_counter() - began
    stepped = [*words, *case.words, "--data.shots=1", f"--data.batch_size={batch}", "--data.workers=0"]
    run = open_run(stepped, folder / case.name, case.after)
    try:
        cost = step_cost(run)
    finally:
        run.close()
    what = f"{config.task_name}, {config.encoder_name}"
    return DryRun(case.name, what, config.data.protocol, clips, config.data.batch_size, steps, opened, batch, cost)


def _words(case: Case, folder: Path, batch: int, more: Sequence[str]) -> list[str]:
    """The command line of a recipe on a made-up store; towers, and a run that it starts from, are made up, too."""
    from mmcl.towers.build import build_tower

    words = [word for name in case.recipes for word in ("--config", name)]
    config = parse(words)
    dataset = load_protocol(config.data.protocol).dataset
    if not (folder / dataset).is_dir():
        make_ntu(folder / dataset, dataset)
    words += [f"--data.path={folder / dataset}", "--engine.trackers=[]", *more]
    for tower, path, kind in (("clip", "model", "tiny-clip"), ("llm", "path", "tiny-llava")):
        if hasattr(getattr(config.task, tower, None), path):
            if not (folder / kind).is_dir():
                build_tower(kind, folder / kind)
            words.append(f"--task.{tower}.{path}={folder / kind}")
            words += ["--task.clip.pretrained=null"] if tower == "clip" else []
    words += ["--task.cache=false"] if hasattr(config.task, "cache") else []
    if case.parent:
        parent = folder / f"{case.name}-parent"
        _make_parent([
            "--config", case.parent, f"--data.path={folder / dataset}", f"--data.protocol={config.data.protocol}",
            *more, f"--out={parent}",
        ], batch)  # fmt: skip
        words.append(f"--start.checkpoint={parent}")
    return words


def _make_parent(words: Sequence[str], batch: int) -> None:
    """A run of one step or two."""
    from mmcl.train import train

    share = 2.0 * batch / min(clips for clips, _ in SIDES.values())
    config = parse([
        *words, f"--data.share={share}", f"--data.batch_size={batch}", "--data.workers=0", "--schedule.epochs=1",
        "--schedule.warmup_epochs=0", "--engine.trackers=[]",
    ])  # fmt: skip
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        train(config)


def _opened(words: Sequence[str]) -> tuple[TrainConfig, int, int]:
    """Open a whole run: its configuration, the clips of its training side, and its optimiser steps."""
    config = configure(words)
    data = open_data(config)
    task = build_task(config, data, torch.device("cpu"))
    train = data.split.train
    batches = StepBatches(train, config.data.batch_size, config.seed, config.engine.accumulation)
    return config, len(train), Plan(task, train, batches, config.schedule).steps
