"""``mmcl bench colearn``: what co-learning adds to a training step of the skeleton encoder, part by part."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from mmcl.benchmarks.machine import machine
from mmcl.benchmarks.steps import SteppedRun
from mmcl.benchmarks.tables import colearn_table
from mmcl.benchmarks.timing import compare
from mmcl.common.arguments import out_path
from mmcl.common.errors import UserError
from mmcl.common.files import write_json
from mmcl.common.interrupts import stop_as_interrupt
from mmcl.engine.config import TrainConfig
from mmcl.engine.setup import Experiment, build_task, open_data
from mmcl.tasks.base import Task
from mmcl.tasks.colearn.alignment import Alignment
from mmcl.tasks.colearn.refinement import Refinement
from mmcl.tasks.colearn.task import CoLearning
from mmcl.tasks.supervised import SupervisedOptions
from mmcl.towers.feature_cache import FeatureCache

CLIP_WIDTH, LLM_WIDTH = 512, 2048  # of ViT-B/32 and of a language model of one to three billion parameters
LEAST = 3  # rounds
WATCHED = 10  # steps on a GPU whose parts are timed; waiting for it at every part would slow the others down
ABOUT = """\
Four ways to train are taken in turns, a step each:
  skeleton  the encoder alone
  cached    with CLIP's and the LLM's features from the cache, LoRA off
  prefix    with LoRA on, and what enters the first layer with LoRA in it from the cache
  live      with LoRA on, both towers looking at the pictures
Where no recipe is given, it is CTR-GCN as published, 64 frames, batches of 8 of the demo's clips; `cached` reads
random features as wide as those of CLIP ViT-B/32 and of an LLM of some billion parameters, `prefix` and `live` have
tiny random towers, whose own time says nothing of real ones."""
EPILOG = """\
examples:
  mmcl bench colearn --json colearn.json
  mmcl bench colearn --config ntu_joint --data.path data/ntu60 --task.name colearn --task.clip.model=ViT-B-32 \\
      --task.clip.pretrained=openai --task.llm.path=llava-hf/llava-1.5-7b-hf --task.llm.lora_last=4

All keys of `mmcl train` are understood; the caches of such a recipe are filled first, and stay in its store. Memory is
what a step takes at its largest beyond what is there before it: activations, gradients, optimiser states."""


def build_parser() -> argparse.ArgumentParser:
    """Command line of ``mmcl bench colearn``, but for the keys of ``mmcl train``."""
    parser = argparse.ArgumentParser(
        prog="mmcl bench colearn", description=f"{__doc__}\n\n{ABOUT}", epilog=EPILOG, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--seconds", type=float, default=45.0, metavar="S", help="for the rounds that count (45)")
    parser.add_argument("--threads", type=int, metavar="N", help="of torch (as many as it takes by itself)")
    parser.add_argument("--folder", type=out_path, metavar="DIR", help="where the temporary folder is made")
    parser.add_argument("--json", type=out_path, metavar="FILE", help="write the numbers there, too")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print the table."""
    args, keys = build_parser().parse_known_args(argv)
    if args.seconds <= 0 or (1 if args.threads is None else args.threads) < 1:
        raise UserError("--seconds must be positive and --threads at least 1")
    if args.threads:
        torch.set_num_threads(args.threads)
    with stop_as_interrupt(), tempfile.TemporaryDirectory(prefix="mmcl-bench-", dir=args.folder) as folder:
        facts = measure(keys or demo_recipe(Path(folder)), Path(folder), args.seconds, made_up=not keys)
    print(colearn_table(facts))
    if args.json:
        write_json(args.json, facts)
    return 0


def demo_recipe(folder: Path) -> list[str]:
    """Make clips and towers in a folder; returns the words of ``mmcl train`` that train on them."""
    from mmcl.data.demo import generate
    from mmcl.data.preparation.build import prepare
    from mmcl.data.readers import READERS
    from mmcl.towers.build import build_tower

    _say("making clips and towers")
    generate(folder / "raw", subjects=4, clips_per_subject=1, workers=2, progress=False)
    prepare(
        READERS["demo"](folder / "raw", None),
        folder / "store",
        frames_per_clip=4,
        crop_size=112,
        workers=2,
        progress=False,
    )
    for kind in ("tiny-clip", "tiny-llava"):
        build_tower(kind, folder / kind)
    return [
        "--config=ntu_joint", f"--data.path={folder / 'store'}", "--data.protocol=demo/cross_subject",
        "--data.batch_size=8", "--data.workers=0", "--task.name=colearn", f"--task.clip.model={folder / 'tiny-clip'}",
        f"--task.llm.path={folder / 'tiny-llava'}",
    ]  # fmt: skip


