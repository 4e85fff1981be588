"""``mmcl bench masked``: what masking saves of a training step of masked motion prediction."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmcl.benchmarks.machine import in_words, machine
from mmcl.benchmarks.timing import compare
from mmcl.common.arguments import out_path
from mmcl.common.errors import UserError
from mmcl.common.files import write_json
from mmcl.encoders.mamp.network import MAMP
from mmcl.encoders.mamp.options import MAMPOptions
from mmcl.skeletons.augmentations.combined import Augmentation
from mmcl.skeletons.layout import load_layout
from mmcl.skeletons.preprocess import Preprocess
from mmcl.skeletons.preprocess_options import PreprocessOptions
from mmcl.tasks.context import Context
from mmcl.tasks.masked_motion.options import DecoderOptions, MaskedMotionOptions
from mmcl.tasks.masked_motion.task import MaskedMotion

SECONDS = 60.0
LAYOUT, CLASSES, FRAMES = "kinect_v2_25", 60, 120
ABOUT = """\
Four training steps (forward, backward, AdamW) of the encoder mamp on the same random clips of one person, called in
turns in one process: masked motion prediction with all tokens but one kept, which is the baseline; the same at the
ratio; the encoder alone on the tokens that are kept; and the encoder alone on all tokens with a classifier, which is a
supervised step. The decoder predicts all tokens, masked or not, and does not get cheaper by masking. A share is the
median over rounds."""


def build_parser() -> argparse.ArgumentParser:
    """Command line of ``mmcl bench masked``."""
    parser = argparse.ArgumentParser(
        prog="mmcl bench masked", description=f"{__doc__}\n\n{ABOUT}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example: mmcl bench masked --batch 4 --json masked.json",
    )  # fmt: skip
    parser.add_argument("--ratio", type=float, default=0.9, metavar="R", help="share of tokens that is masked (0.9)")
    parser.add_argument("--width", type=int, default=256, metavar="D", help="of encoder and decoder (256)")
    parser.add_argument("--depth", type=int, default=8, metavar="B", help="blocks of the encoder (8)")
    parser.add_argument("--decoder", type=int, default=3, metavar="B", help="blocks of the decoder (3)")
    parser.add_argument("--batch", type=int, default=8, metavar="N", help="clips of a step (8)")
    parser.add_argument("--json", type=out_path, metavar="FILE", help="write the numbers there, too")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print the table."""
    args = build_parser().parse_args(argv)
    if args.batch < 1:
        raise UserError(f"--batch is {args.batch}: it must be at least 1")
    facts = measure(args.ratio, args.width, args.depth, args.decoder, args.batch)
    print(table(facts))
    if args.json:
        write_json(args.json, facts)
    return 0


def measure(
    ratio: float, width: int, depth: int, decoder: int, batch: int, seconds: float = SECONDS, frames: int = FRAMES
) -> dict[str, Any]:
    """Time the four steps.

    Args:
        ratio: share of the tokens that is masked.
        width: of encoder and decoder.
        depth: blocks of the encoder.
        decoder: blocks of the decoder.
        batch: clips of a step.
        seconds: for the rounds.
        frames: T.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    options = MAMPOptions(width=width, depth=depth, persons=1, frames=frames)
    heads = DecoderOptions(width=width, depth=decoder)
    task = _task(options, MaskedMotionOptions(ratio=ratio, decoder=heads)).to(device)
    whole = _task(options, MaskedMotionOptions(ratio=1.0 / task.tokens, decoder=heads)).to(device)
    x = torch.randn(task.encoder.example(frames, batch).shape, generator=torch.Generator().manual_seed(0)).to(device)
    steps = {
        "nothing masked": _step(whole, _pretraining(whole, x)),
        f"{ratio:.0%} masked": _step(task, _pretraining(task, x)),
        "of it, the encoder alone": _step(task, _kept_alone(task, x)),
        "supervised": _step(task, _supervised(task, x)),
    }
    timings = compare(steps, seconds, least=3, warm=1, synchronise=torch.cuda.synchronize if x.is_cuda else None)
    lines = [{"step": name, **asdict(timing)} for name, timing in timings.items()]
    return {
        "machine": machine("torch"), "device": device.type, "ratio": ratio, "tokens": task.tokens, "kept": task.kept,
        "width": width, "depth": depth, "decoder": decoder, "clips": batch, "lines": lines,
    }  # fmt: skip


def _task(encoder: MAMPOptions, options: MaskedMotionOptions) -> MaskedMotion:
    torch.manual_seed(0)
    layout = load_layout(LAYOUT)
    context = Context(
        MAMP(layout, CLASSES, encoder), Preprocess(layout, layout, 1, PreprocessOptions(window=encoder.frames)),
        Augmentation(), None, np.arange(0), np.arange(0), np.arange(CLASSES), dict, dict, torch.device("cpu"),  # type: ignore[arg-type]
    )  # fmt: skip
    return MaskedMotion(context, options).train()


def _pretraining(task: MaskedMotion, x: Tensor) -> Callable[[], Tensor]:
    there = torch.ones(x.shape[:4], dtype=torch.bool, device=x.device)
    return lambda: task.clip_losses(x, there, torch.rand(len(x), 1, task.tokens, device=x.device)).mean()


def _kept_alone(task: MaskedMotion, x: Tensor) -> Callable[[], Tensor]:
    kept = torch.arange(task.kept, device=x.device)
    return lambda: task.encoder.encode(task.encoder.tokenise(x[:, 0])[:, kept]).square().mean()


def _supervised(task: MaskedMotion, x: Tensor) -> Callable[[], Tensor]:
    labels = torch.arange(len(x), device=x.device) % CLASSES
    return lambda: nn.functional.cross_entropy(task.encoder(x), labels)


def _step(task: MaskedMotion, loss: Callable[[], Tensor]) -> Callable[[], None]:
    optimiser = torch.optim.AdamW(task.parameters(), lr=1e-4)

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        loss().backward()
        optimiser.step()

    return step


def table(facts: dict[str, Any]) -> str:
    """The measurements as lines of text and a table in Markdown."""
    supervised = facts["lines"][-1]["seconds"]
    rows = [
        f"{in_words(facts['machine'])}; torch {facts['machine']['versions']['torch']}, {facts['device']}",
        f"MAMP of width {facts['width']}, {facts['depth']} blocks, decoder of {facts['decoder']} blocks; "
        f"{facts['clips']} clips, {facts['kept']} of {facts['tokens']} tokens kept",
        "",
        "| step | ms | of the step with nothing masked (quartiles) | of a supervised step |",
        "| --- | ---: | --- | ---: |",
    ]
    for one in facts["lines"]:
        share = f"**{1 / one['ratio']:.2f}** ({1 / one['ratio_high']:.2f}-{1 / one['ratio_low']:.2f})"
        rows.append(f"| {one['step']} | {1e3 * one['seconds']:.0f} | {share} | {one['seconds'] / supervised:.2f} |")
    return "\n".join(rows)
