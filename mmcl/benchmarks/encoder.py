"""``mmcl bench encoder``: CTR-GCN's forms against the plain one of the paper, in use and in training."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmcl.benchmarks.any_encoder import (
    CLASSES,
    EXACT,
    compare_in_use,
    difference,
    enliven,
    line,
    measure_encoder,
    random_clips,
    training_step,
)
from mmcl.benchmarks.gpu.step import REDUCED, copy_with, measure_gpu
from mmcl.benchmarks.machine import machine
from mmcl.benchmarks.plain.form import published_network
from mmcl.benchmarks.roof import Product, best_products, compare_under_roofs
from mmcl.benchmarks.tables import encoder_table
from mmcl.common.arguments import out_path
from mmcl.common.errors import UserError
from mmcl.common.files import write_json
from mmcl.encoders.counting import count_products_of
from mmcl.encoders.ctrgcn.network import CTRGCN, CTRGCNOptions
from mmcl.skeletons.layout import load_layout

SECONDS = 5.0, 15.0  # of rounds, for each comparison in use and in training
GPU_BATCH = 64
ABOUT = """\
The baseline, `published`, has the same weights: a convolution for every subset and branch, queries and keys on every
frame, every body computed. The others are `encoder`, as `mmcl train` trains it; `lean`, the form for use only; and in
training `each`, which computes every empty body, `once`, which computes the empty bodies of a slot once, and the latter
in bfloat16. All are called in turns in one process; a ratio is the median of rounds. A variant whose scores differ from
the baseline's by more than 1e-4 of the largest (bfloat16: 5e-2) gets no ratio. Weights and clips are random, batch-norm
statistics those of clips. A share is the speed at which a form does the multiplications of its convolutions and matrix
products (two operations each; of a training step, those of the backward pass, too), beside that of the quickest product
of two square matrices in its precision, which takes its turn in the same rounds. Scores are compared as they are timed,
but in evaluation for `once` on clips with an empty body: there, batch statistics in training differ from the published
ones by intent."""
EPILOG = """\
examples:
  mmcl bench encoder --threads 1 2 --json encoder.json
  mmcl bench encoder --width 32 --frames 100 --batch 16
  mmcl bench encoder --encoder hyperformer --options '{"heads": 4, "depth": 6}' --layout utd_mhad_20"""


def build_parser() -> argparse.ArgumentParser:
    """Command line of ``mmcl bench encoder``."""
    parser = argparse.ArgumentParser(
        prog="mmcl bench encoder", description=f"{__doc__}\n\n{ABOUT}", epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--threads", type=int, nargs="+", metavar="N", help="of torch, one table each (its default)")
    parser.add_argument("--width", type=int, default=64, metavar="W", help="channels of the first stage (64)")
    parser.add_argument("--frames", type=int, default=64, metavar="T", help="of a clip (64)")
    parser.add_argument("--batch", type=int, default=8, metavar="N", help="clips of a training step (8)")
    parser.add_argument(
        "--encoder", metavar="NAME", help="any encoder, in use only: against its released formulation, if there is one"
    )
    parser.add_argument("--options", type=json.loads, default={}, metavar="JSON", help="of that encoder")
    parser.add_argument("--layout", default="kinect_v2_25", metavar="NAME", help="its joints (kinect_v2_25)")
    parser.add_argument("--json", type=out_path, metavar="FILE", help="write the numbers there, too")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print the table."""
    args = build_parser().parse_args(argv)
    threads = args.threads or [torch.get_num_threads()]
    if min(*threads, args.frames, args.batch - 1, 1) < 1:
        raise UserError("--threads and --frames must be at least 1, --batch at least 2")
    if args.encoder:
        layout = load_layout(args.layout)
        facts = measure_encoder(args.encoder, args.options, layout, args.frames, threads, SECONDS[0])
    else:
        facts = measure(args.width, args.frames, args.batch, threads)
    print(encoder_table(facts))
    if args.json:
        write_json(args.json, facts)
    return 0


def measure(
    width: int, frames: int, batch: int, threads: Sequence[int], seconds: tuple[float, float] = SECONDS
) -> dict[str, Any]:
    """Compare all variants, one clip at a time in use, and in training steps; on a GPU, too, if there is one.

    Args:
        width: of the encoder.
        frames: T.
        batch: clips of a training step.
        threads: of torch; every number in turn.
        seconds: for each comparison in use, and for each in training.
    """
    encoder = lively_encoder(CTRGCNOptions(width=width), frames)
    facts: dict[str, Any] = {
        "machine": machine("torch"), "width": width, "frames": frames,
        "joints": encoder.layout.joint_count, "lines": [],
    }  # fmt: skip
    for count in threads:
        best = best_products(("fp32", "bf16"), count)
        for bodies in (1, 2):
            _say(f"{count} thread(s), {bodies} of 2 bodies")
            one = random_clips(encoder, 1, frames, bodies)
            facts["lines"] += compare_in_use(encoder, one, bodies, seconds[0], count, best)
            clips = random_clips(encoder, batch, frames, bodies)
            facts["lines"] += _training(encoder, clips, bodies, seconds[1], count, best)
    if torch.cuda.is_available():
        _say("GPU")
        facts["gpu"] = torch.cuda.get_device_name()
        for bodies in (1, 2):
            clips = random_clips(encoder, GPU_BATCH, frames, bodies)
            facts["lines"] += measure_gpu(encoder, clips, bodies, seconds[1])
    return facts


def lively_encoder(options: CTRGCNOptions, frames: int, classes: int = CLASSES) -> CTRGCN:
    """A CTR-GCN in evaluation in which every number matters, and whose statistics fit its activations."""
    torch.manual_seed(0)
    encoder = CTRGCN(load_layout("kinect_v2_25"), classes, options)
    enliven(encoder, random_clips(encoder, 4, frames, options.persons))
    return encoder


def _training(
    encoder: CTRGCN, x: Tensor, bodies: int, seconds: float, threads: int, best: dict[str, Product]
) -> list[dict[str, Any]]:
    published = published_network(encoder).train()
    variants: dict[str, tuple[nn.Module, bool]] = {"published": (published, False)}
    for kind in ("each", "once") if bodies < encoder.options.persons else ("once",):
        variants[kind] = (copy_with(encoder, kind), False)
    variants["once, bf16"] = (copy_with(encoder, "once"), True)
    found = {}
    for name, (network, bfloat16) in variants.items():
        as_timed = name == "each" or bodies == encoder.options.persons
        found[name] = difference(network.train(as_timed), published.train(as_timed), x, bfloat16)
    steps = {name: training_step(network.train(), x, bfloat16) for name, (network, bfloat16) in variants.items()}
    products = {name: count_products_of(step) for name, step in steps.items()}
    timings, roofs = compare_under_roofs(steps, best, seconds, threads=threads, least=3, warm=1)
    lines = []
    for name, timing in timings.items():
        bound, precision = (REDUCED, "bf16") if variants[name][1] else (EXACT, "fp32")
        roof = roofs.get(precision)
        lines.append(line("training", bodies, x, name, found[name], bound, timing, roof, products[name]))
    return lines


def _say(what: str) -> None:
    print(f"… {what}", file=sys.stderr, flush=True)