def measure(keys: Sequence[str], folder: Path, seconds: float, made_up: bool) -> dict[str, Any]:
    """Take steps of all variants in turns.

    Args:
        keys: words of ``mmcl train`` with ``task.name=colearn``.
        folder: an empty one, for runs.
        seconds: for the rounds.
        made_up: whether ``cached`` shall read random features of usual widths.

    Returns:
        What was measured: seconds, bytes, and ratios to the skeleton-only step.
    """
    from mmcl.engine.configuring import configure

    config = configure([*keys, f"--out={folder / 'run'}", "--engine.trackers=[]"])
    if config.task_name != "colearn":
        raise UserError("bench colearn measures co-learning: the recipe, or --task.name=colearn, must ask for it")
    data = open_data(config)
    steps = {}
    for name, variant in variants(config).items():
        _say(f"building {name}")
        task = _build(variant, data)
        if made_up and name == "cached":
            _widen(task, data)
        steps[name] = SteppedRun(variant, data, task, folder / name)
    memory = {name: step.peak_bytes() for name, step in steps.items()}
    _say(f"steps for {seconds:.0f} s")
    device = next(iter(steps.values())).device
    wait = torch.cuda.synchronize if device.type == "cuda" else None
    timings = compare(steps, seconds, least=LEAST, warm=1, synchronise=wait)
    for step in steps.values() if wait else ():
        step.clock.wait = wait
        for _ in range(WATCHED):
            step()
    return {
        "machine": machine("torch", "transformers"),
        "device": torch.cuda.get_device_name(device) if wait else "CPU",
        "threads": torch.get_num_threads(),
        "shape": _shape(config, made_up),
        "variants": {
            name: {
                "seconds": timing.seconds, "low": timing.low, "high": timing.high, "rounds": timing.rounds,
                "ratio": 1 / timing.ratio, "ratio_low": 1 / timing.ratio_high, "ratio_high": 1 / timing.ratio_low,
                "parts": steps[name].medians(WATCHED if wait else timing.rounds), "step_bytes": memory[name],
                "loaded": steps[name].loop.task.loaded(),
            }
            for name, timing in timings.items()
        },
    }  # fmt: skip


def variants(config: TrainConfig) -> dict[str, TrainConfig]:
    """The runs that are compared: the recipe without towers, with cached ones, and with live ones."""
    task = config.task
    alone = SupervisedOptions(label_smoothing=task.label_smoothing)
    cached = replace(
        task, cache=True, cache_prefix=False, clip=replace(task.clip, trainable=False),
        llm=replace(task.llm, lora_rank=0, train_projector=False),
        refinement=replace(task.refinement, language_weight=0.0),
    )  # fmt: skip
    found = {"skeleton": replace(config, task_name="supervised", task=alone), "cached": replace(config, task=cached)}
    if task.refinement.weight > 0 and task.llm.lora_rank:
        found["prefix"] = replace(config, task=replace(task, cache=True, cache_prefix=True))
    return found | {"live": replace(config, task=replace(task, cache=False, cache_prefix=False))}


def _build(config: TrainConfig, data: Experiment) -> Task:
    torch.manual_seed(config.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return build_task(config, data, device)


def _widen(task: Task, data: Experiment) -> None:
    """Put random features of usual widths in the place of the tiny towers'."""
    assert isinstance(task, CoLearning)

    def cache(width: int) -> FeatureCache:
        return FeatureCache(
            data.store, data.split.train, ["random", str(width)], lambda pictures: torch.randn(len(pictures), width),
            f"random features of width {width}",
        )  # fmt: skip

    encoder, options, classes = task.encoder, task.settings, len(data.class_names)
    task.alignment = Alignment(encoder.feature_width, CLIP_WIDTH, options.alignment)
    task.refinement = Refinement(LLM_WIDTH, classes, options.refinement)
    task.inputs.clip_cache = cache(CLIP_WIDTH)
    task.inputs.llm_caches = [cache(LLM_WIDTH) for _ in task.inputs.questions]


def _shape(config: TrainConfig, made_up: bool) -> str:
    encoder, window = config.encoder, config.preprocess.window
    words = f"{config.encoder_name}, width {encoder.width}, {window} frames, {encoder.persons} bodies, "
    words += f"{config.data.batch_size} clips a step, {config.engine.precision}"
    return words + (f"; cached features {CLIP_WIDTH} and {LLM_WIDTH} wide" if made_up else "")


def _say(what: str) -> None:
    print(f"… {what}", file=sys.stderr, flush=True)
