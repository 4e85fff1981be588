"""``mmcl demo``: the whole path on generated recordings, through the very commands that real data takes."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmcl.common.arguments import AtLeastOne, out_path
from mmcl.common.errors import UserError, run
from mmcl.common.files import check_replaceable

HERE = Path(__file__).resolve().parent
NOTE = (
    "The people are synthetic and both towers are random: this shows that every step works and what the skeleton "
    "branch learns. It says nothing of what real CLIP and LLM weights are worth."
)


def build_parser() -> argparse.ArgumentParser:
    """Command line of ``mmcl demo``."""
    parser = argparse.ArgumentParser(
        prog="mmcl demo",
        description="Generate recordings of synthetic people, then prepare, check, train (accelerate, tiny random CLIP "
        "and LLaVA with LoRA), evaluate, export, judge the bundle on another sensor's skeletons, predict. " + NOTE,
        epilog="Keys of the recipe, such as --encoder.width=16, are given to the training.",
    )
    parser.add_argument(
        "--out", type=out_path, default=Path("demo"), metavar="DIR", help="where everything goes (default: demo)"
    )
    parser.add_argument("--subjects", type=int, default=8, metavar="N", help="people in the training set (default: 8)")
    parser.add_argument("--takes", type=int, default=3, metavar="N", help="of each class by each person (default: 3)")
    parser.add_argument(
        "--epochs", type=int, action=AtLeastOne, metavar="N", help="training epochs (default: the recipe's)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the recordings and of the run (default: 0)")
    return parser


class ShownCommands:
    """Runs commands one after the other, showing each as a user would type it; stops at the first that fails."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def __call__(self, name: str, *command: str | Path) -> None:
        """Run ``mmcl …`` or ``accelerate …`` in this interpreter's environment."""
        words = [str(word) for word in command]
        print(f"\n$ {shlex.join(words)}", flush=True)
        program = {"mmcl": ["mmcl"], "accelerate": ["accelerate.commands.accelerate_cli"]}[words[0]]
        started = time.perf_counter()
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        done = subprocess.run([sys.executable, "-m", *program, *words[1:]], env=environment, check=False)
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started
        if done.returncode:
            raise UserError(f"the demo stopped at `{shlex.join(words)}` (exit status {done.returncode}, see above)")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo and print its summary table."""
    parser = build_parser()
    arguments, keys = parser.parse_known_args(argv)
    if strange := [word for word in keys if "." not in word.partition("=")[0] or not word.startswith("--")]:
        parser.error(f"unrecognized arguments: {' '.join(strange)}")
    out, seed = arguments.out, str(arguments.seed)
    for folder, ours in (("run", "config.yaml"), ("bundle", "config.json")):
        check_replaceable(out / folder, ours)
        shutil.rmtree(out / folder, ignore_errors=True)  # recordings and towers are re-used, results never
    step = ShownCommands()
    print(NOTE)
    takes = ["--clips-per-subject", str(arguments.takes)]
    people = ["--subjects", str(arguments.subjects), "--seed", seed, *takes]
    step("prepare", "mmcl", "prepare", "demo", "--out", out / "store", *people)
    half = max(2, arguments.subjects // 2)
    others = ["--subjects", str(half), "--seed", str(arguments.seed + 1), "--first-subject", "101", *takes]
    step("prepare", "mmcl", "prepare", "demo", "--out", out / "store_v1", "--layout", "kinect_v1_20", *others)
    step("check", "mmcl", "check", out / "store")
    towers = {"clip": out / "towers" / "clip", "llm": out / "towers" / "llm"}
    for kind, folder in (("tiny-clip", towers["clip"]), ("tiny-llava", towers["llm"])):
        if not folder.is_dir():
            step("towers", "mmcl", "build-tower", kind, "--out", folder)
    options = [
        f"--data.path={out / 'store'}",
        f"--task.clip.model={towers['clip']}",
        f"--task.llm.path={towers['llm']}",
    ]
    options += [f"--schedule.epochs={arguments.epochs}"] if arguments.epochs else []
    options += keys
    script: list[str | Path] = [*_launch_options(), HERE / "train.py", "--config", "demo", f"--seed={seed}", *options]
    step("train", "accelerate", "launch", *script, "--out", out / "run")
    step("evaluate", "mmcl", "evaluate", "--checkpoint", out / "run")
    step("export", "mmcl", "export", "--run", out / "run", "--out", out / "bundle", "--onnx")
    judged = ["--checkpoint", out / "bundle", "--data", out / "store_v1", "--protocol", "demo/kinect_v1"]
    step("zero-shot", "mmcl", "zero-shot", *judged, "--out", out / "zero-shot")
    step("predict", "mmcl", "predict", out / "bundle", *_some_files(out), "--top", "3")
    print("\n" + summary(out, step.seconds))
    return 0


def _launch_options() -> list[str]:
    """What keeps accelerate from guessing; one process is enough for a demo."""
    import torch

    device = [] if torch.cuda.is_available() else ["--cpu"]
    return [*device, "--num_processes", "1", "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]


def _some_files(out: Path) -> list[Path]:
    """Three test clips of the generated folder: skeletons of an even subject."""
    from mmcl.data.store import open_store

    store = open_store(out / "store")
    ids = [name for name, subject in zip(store.ids, store.subjects, strict=True) if subject % 2 == 0]
    return [out / "store.raw" / "skeletons" / f"{name}.npy" for name in ids[:: max(1, len(ids) // 3)][:3]]


def summary(out: Path, seconds: dict[str, float]) -> str:
    """The table at the end: what came out, against what guessing would give, and what was loaded for it."""

    def read(path: Path) -> Any:
        return json.loads(path.read_text(encoding="utf-8"))

    report, transfer = read(out / "run" / "report-test" / "report.json"), read(out / "zero-shot" / "report.json")
    run_facts, bundle = read(out / "run" / "summary.json"), read(out / "bundle" / "config.json")
    classes = len(bundle["class_names"])
    weights = (out / "bundle" / "model.safetensors").stat().st_size / 2**20
    loaded = [f"training only: {name}: {words}" for name, words in run_facts["loaded"].items()]
    guess = f"chance {1 / classes:.1%}"
    counts = bundle["counts"]
    rows = [
        ("skeleton-only accuracy", f"{report['top1']:.1%} of {report['n']} clips, {report['protocol']} ({guess})"),
        (
            "zero-shot, other sensor",
            f"{transfer['top1']:.1%} of {transfer['n']} clips by new people, {transfer['protocol']} ({guess})",
        ),
        (
            "bundle",
            f"{out / 'bundle'}: {weights:.2f} MiB, {counts['parameters']:,} parameters, "
            f"{counts['macs'] / 1e6:.0f} M MACs a clip",
        ),
        *[("loaded", words) for words in loaded],
        ("loaded", "for inference: the bundle alone"),
        ("seconds", ", ".join(f"{name} {value:.0f}" for name, value in seconds.items())),
        ("look at", f"{out / 'store' / 'check' / 'contact_sheet.png'}, {out / 'run' / 'report-test' / 'report.md'}"),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join([*(f"{name:<{width}}  {words}" for name, words in rows), "", NOTE])


if __name__ == "__main__":
    run(main)
