"""``mmcl ensemble REPORT REPORT … --out DIR``: fuse the scores of several models by clip id, and report the result."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from mmcl.common.arguments import in_path, out_path
from mmcl.common.errors import UserError, run
from mmcl.common.files import absolute, check_replaceable
from mmcl.common.stack import require_packages

ABOUT = """\
Fuse the scores that several models gave to the same clips. Scores are joined by clip id, never by row order: a clip
that one report lacks, other labels, classes, protocol or data are an error. Writes a report like any other, with its
members and their weights.

What is averaged: softmax probabilities, which are on one scale for every model, so that equal weights are equal say.
The ensembles published for CTR-GCN and its relatives add up raw scores, in ratios such as 2 : 2 : 1 : 1: that is
--fuse scores --weights 2 2 1 1."""
EPILOG = """\
REPORT is a folder that `mmcl evaluate` or `mmcl zero-shot` wrote, or a run folder (its report-test is taken).

examples:
  mmcl ensemble runs/joint runs/bone --out reports/two_streams
  mmcl ensemble runs/joint runs/bone runs/joint_motion runs/bone_motion --weights 2 2 1 1 --out reports/four_streams
  mmcl evaluate --checkpoint runs/joint --split validation        (of a run with --data.validation; so for each member)
  mmcl ensemble runs/joint runs/bone --fit runs/joint runs/bone --out reports/fitted    (report-validation is taken)

--fit looks for the weights (none negative, sum 1) that make the validation clips' true classes most likely. Test clips
are refused there, as are clips that the members are judged on.
"""


def build_parser() -> argparse.ArgumentParser:
    """Command line of ``mmcl ensemble``."""
    parser = argparse.ArgumentParser(
        prog="mmcl ensemble", description=ABOUT, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("reports", nargs="+", type=in_path, metavar="REPORT", help="members: report or run folders")
    parser.add_argument("--out", type=out_path, required=True, metavar="DIR", help="folder of the ensemble's report")
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--weights", nargs="+", type=float, metavar="W", help="one a member; ratios (default: equal)")
    chosen.add_argument(
        "--fit",
        nargs="+",
        type=in_path,
        metavar="REPORT",
        help="the members' validation reports, to fit the weights on",
    )
    parser.add_argument(
        "--fuse", choices=("probabilities", "scores"), default="probabilities", help="what is averaged (probabilities)"
    )
    return parser


def ensemble(arguments: argparse.Namespace) -> dict[str, Any]:
    """Fuse and write the report; returns it.

    Raises:
        UserError: the reports do not belong together, or the weights do not fit them.
    """
    import numpy as np

    from mmcl.evaluation.fusion import check_fitting, check_scored, ensemble_facts, fit_weights, fuse
    from mmcl.evaluation.report import write_report
    from mmcl.evaluation.reporting.outdated import refuse_outdated
    from mmcl.evaluation.reporting.same_clips import check_given_once, check_same_clips
    from mmcl.evaluation.reporting.saved import clips_of, read_report
    from mmcl.evaluation.top1 import scored

    check_replaceable(arguments.out, "report.json")
    members = [refuse_outdated(read_report(path)) for path in arguments.reports]
    if len(members) < 2:
        raise UserError("an ensemble needs at least two reports")
    check_given_once(members)
    check_scored(members)
    check_same_clips(members)
    weights, chosen, held = np.ones(len(members)), "equal", []
    if arguments.weights is not None:
        weights, chosen = np.array(arguments.weights), "given"
        if len(weights) != len(members) or not np.isfinite(weights).all() or (weights < 0).any() or not weights.any():
            raise UserError(f"--weights needs {len(members)} numbers, none negative and not all 0")
        weights = weights / weights.max()  # ratios: their sum must not overflow
    elif arguments.fit is not None:
        held = [refuse_outdated(read_report(path, "validation")) for path in arguments.fit]
        check_fitting(members, held)
        weights = fit_weights([report.scores for report in held], held[0].labels, arguments.fuse)
        chosen = (
            f"fitted on {len(held[0].ids)} validation clips for the largest likelihood of their classes: "
            + ", ".join(str(report.path) for report in held)
        )  # fmt: skip
    if absolute(arguments.out) in {absolute(report.path) for report in (*members, *held)}:
        raise UserError(f"--out {arguments.out} is one of the reports that are fused: choose another folder")
    first, facts = members[0], ensemble_facts(members, weights, arguments.fuse, chosen)
    scores = fuse([member.scores for member in members], weights, arguments.fuse)
    verdict = scored(scores, first.labels, first.ids, first.class_names, {})
    return write_report(arguments.out, verdict, facts, clips_of(first))


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, fuse, print members and result."""
    arguments = build_parser().parse_args(argv)
    require_packages()
    report = ensemble(arguments)
    for member in report["members"]:
        print(f"  {member['weight']:.3f} x {member['report']} (top-1 {member['top1']:.2%})")
    rule = f"{report['protocol']} {report.get('split') or ''}".strip()
    print(
        f"{rule}: {report['fused']}, weights {report['weights'].split(':')[0]}: top-1 {report['top1']:.2%} "
        f"({report['correct']} of {report['n']}), mean class accuracy "
        f"{report['mean_class_accuracy']:.2%}; report in {arguments.out}"
    )
    return 0


if __name__ == "__main__":
    run(main)
