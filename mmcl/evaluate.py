"""``mmcl evaluate --checkpoint X``: judge a run or a bundle on a protocol's test clips, and write a report."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmcl.common.arguments import AtLeastOne, add_model, add_which, out_path
from mmcl.common.errors import run
from mmcl.evaluation import EVALUATIONS

ABOUT = """\
Judge a trained model on a protocol's test clips, by accuracy (top1) or by another evaluation. Writes a report:
report.md to read (confusion matrix, accuracy by class, calibration, pictures of the clips it was surest of and wrong
about), report.json, per_class.csv, wrong.csv and scores.npz (scores by clip id), which `mmcl ensemble` fuses and
`mmcl compare` sets side by side."""
EPILOG = """\
examples (data and protocol are the run's own where you do not give them):
  mmcl evaluate --checkpoint runs/utd
  mmcl evaluate --checkpoint runs/utd --show 20
  mmcl evaluate --checkpoint runs/utd --evaluation knn --option 'k=[1,5]'
  mmcl evaluate --checkpoint runs/utd --evaluation transfer --option map=ours/utd_mhad_to_nw_ucla --data data/nw_ucla

open_vocabulary and cycles judge the classes that the protocol withholds; transfer and classes judge a whole store
(--data); all others the clips of --split. `mmcl zero-shot` and `mmcl probe` run several of these with less to type."""


def build_parser() -> argparse.ArgumentParser:
    """Command line of ``mmcl evaluate``."""
    parser = argparse.ArgumentParser(
        prog="mmcl evaluate",
        description=ABOUT,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_model(parser)
    parser.add_argument("--data", metavar="DIR", help="clip store (default: the run's own)")
    parser.add_argument("--protocol", metavar="P", help="protocol (default: the run's own)")
    parser.add_argument("--split", choices=("test", "validation", "train"), default="test", help="default: test")
    parser.add_argument(
        "--evaluation", default="top1", metavar="NAME", help=f"how to judge: {', '.join(EVALUATIONS)} (default: top1)"
    )
    parser.add_argument(
        "--option", action="append", default=[], metavar="KEY=VALUE", help="option of the evaluation; may be repeated"
    )
    add_which(parser)
    parser.add_argument(
        "--out",
        type=out_path,
        metavar="DIR",
        help="report folder (default: RUN/report-SPLIT, of another protocol or store a longer name; or reports/)",
    )
    parser.add_argument(
        "--batch-size", type=int, action=AtLeastOne, default=64, metavar="N", help="clips at once (default: 64)"
    )
    parser.add_argument(
        "--show", type=int, action=AtLeastOne, default=0, metavar="N", help="also write wrong.html, on which the N "
        "clips that it was surest of and wrong about move and can be turned; it holds these clips' joints: see what "
        "the data set's licence says before you pass it on",
    )  # fmt: skip
    parser.add_argument(
        "--frames", action="store_true", help="draw the wrong clips on the pictures of their video, and not on paper; "
        "the report then holds these recordings"
    )  # fmt: skip
    parser.add_argument("--device", metavar="D", help="torch device (default: a GPU where there is one)")
    return parser


def evaluate(arguments: argparse.Namespace) -> tuple[dict[str, Any], Path]:
    """Judge and write the report; returns the report and its folder."""
    from mmcl.common.device import pick_device
    from mmcl.evaluation.base import build_evaluation
    from mmcl.evaluation.judging import judge, option_words, report_folder, select_for
    from mmcl.models.folder import find_model

    saved = find_model(arguments.checkpoint, arguments.which)
    evaluation = build_evaluation(arguments.evaluation, option_words(arguments.option))
    data = select_for(evaluation, saved, arguments.data, arguments.protocol, arguments.split)
    out = arguments.out or report_folder(saved, data, arguments.evaluation)
    device = pick_device(arguments.device)
    return judge(saved, data, evaluation, out, device, arguments.batch_size, arguments.show, arguments.frames), out


def summary(report: dict[str, Any], out: Path) -> str:
    """A report in one line."""
    rule = " ".join(str(report[key]) for key in ("protocol", "split") if report.get(key))
    if report["main"] != "top1":
        return f"{rule}: {report['main'].replace('_', ' ')} {report[report['main']]:.4g}; report in {out}"
    top5 = f", top-5 {report['top5']:.2%}" if report["top5"] is not None else ""
    floors = report.get("floors")
    floor = (
        f" (without a network: kernel ridge {floors['kernel_ridge']:.2%}, nearest training clip "
        f"{floors['nearest']:.2%})"
    ) if floors else ""  # fmt: skip
    return (
        f"{rule}: top-1 {report['top1']:.2%} ({report['correct']} of {report['n']}){top5}, mean class accuracy "
        f"{report['mean_class_accuracy']:.2%}{floor}; report in {out}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, evaluate, print one line."""
    from mmcl.common.stack import require_packages

    arguments = build_parser().parse_args(argv)
    require_packages()
    report, out = evaluate(arguments)
    print(summary(report, out))
    return 0


if __name__ == "__main__":
    run(main)
