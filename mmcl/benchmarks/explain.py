"""``mmcl bench explain``: Shapley values of one clip's joints, against a plain loop over orders and players."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mmcl.attributions.base import build_attribution
from mmcl.attributions.coalitions import antithetic_orders
from mmcl.attributions.view import View
from mmcl.benchmarks.any_encoder import enliven
from mmcl.benchmarks.machine import in_words, machine
from mmcl.common.arguments import out_path
from mmcl.common.draws import named_seed
from mmcl.common.errors import UserError
from mmcl.common.files import write_json
from mmcl.encoders.base import lean_form
from mmcl.encoders.building import build_encoder
from mmcl.encoders.counting import count_parameters
from mmcl.skeletons.layout import load_layout

LAYOUT, CLASSES = "utd_mhad_20", 27
EXACT = 1e-3  # largest difference of shares from the loop's, relative to the largest share
ABOUT = """\
Shares of 20 joints in a score of the network of recipe utd_mhad_joint (CTR-GCN, 0.37 M parameters), with random
weights that matter. `shapley` evaluates coalitions in batches, in the network's lean form, and every coalition once.
The loop takes the same orders and calls the network as it is trained on one clip for every player that joins. The loop
runs some of the orders, and its time for all is calculated from that; both are run once, after a call to warm up. Where
their shares of the same orders differ, there is no ratio."""


def build_parser() -> argparse.ArgumentParser:
    """Command line of ``mmcl bench explain``."""
    parser = argparse.ArgumentParser(
        prog="mmcl bench explain", description=f"{__doc__}\n\n{ABOUT}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example: OMP_NUM_THREADS=2 mmcl bench explain --json explain.json",
    )  # fmt: skip
    parser.add_argument("--permutations", type=int, default=200, metavar="P", help="random orders (200)")
    parser.add_argument("--loop", type=int, default=20, metavar="P", help="of them, that the plain loop runs (20)")
    parser.add_argument("--background", type=int, default=10, metavar="B", help="background clips (10)")
    parser.add_argument("--window", type=int, default=32, metavar="T", help="frames that the network sees (32)")
    parser.add_argument("--width", type=int, default=32, metavar="W", help="of the network (32)")
    parser.add_argument("--rows", type=int, default=64, metavar="N", help="coalitions in a batch (64)")
    parser.add_argument("--json", type=out_path, metavar="FILE", help="write the numbers there, too")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print the table."""
    args = build_parser().parse_args(argv)
    if min(args.permutations, args.loop, args.background, args.window, args.width, args.rows) < 1:
        raise UserError("--permutations, --loop, --background, --window, --width and --rows must be at least 1")
    facts = measure(args.permutations, args.loop, args.background, args.window, args.width, args.rows)
    print(table(facts))
    if args.json:
        write_json(args.json, facts)
    return 0


def measure(
    permutations: int, loop: int, background: int, window: int, width: int, rows: int, **options: Any
) -> dict[str, Any]:
    """Time both ways.

    Args:
        permutations: orders in which joints join.
        loop: of them, that the plain loop runs, rounded up to whole pairs for every background clip.
        background: clips that stand for nothing.
        window: T.
        width: of the network.
        rows: coalitions in a batch.
        options: others of the network.
    """
    view = _view(background, window, width, rows, options)
    per_pair = 2 * background
    loop = -(-loop // per_pair) * per_pair
    few = build_attribution("shapley", {"permutations": loop}).attribute(view)  # warms up
    began = time.perf_counter()
    build_attribution("shapley", {"permutations": permutations}).attribute(view)
    batched = time.perf_counter() - began
    began = time.perf_counter()
    plain = plain_shares(view, loop)
    looped = (time.perf_counter() - began) * (-(-permutations // per_pair) * per_pair) / loop
    difference = float((few[0] - plain).abs().max() / plain.abs().max())
    return {
        "machine": machine("torch"), "threads": torch.get_num_threads(), "parameters": count_parameters(view.encoder),
        "joints": view.x.shape[3], "window": window, "permutations": permutations, "background": background,
        "rows": rows, "loop": loop, "seconds": batched, "loop_seconds": looped, "difference": difference,
        "ratio": looped / batched if difference <= EXACT else None,
    }  # fmt: skip


def _view(background: int, window: int, width: int, rows: int, options: dict[str, Any]) -> View:
    """One random clip, background clips, and a network with statistics of such clips."""
    torch.manual_seed(0)
    layout = load_layout(LAYOUT)
    encoder = build_encoder("ctrgcn", layout, CLASSES, {"width": width, "persons": 1, **options})
    enliven(encoder, torch.randn(encoder.example(window, 4).shape))
    x, behind = torch.randn(encoder.example(window).shape), torch.randn(encoder.example(window, background).shape)
    mask = torch.ones(x.shape[:4], dtype=torch.bool)
    return View(encoder, lean_form(encoder, window), x, mask, behind, torch.tensor([3]), torch.tensor([0]), rows)


@torch.no_grad()
def plain_shares(view: View, permutations: int) -> Tensor:
    """(V,) shares of a view's one clip, a player at a time, in the orders that ``shapley`` draws."""
    B, V, target = len(view.background), view.x.shape[3], int(view.target[0])
    generator = torch.Generator().manual_seed(named_seed(int(view.keys[0]), "shapley"))
    shares = torch.zeros(V)
    for number, order in enumerate(antithetic_orders(V, permutations // 2, generator)):
        mixed = view.background[number * B // permutations].clone()
        before = view.encoder(mixed[None])[0, target]
        for joint in order.tolist():
            mixed[:, :, joint] = view.x[0, :, :, joint]
            after = view.encoder(mixed[None])[0, target]
            shares[joint] += (after - before) / permutations
            before = after
    return shares


def table(facts: dict[str, Any]) -> str:
    """The measurements as lines of text and a table in Markdown."""
    ratio = "not the same shares" if facts["ratio"] is None else f"**{facts['ratio']:.1f}**"
    return "\n".join([
        f"{in_words(facts['machine'])}; torch {facts['machine']['versions']['torch']}, {facts['threads']} thread(s)",
        f"one clip of {facts['joints']} joints and {facts['window']} frames, CTR-GCN of {facts['parameters']:,} "
        f"parameters, {facts['permutations']} orders, {facts['background']} background clips; largest difference of "
        f"shares {facts['difference']:.1e}",
        "",
        "| | s | times faster |",
        "| --- | ---: | ---: |",
        f"| loop (calculated from {facts['loop']} orders) | {facts['loop_seconds']:.1f} | 1.0 |",
        f"| shapley | {facts['seconds']:.1f} | {ratio} |",
    ])  # fmt: skip
