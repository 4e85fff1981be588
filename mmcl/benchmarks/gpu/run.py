"""``mmcl bench gpu``: everything that needs a GPU to be measured, in one go of at most eight minutes."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmcl.benchmarks.gpu.colearn import measure_colearning
from mmcl.benchmarks.gpu.encoder import measure_encoder
from mmcl.benchmarks.gpu.graph import measure_graph
from mmcl.benchmarks.gpu.launches import measure_deepspeed, measure_fsdp
from mmcl.benchmarks.gpu.part import Part, Place, perform
from mmcl.benchmarks.gpu.training import measure_fp16, measure_resume
from mmcl.benchmarks.machine import in_words, machine
from mmcl.common.arguments import in_path, out_path
from mmcl.common.errors import UserError
from mmcl.common.files import write_json
from mmcl.common.interrupts import stop_as_interrupt

LIMIT = 480.0  # seconds of all parts together
PARTS = {
    part.name: part
    for part in (
        Part("encoder", "CTR-GCN at batch 64: eager fp32 against bf16, compiled, CUDA graphs", 240, measure_encoder),
        Part("resume", "a run that was stopped and resumed against one that was not, bit by bit", 60, measure_resume),
        Part("fp16", "training in fp16 beside fp32", 60, measure_fp16),
        Part("colearn", "co-learning with CLIP ViT-B/32 and a language model of 1e9, cached and live", 150,
             measure_colearning),
        Part("graph", "the ONNX graph on the GPU", 60, measure_graph),
        Part("fsdp", "FSDP 2, one process: the losses of a plain run", 90, measure_fsdp),
        Part("deepspeed", "DeepSpeed stage 2, one process: the losses of a plain run", 90, measure_deepspeed),
    )
}  # fmt: skip
EPILOG = """\
examples:
  mmcl bench gpu --json gpu.json
  mmcl bench gpu --parts encoder resume --bundle checkpoints/utd
  mmcl bench gpu --device cpu --tiny           # the same code where there is no GPU: its numbers mean nothing

All weights are random. Each part runs in a process of its own, and is ended when its time is over; the table says why
where one found nothing more. What a part needs beyond `pip install mmcl[train,onnx]` (DeepSpeed, onnxruntime-gpu) is
named where it is missing. docs/scale.md says what it found on an H100, and which parts have not been run on a GPU."""


def build_parser() -> argparse.ArgumentParser:
    """Command line of ``mmcl bench gpu``."""
    parts = "\n".join(f"  {part.name:<10} {part.about} (at most {part.seconds:.0f} s)" for part in PARTS.values())
    parser = argparse.ArgumentParser(
        prog="mmcl bench gpu", description=f"{__doc__}\n\nparts:\n{parts}", epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help="these alone")
    parser.add_argument(
        "--bundle", type=in_path, metavar="BUNDLE", help="its graph in the part `graph` (random weights)"
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu to try it (cuda)")
    parser.add_argument("--tiny", action="store_true", help="networks as small as can be")
    parser.add_argument("--limit", type=float, default=LIMIT, metavar="S", help="seconds of all parts (480)")
    parser.add_argument("--folder", type=out_path, metavar="DIR", help="where the temporary folder is made: 6 GB free")
    parser.add_argument("--json", type=out_path, metavar="FILE", help="write the numbers there, too")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table; 1 where a part failed."""
    args = build_parser().parse_args(argv)
    if args.limit <= 0:
        raise UserError("--limit must be positive")
    if args.device == "cuda" and not gpu_is_there():
        raise UserError("no GPU here that PyTorch can use: `mmcl bench gpu --device cpu --tiny` tries the code without")
    with stop_as_interrupt(), tempfile.TemporaryDirectory(prefix="mmcl-bench-", dir=args.folder) as folder:
        place = Place(args.device, args.tiny, Path(folder), args.bundle)
        facts = measure(place, args.parts, args.limit, args.json)
    print(table(facts))
    return 1 if any(part["status"] in ("failed", "too long") for part in facts["parts"]) else 0


def gpu_is_there() -> bool:
    """Asked in a way that leaves the device alone, so that processes which are forked may use it."""
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    import torch

    return torch.cuda.is_available()


def measure(place: Place, parts: Sequence[str], limit: float, file: Path | None = None) -> dict[str, Any]:
    """Perform parts one after the other.

    Args:
        place: where.
        parts: their names.
        limit: seconds of all of them; what has no time left says so.
        file: for the numbers, written again after each part: a later one that ends everything takes none with it.
    """
    end, found = time.perf_counter() + limit, list[dict[str, Any]]()
    facts = {"machine": machine("torch"), "device": place.device, "tiny": place.tiny, "parts": found}
    for name in parts:
        left = end - time.perf_counter()
        print(f"… {name}: {PARTS[name].about}", file=sys.stderr, flush=True)
        late = {"part": name, "status": "skipped", "why": f"the {limit:.0f} s of all parts were over", "seconds": 0.0}
        found.append(perform(PARTS[name], place, left) if left >= 1 else late | {"lines": []})
        if file:
            write_json(file, facts)
    return facts


def table(facts: dict[str, Any]) -> str:
    """The measurements as lines of text and a table in Markdown."""
    here = facts["machine"]
    what = "tiny networks: only the code was tried" if facts["tiny"] else "random weights"
    rows = [
        f"{in_words(here)}; torch {here['versions']['torch']}, {facts['device']}; {what}",
        "",
        "| part | what | found |",
        "| --- | --- | --- |",
    ]
    for part in facts["parts"]:
        took = f"{part['status']}, {part['seconds']:.0f} s"
        rows.append(f"| **{part['part']}** | {took} | {part['why'].replace('|', '/') or part.get('about', '')} |")
        rows += [f"| | {line['what']} | {line['found']} |" for line in part["lines"]]
    return "\n".join(rows)
