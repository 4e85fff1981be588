"""``mmcl bench deploy``: a bundle's graphs, one clip at a time, against the published network in eager PyTorch."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from mmcl.benchmarks.deploy_forms import form_lines, made_clip, operators
from mmcl.benchmarks.encoder import lively_encoder
from mmcl.benchmarks.machine import machine
from mmcl.benchmarks.operators import operators_table
from mmcl.benchmarks.roof import best_products
from mmcl.benchmarks.streams import stream_cost
from mmcl.benchmarks.tables import deploy_table
from mmcl.benchmarks.throughput import throughput
from mmcl.common.arguments import in_path, out_path
from mmcl.common.errors import UserError
from mmcl.common.files import write_json
from mmcl.deploy.graph_writing import make_graph
from mmcl.deploy.onnx import export_graph, finish, require_onnx
from mmcl.encoders.counting import count_parameters
from mmcl.encoders.ctrgcn.network import CTRGCN, CTRGCNOptions
from mmcl.models.bundle import describe, load_bundle, write_bundle
from mmcl.models.description import CARD, GRAPHS, WEIGHTS, graphs_in
from mmcl.models.description_file import CONFIG
from mmcl.models.hub import local
from mmcl.models.model import Model
from mmcl.skeletons.preprocess import Preprocess
from mmcl.skeletons.preprocess_options import PreprocessOptions

CLASSES, SECONDS, STARTS = 120, 8.0, 3
ABOUT = """\
All take raw joints of one clip to scores. The baseline, `published`, has the same weights in the plain form of the
paper and runs eagerly; `lean` is the folded form in PyTorch; the others are the bundle's ONNX graphs. All are called in
turns in one process; a ratio is the median of rounds, a difference of scores is relative to the largest one;
products are the multiplications of numbers in convolutions and matrix products of a form as it runs; for
streams, those of the causal network with the same options (`--encoder.causal=true`) are counted as well. A share is
the speed at which a form does its products, two operations each, beside that of the quickest product of two square
matrices of the same precision on as many threads, which takes its turn in the same rounds. The
cold start is a whole `mmcl predict` of one file in a new process, from the interpreter's start to the label. Without a
bundle, a CTR-GCN of full width for two persons and 120 classes with random weights is made for the purpose, calibrated
on random clips. Clips to time are random, too, which an int8 graph that was calibrated on recordings does not know:
what that costs on recordings is what the bundle says of it.

Many clips go side by side, each on one thread, as `mmcl predict` takes many files; beside that stands what it takes for
one clip at a time, on one thread or several, whichever is found to be quicker."""


def build_parser() -> argparse.ArgumentParser:
    """Command line of ``mmcl bench deploy``."""
    parser = argparse.ArgumentParser(
        prog="mmcl bench deploy", description=f"{__doc__}\n\n{ABOUT}",
        epilog="example:\n  mmcl bench deploy checkpoints/utd --threads 2 --json deploy.json",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument(
        "bundle", nargs="?", type=in_path, metavar="BUNDLE", help="with weights and ONNX graphs, or hf://user/name"
    )
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], metavar="N", help="one table each (1 2)")
    parser.add_argument("--seconds", type=float, default=SECONDS, metavar="S", help="for each comparison (8)")
    parser.add_argument(
        "--profile", action="store_true",
        help="also print what each graph spends its time on with one body on one thread, operator by operator, and in "
        "which numbers: of an int8 graph, what is left in single precision",
    )  # fmt: skip
    parser.add_argument("--json", type=out_path, metavar="FILE", help="write the numbers there, too")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print the table."""
    arguments = build_parser().parse_args(argv)
    if min(arguments.threads) < 1:
        raise UserError("--threads must be at least 1")
    require_onnx()
    with tempfile.TemporaryDirectory() as folder:
        bundle = local(arguments.bundle) if arguments.bundle else random_bundle(Path(folder))
        facts = measure(bundle, arguments.threads, arguments.seconds)
        facts["operators"] = operators(bundle) if arguments.profile else {}
    facts["weights"] = str(arguments.bundle or "random")
    print(deploy_table(facts))
    for precision, found in facts["operators"].items():
        print(f"\nWhat the {precision} graph spends its time on, one body, one thread. {operators_table(found)}")
    if arguments.json:
        write_json(arguments.json, facts)
    return 0


