"""``mmcl bench frontier``: how right finished runs are, beside their size and the time of their graphs here."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmcl.benchmarks.frontier_networks import Network, make_network, model_paths, published_call
from mmcl.benchmarks.frontier_page import MARK, frontier_table, write_frontier
from mmcl.benchmarks.frontier_points import BASELINE, PRECISIONS, Point
from mmcl.benchmarks.machine import machine
from mmcl.benchmarks.timing import Timing, compare
from mmcl.common.arguments import out_path
from mmcl.common.errors import UserError
from mmcl.common.files import check_replaceable
from mmcl.deploy.onnx import require_onnx
from mmcl.encoders.counting import count_macs, count_parameters
from mmcl.evaluation.compare import paired_bootstrap
from mmcl.evaluation.reporting.groups import read_groups
from mmcl.evaluation.reporting.same_clips import check_given_once, check_same_clips
from mmcl.evaluation.reporting.saved import SavedReport

ABOUT = """\
One table and one picture of finished runs: accuracy of the judged clips, with a 95 % interval over clips and seeds;
parameters and multiply-accumulates; and the time of one clip in the ONNX graphs, in single precision and in int8.
Graphs are made anew, but for those that a bundle holds, and called in turns in one process, on the same clip, one
thread each if not said otherwise. A row is on the frontier if no other is both at least as right and faster in int8.

Of a group of several seeds, the first is timed. An ensemble's time is that of all its members, one after the other.
Times are compared with that of CTR-GCN as published (full width, eager PyTorch), for the same joints and frames."""
EPILOG = """\
GROUP is NAME=PATH,PATH,… (the seeds of one thing: run folders, reports of `mmcl evaluate` or `mmcl ensemble`), or the
folder of a study, which stands for all its arms. Names that are equal before a dot (ctrgcn, ctrgcn.small) are sizes of
one thing if all of them differ in their number of parameters: the picture joins them by a line of one colour.

examples:
  mmcl bench frontier studies/encoders_utd studies/sizes_utd --out reports/sizes
  mmcl bench frontier teachers=reports/three_streams 'student=runs/student_*' --out reports/frontier --threads 2
"""


def build_parser() -> argparse.ArgumentParser:
    """Command line of ``mmcl bench frontier``."""
    parser = argparse.ArgumentParser(
        prog="mmcl bench frontier", description=ABOUT, epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("groups", nargs="+", metavar="GROUP", help="rows of the table")
    parser.add_argument("--out", type=out_path, required=True, metavar="DIR", help="folder of table and picture")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="of each graph (1)")
    parser.add_argument("--seconds", type=float, default=4.0, metavar="S", help="of timing for each graph (4)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table, write table and picture."""
    arguments = build_parser().parse_args(argv)
    if arguments.threads < 1:
        raise UserError("--threads must be at least 1")
    require_onnx()
    check_replaceable(arguments.out, MARK)
    groups = read_groups(arguments.groups, least=1)
    here = machine("torch", "onnxruntime")  # before it is busy with this
    points = measure(groups, arguments.threads, arguments.seconds)
    rule = {key: value for key in ("protocol", "split") if (value := next(iter(groups.values()))[0].facts.get(key))}
    facts = {"machine": here, "threads": arguments.threads, **rule}
    write_frontier(arguments.out, points, facts)
    print(f"{frontier_table(points, facts)}\n\nwritten to {arguments.out}")
    return 0


def measure(groups: Mapping[str, Sequence[SavedReport]], threads: int, seconds: float) -> list[Point]:
    """Measure every group.

    Args:
        groups: name -> reports of its seeds.
        threads: of each graph, and of the baseline.
        seconds: for timing each graph.

    Raises:
        UserError: reports of other clips, of another number than top-1, or of models that are gone.
    """
    for report in (report for reports in groups.values() for report in reports):
        if report.main != "top1":
            raise UserError(f"{report.path} goes by {report.main}, and a frontier is of top-1: give a report by top1")
    check_same_clips([report for reports in groups.values() for report in reports])
    paths = {name: model_paths(reports[0]) for name, reports in groups.items()}
    made: dict[Path, Network] = {}
    for name, reports in groups.items():
        for path in paths[name]:
            if path not in made:
                print(f"graphs of {path} …", file=sys.stderr)
                made[path] = make_network(path, reports[0], threads)
    calls = {BASELINE: published_call(next(iter(made.values())))}
    for name in groups:
        for precision in PRECISIONS:
            calls[f"{name}/{precision}"] = partial(_all, [made[path].calls[precision] for path in paths[name]])
    with torch.inference_mode():
        times = compare(calls, seconds * len(calls), threads=threads)
    return [
        _point(name, reports, [made[path] for path in paths[name]],
               {key: times[key if key == BASELINE else f"{name}/{key}"] for key in (BASELINE, *PRECISIONS)})
        for name, reports in groups.items()
    ]  # fmt: skip


def _point(
    name: str, reports: Sequence[SavedReport], networks: Sequence[Network], times: dict[str, Timing]
) -> Point:  # fmt: skip
    check_given_once(reports)
    answers = [report.correct for report in reports if report.correct is not None]
    if len(answers) < len(reports):
        raise UserError(f"{reports[0].path} goes by {reports[0].main} and knows no clip that was answered right")
    correct = np.stack(answers)
    # The accuracy itself is the difference to somebody who is never right.
    _, low, high = paired_bootstrap(correct, np.zeros((1, correct.shape[1])))
    models = [network.model for network in networks]
    return Point(
        name, correct.mean(axis=1).tolist(), low, high, len(models),
        sum(count_parameters(model.encoder) for model in models),
        sum(count_macs(model.encoder, model.preprocess.options.window) for model in models),
        min(network.agreement for network in networks), times,
    )  # fmt: skip


def _all(calls: Sequence[Callable[[], Any]]) -> None:
    for call in calls:
        call()
