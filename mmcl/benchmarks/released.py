"""``mmcl bench released``: every system against its released formulation, in one run and one table."""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from mmcl.benchmarks import attack, explain
from mmcl.benchmarks.any_encoder import (
    CLASSES,
    EXACT,
    compare_in_training,
    compare_in_use,
    enliven,
    random_clips,
)
from mmcl.benchmarks.machine import in_words, machine
from mmcl.benchmarks.released_systems import ATTACKED, EXPLAINED, NETWORKS, OTHERS, STEPS
from mmcl.benchmarks.step import open_run
from mmcl.benchmarks.tables import times_faster
from mmcl.benchmarks.timing import Timing, compare
from mmcl.common.arguments import out_path
from mmcl.common.errors import UserError
from mmcl.common.files import write_json
from mmcl.common.interrupts import stop_as_interrupt
from mmcl.encoders.building import build_encoder
from mmcl.skeletons.layout import load_layout

LAYOUT, FRAMES, BATCH, PEOPLE = "kinect_v2_25", 64, 4, 8
SECONDS = 6.0  # of rounds, for each comparison
ABOUT = """\
Networks with the same weights on the same random clips, evaluation (the lean form, one clip) and training (forward,
backward, SGD); training steps of tasks as a run takes them, on made-up people; an iteration of TASAR; and Shapley
values of a clip. Each is called in turns with its released formulation in one process; a ratio is the median of rounds
(of the last two, a quotient of medians). Outputs are compared before: scores, the first loss of a run, directions,
shares. Where they differ by more than they should, there is no ratio. `mmcl bench encoder`, `step`, `attack` and
`explain` tell more of each."""


def build_parser() -> argparse.ArgumentParser:
    """Command line of ``mmcl bench released``."""
    parser = argparse.ArgumentParser(
        prog="mmcl bench released", description=f"{__doc__}\n\n{ABOUT}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n  mmcl bench released --threads 2 --json released.json\n"
        "  mmcl bench released --only hyperformer 'STARS, stage 2'",
    )  # fmt: skip
    names = [*NETWORKS, *STEPS, *OTHERS]
    parser.add_argument("--only", nargs="+", metavar="SYSTEM", choices=names, help=f"some of: {'; '.join(names)}")
    parser.add_argument("--threads", type=int, metavar="N", help="of torch (as many as it takes by itself)")
    parser.add_argument("--frames", type=int, default=FRAMES, metavar="T", help=f"of a clip ({FRAMES})")
    parser.add_argument("--batch", type=int, default=BATCH, metavar="N", help=f"clips of a training step ({BATCH})")
    parser.add_argument("--seconds", type=float, default=SECONDS, metavar="S", help=f"of each comparison ({SECONDS:g})")
    parser.add_argument("--json", type=out_path, metavar="FILE", help="write the numbers there, too")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print the table."""
    args = build_parser().parse_args(argv)
    if min(args.frames, args.batch - 1, 1 if args.threads is None else args.threads) < 1 or args.seconds < 0:
        raise UserError("--frames and --threads must be at least 1, --batch at least 2, --seconds 0 or more")
    if args.threads:
        torch.set_num_threads(args.threads)
    with stop_as_interrupt(), tempfile.TemporaryDirectory(prefix="mmcl-bench-") as folder:
        facts = measure(args.only or [*NETWORKS, *STEPS, *OTHERS], args.frames, args.batch, args.seconds, Path(folder))
    print(table(facts))
    if args.json:
        write_json(args.json, facts)
    return 0


def measure(names: Sequence[str], frames: int, batch: int, seconds: float, folder: Path) -> dict[str, Any]:
    """Compare some systems with their released formulations.

    Args:
        names: of the systems.
        frames: T.
        batch: clips of a training step.
        seconds: for each comparison.
        folder: an empty one, for clips and runs.
    """
    lines: list[dict[str, Any]] = []
    for name in names:
        print(f"… {name}", file=sys.stderr, flush=True)
        if name in NETWORKS:
            lines += network_lines(name, frames, batch, seconds)
        elif name in STEPS:
            lines.append(step_line(name, frames, batch, seconds, folder))
        else:
            lines.append(attack_line(frames, batch, seconds) if name == "TASAR" else explain_line())
    return {"machine": machine("torch"), "threads": torch.get_num_threads(), "frames": frames, "clips": batch,
            "lines": lines}  # fmt: skip


def network_lines(name: str, frames: int, batch: int, seconds: float) -> list[dict[str, Any]]:
    """An encoder in use, with one body and with all, and in training."""
    torch.manual_seed(0)
    encoder = build_encoder(name, load_layout(LAYOUT), CLASSES, NETWORKS[name])
    persons, threads = encoder.options.persons, torch.get_num_threads()
    enliven(encoder, random_clips(encoder, 4, frames, persons))
    found = []
    for bodies in sorted({1, persons}):
        *_, lean = compare_in_use(encoder, random_clips(encoder, 1, frames, bodies), bodies, seconds, threads)
        found.append(lean | {"what": f"evaluation, {bodies} of {persons} bodies"})
    *_, trained = compare_in_training(encoder, random_clips(encoder, batch, frames, persons), seconds, threads)
    found.append(trained | {"what": f"training step, {persons} of {persons} bodies"})
    return [{"system": name, "note": "", **one} for one in found]


def step_line(name: str, frames: int, batch: int, seconds: float, folder: Path) -> dict[str, Any]:
    """A task's step as a run takes it."""
    system, store = STEPS[name], folder / "store"
    if not store.exists():
        make_store(folder)
    words = [
        f"--data.path={store}", "--data.protocol=own/split", f"--data.batch_size={batch}", "--data.workers=0",
        f"--preprocess.window={frames}", f"--encoder.name={system.encoder}", "--encoder.persons=1",
        *(f"--encoder.{key}={value}" for key, value in NETWORKS[system.encoder].items()),
        "--optimiser.rate=0.0001", "--engine.log_every=1", *system.keys,
    ]  # fmt: skip
    place = folder / str(len(list(folder.iterdir())))
    slow = open_run([*words, *system.released], place / "released", system.after, system.change)
    fast = open_run([*words, *system.own], place / "own", system.after)
    slow()
    fast()
    expected, found = slow.logged["loss"], fast.logged["loss"]
    off = abs(found - expected) / abs(expected)
    timing = compare({"released": slow, "own": fast}, seconds, least=3, warm=0)["own"]
    slow.close()
    fast.close()
    return result(name, f"training step, {system.encoder}", system.note, off, EXACT if system.equal else None, timing)