def random_bundle(
    folder: Path, options: CTRGCNOptions | None = None, window: int = 64, classes: int = CLASSES,
    precisions: Sequence[str] = tuple(GRAPHS),
) -> Path:  # fmt: skip
    """A bundle with random weights and graphs in some precisions, calibrated on random clips."""
    encoder = lively_encoder(options or CTRGCNOptions(), window, classes)
    preprocess = Preprocess(encoder.layout, encoder.layout, encoder.options.persons, PreprocessOptions(window=window))
    names = [f"class {number}" for number in range(classes)]
    write_bundle(folder, Model(describe("ctrgcn", encoder, preprocess, names, count=False), encoder, preprocess))
    bundle = load_bundle(folder)
    single = export_graph(bundle)
    clips = [made_clip(bundle, 1 + number % 2, number).numpy() for number in range(8)]
    for precision in precisions:
        model = finish(make_graph(single, precision, clips), bundle, {"precision": precision})
        (folder / GRAPHS[precision]).write_bytes(model.SerializeToString())
    return folder


def measure(folder: Path, threads: Sequence[int], seconds: float, starts: int = STARTS) -> dict[str, Any]:
    """Compare all forms of a bundle.

    Args:
        folder: the bundle, with its weights.
        threads: of torch and onnxruntime; every number in turn.
        seconds: for each comparison.
        starts: new processes for each cold start.
    """
    bundle = load_bundle(folder)
    if not isinstance(bundle.encoder, CTRGCN) or bundle.encoder.options.causal:
        raise UserError(f"{folder}: only a CTR-GCN that sees whole clips has a published form to compare with")
    graphs = graphs_in(folder)
    facts: dict[str, Any] = {
        "machine": machine("torch", "onnxruntime"), "parameters": count_parameters(bundle.encoder),
        "persons": bundle.preprocess.persons, "window": bundle.preprocess.options.window,
        "sizes": {"weights": _size(folder, WEIGHTS)} | {key: _size(folder, path.name) for key, path in graphs.items()},
        "agreement": bundle.description.onnx or None, "lines": [],
        "stream": stream_cost(bundle.encoder, bundle.preprocess.options.window),
    }  # fmt: skip
    for count in threads:
        best = best_products(("fp32", "int8"), count)
        for bodies in range(1, bundle.preprocess.persons + 1):
            print(f"{count} thread(s), {bodies} body/bodies …", file=sys.stderr)
            facts["lines"] += form_lines(bundle, graphs, bodies, count, seconds, best)
    facts["throughput"] = throughput(bundle, graphs, threads, seconds)
    facts["cold_start"] = {backend: cold_start(folder, bundle, backend, starts) for backend in ("torch", *graphs)}
    return facts


def cold_start(folder: Path, bundle: Model, backend: str, starts: int) -> float:
    """Seconds from the start of a new process to the label of one file: the median of several."""
    with tempfile.TemporaryDirectory() as place:
        np.save(f"{place}/clip.npy", made_clip(bundle, 1, 0)[0, :1].numpy())
        words = [sys.executable, "-m", "mmcl", "predict", str(folder), f"{place}/clip.npy", "--backend", backend]
        times = []
        for _ in range(starts):
            began = time.perf_counter()
            subprocess.run(words, check=True, capture_output=True, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""})
            times.append(time.perf_counter() - began)
    return median(times)


def _size(folder: Path, name: str) -> int:
    """Bytes of a bundle that has this file, its configuration and its card."""
    return sum((folder / part).stat().st_size for part in (name, CONFIG, CARD))
