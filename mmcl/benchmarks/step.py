"""``mmcl bench step``: training steps of recipes side by side, as a run takes them."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from mmcl.benchmarks.machine import in_words, machine
from mmcl.benchmarks.steps import SteppedRun
from mmcl.benchmarks.timing import compare
from mmcl.common.arguments import out_path
from mmcl.common.errors import UserError
from mmcl.common.files import write_json
from mmcl.common.interrupts import stop_as_interrupt
from mmcl.engine.setup import build_task, open_data
from mmcl.tasks.base import Task

LEAST = 3  # rounds
EPILOG = """\
examples:
  what Shap-Mix costs beside plain training
    mmcl bench step --config utd_mhad_joint --data.path data/utd \\
        --arm plain \\
        --arm shap_mix task.name=long_tail task.warmup_epochs=0
  CHARON's step with a memory that is filled, which it is after two stages: a part, and its probing
    mmcl bench step --config utd_mhad_joint --data.path data/utd --data.protocol utd_mhad/stream_9x3/0 --after 2 \\
        --arm 'one pass' task.name=continual encoder.name=sttformer \\
        --arm 'three passes, as released' task.name=continual encoder.name=sttformer task.released=true

Loading, augmentation, forward and backward pass, optimiser and what a task does after a step are all in it."""


def build_parser() -> argparse.ArgumentParser:
    """Command line of ``mmcl bench step``, but for the keys of ``mmcl train``."""
    parser = argparse.ArgumentParser(
        prog="mmcl bench step",
        description="Take training steps of several recipes in turns, and print what each takes in units of the first. "
        "All keys of `mmcl train` are understood, and hold for all arms.",
        epilog=EPILOG, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument(
        "--arm", action="append", nargs="+", metavar="WORD", required=True,
        help="name, then KEY=VALUE of this arm alone; give it once an arm, the first is the unit",
    )  # fmt: skip
    parser.add_argument("--after", type=int, default=0, metavar="N", help="stages that are over, one step each (0)")
    parser.add_argument("--seconds", type=float, default=45.0, metavar="S", help="for the rounds that count (45)")
    parser.add_argument("--threads", type=int, metavar="N", help="of torch (as many as it takes by itself)")
    parser.add_argument("--json", type=out_path, metavar="FILE", help="write the numbers there, too")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print the table."""
    args, keys = build_parser().parse_known_args(argv)
    if args.seconds <= 0 or (1 if args.threads is None else args.threads) < 1 or args.after < 0:
        raise UserError("--seconds must be positive, --threads at least 1 and --after 0 or more")
    arms = {words[0]: words[1:] for words in args.arm}
    wrong = [word for words in arms.values() for word in words if "=" not in word]
    if wrong or len(arms) < len(args.arm):
        raise UserError("--arm takes a name that no other arm has, then words KEY=VALUE"
                        + (f", not '{wrong[0]}'" if wrong else ""))  # fmt: skip
    if args.threads:
        torch.set_num_threads(args.threads)
    with stop_as_interrupt(), tempfile.TemporaryDirectory(prefix="mmcl-bench-") as folder:
        facts = measure(keys, arms, Path(folder), args.after, args.seconds)
    print(table(facts))
    if args.json:
        write_json(args.json, facts)
    return 0


def measure(
    keys: Sequence[str], arms: dict[str, list[str]], folder: Path, after: int = 0, seconds: float = 45.0
) -> dict[str, Any]:
    """Take steps of all arms in turns.

    Args:
        keys: words of ``mmcl train`` for all arms.
        arms: name -> words KEY=VALUE; the first is what the others are compared with.
        folder: an empty one, for runs.
        after: stages that are over.
        seconds: for the rounds.
    """
    steps = {}
    for number, (name, words) in enumerate(arms.items()):
        print(f"… building {name}", file=sys.stderr, flush=True)
        steps[name] = open_run([*keys, *(f"--{word}" for word in words)], folder / str(number), after)
    device = next(iter(steps.values())).device
    wait = torch.cuda.synchronize if device.type == "cuda" else None
    timings = compare(steps, seconds, least=LEAST, warm=1, synchronise=wait)
    for run in steps.values():
        run.close()
    lines = [{"arm": name, "what": shape(steps[name]), **asdict(timing)} for name, timing in timings.items()]
    return {"machine": machine("torch"), "device": device.type, "after": after, "lines": lines}


def open_run(
    keys: Sequence[str], out: Path, after: int = 0, change: Callable[[Task], object] | None = None
) -> SteppedRun:
    """A run that is ready to be taken step by step.

    Args:
        keys: words of `mmcl train`.
        out: its folder.
        after: stages that are over.
        change: called with the task before anything is trained.
    """
    from mmcl.engine.configuring import configure

    config = configure([*keys, f"--out={out}", "--engine.trackers=[]"])
    data = open_data(config)
    torch.manual_seed(config.seed)
    task = build_task(config, data, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    if change is not None:
        change(task)
    return SteppedRun(config, data, task, out, after)


def shape(run: SteppedRun) -> str:
    """What a step of a run works on, in words."""
    config = run.loop.config
    return f"{config.task_name}, {config.encoder_name}, {config.data.batch_size} clips, " + (
        f"{config.preprocess.window} frames, {config.engine.precision}"
    )


def table(facts: dict[str, Any]) -> str:
    """The measurements as lines of text and a table in Markdown."""
    rows = [
        f"{in_words(facts['machine'])}; torch {facts['machine']['versions']['torch']}, {facts['device']}",
        "",
        "| arm | what | ms a step | times the first (quartiles) |",
        "| --- | --- | ---: | --- |",
    ]
    for one in facts["lines"]:
        times = f"**{1 / one['ratio']:.2f}** ({1 / one['ratio_high']:.2f}-{1 / one['ratio_low']:.2f})"
        rows.append(f"| {one['arm']} | {one['what']} | {1e3 * one['seconds']:.0f} | {times} |")
    return "\n".join(rows)