def make_store(folder: Path) -> None:
    """Clips of made-up people, the last of whom test."""
    from mmcl.data.demo.arrays import act
    from mmcl.prepare import main as prepare

    source = folder / "clips"
    source.mkdir()
    with (source / "clips.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "label", "subject", "split"])
        for take in act(PEOPLE, 1, layout=LAYOUT):
            np.save(source / f"{take.name}.npy", take.joints)
            rows.writerow([take.name, take.action, take.subject, "test" if take.subject == PEOPLE else "train"])
    prepare(["folder", "--source", str(source), "--layout", LAYOUT, "--out", str(folder / "store"), "--workers", "1"])


def attack_line(frames: int, batch: int, seconds: float) -> dict[str, Any]:
    """An iteration of TASAR: all samples of the posterior at once against one by one."""
    facts = attack.measure(**ATTACKED, frames=frames, batch=batch, seconds=seconds)
    steps = {one["step"]: one for one in facts["lines"]}
    slow, fast = steps[attack.SLOW], steps["TASAR"]
    ratio = {
        "ratio": slow["seconds"] / fast["seconds"], "ratio_low": slow["low"] / fast["high"],
        "ratio_high": slow["high"] / fast["low"],
    }  # fmt: skip
    timing = Timing(**{key: value for key, value in fast.items() if key != "step"} | ratio)
    return result("TASAR", f"iteration, {facts['encoder']}", "", facts["difference"], facts["bound"], timing)


def explain_line() -> dict[str, Any]:
    """Shapley values of a clip: coalitions in batches against one after the other."""
    facts = explain.measure(**EXPLAINED)
    ratio, taken = facts["loop_seconds"] / facts["seconds"], facts["seconds"]
    timing = Timing(taken, taken, taken, ratio, ratio, ratio, 1, torch.get_num_threads())
    return result("Shapley values", "a clip, ctrgcn", "timed once", facts["difference"], explain.EXACT, timing)


def result(
    system: str, what: str, note: str, difference: float, bound: float | None, timing: Timing
) -> dict[str, Any]:  # fmt: skip
    """A line of the table; without a ratio where outputs should be equal, up to a bound, and are not."""
    facts = {"system": system, "what": what, "note": note, "difference": difference, "bound": bound, **asdict(timing)}
    return facts if bound is None or difference <= bound else facts | {"ratio": None}


def table(facts: dict[str, Any]) -> str:
    """The measurements as lines of text and a table in Markdown."""
    ratios = [one["ratio"] for one in facts["lines"] if one["ratio"]]
    rows = [
        f"{in_words(facts['machine'])}; torch {facts['machine']['versions']['torch']}, {facts['threads']} thread(s)",
        f"{facts['frames']} frames, {facts['clips']} clips of a training step; {len(ratios)} of {len(facts['lines'])} "
        f"compared, times faster: lowest {min(ratios, default=0):.2f}, median {median(ratios or [0]):.2f}",
        "",
        "| system | what | ms | times faster (quartiles) | difference | |",
        "| --- | --- | ---: | --- | ---: | --- |",
    ]
    for one in facts["lines"]:
        rows.append(
            f"| {one['system']} | {one['what']} | {1e3 * one['seconds']:.1f} | {times_faster(one)} | "
            f"{one['difference']:.0e} | {one['note']} |"
        )
    return "\n".join(rows)
