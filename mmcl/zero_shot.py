"""``mmcl zero-shot``: judge a model on another data set by a label map, or on classes it never saw by their text."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from mmcl.common.arguments import AtLeastOne, add_model, add_which, in_path, out_path
from mmcl.common.errors import UserError, run

ABOUT = """Three things are called zero-shot in this field. mmcl never mixes them up:

  transfer by label map   a classifier judged on another data set's clips of the actions that both share, argmax over
                          all its own classes, no fine-tuning. MMCL's paper calls this zero-shot.
  open vocabulary         clips of classes that were withheld from training, recognised by their text. What SynSE, SMIE
                          and others call (generalised) zero-shot.
  domain adaptation       trained on one half of the target data set, judged on the other: that is `mmcl train` with
                          --start.checkpoint, and `mmcl evaluate`."""
EXAMPLES = """examples:
  mmcl zero-shot --list-protocols
  mmcl zero-shot --checkpoint checkpoints/ntu120 --data data/utd --protocol mmcl/utd_mhad
  mmcl zero-shot --checkpoint runs/open0 --gate runs/open0_gate       (protocol and data come from the run)
  mmcl zero-shot --checkpoint runs/dvae0 --gate runs/dvae0_gate --cycles
  mmcl zero-shot --checkpoint checkpoints/open --data data/utd --classes "wave,clap,jog"
"""


def build_parser() -> argparse.ArgumentParser:
    """Command line of ``mmcl zero-shot``."""
    parser = argparse.ArgumentParser(
        prog="mmcl zero-shot", description=ABOUT, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--list-protocols", action="store_true", help="print the protocols with rules and class lists")
    add_model(parser, required=False)
    parser.add_argument("--data", metavar="DIR", help="clip store to judge on (open vocabulary: the run's own)")
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--protocol",
        metavar="P",
        help="label map or open-vocabulary protocol, by name or .yaml file (default: the run's)",
    )
    what.add_argument(
        "--classes", metavar="C", help="open vocabulary among these: names separated by commas, or a prompts .yaml file"
    )
    parser.add_argument(
        "--gate", type=in_path, metavar="RUN", help="run of P/gate: fits the gate of generalised zero-shot"
    )
    parser.add_argument(
        "--cycles", action="store_true", help="of a run of sa_dvae: judge the cycle that is best on the gate's run"
    )
    parser.add_argument("--released-gate", action="store_true", help="fit and apply the gate as SA-DVAE released it")
    parser.add_argument("--gate-temperature", type=float, metavar="T", help="of the gate (default: chosen by fitting)")
    parser.add_argument("--gate-threshold", type=float, metavar="P", help="of the gate (default: chosen by fitting)")
    add_which(parser)
    parser.add_argument(
        "--out", type=out_path, metavar="DIR", help="report folder (default: RUN/report-…, or reports/)"
    )
    parser.add_argument(
        "--batch-size", type=int, action=AtLeastOne, default=64, metavar="N", help="clips at once (default: 64)"
    )
    parser.add_argument("--device", metavar="D", help="torch device (default: a GPU where there is one)")
    return parser


def describe_protocols() -> str:
    """Every shipped protocol with its rule and classes, by kind."""
    from mmcl.evaluation.listing import describe_maps, describe_open_protocols

    return (
        "TRANSFER BY LABEL MAP: argmax over all source classes, no fine-tuning\n\n"
        f"{describe_maps()}\n\nOPEN VOCABULARY: withheld classes, recognised by their text\n\n"
        f"{describe_open_protocols()}\n\n"
        "DOMAIN ADAPTATION: `mmcl train --start.checkpoint X`, judged by `mmcl evaluate`; protocols "
        "sysu/setting-1/0 … 29, sysu/setting-2/0 … 29, or any protocol of the target data set"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, judge, print what came out."""
    arguments = build_parser().parse_args(argv)
    if arguments.list_protocols:
        print(describe_protocols())
        return 0
    if arguments.checkpoint is None:
        raise UserError("zero-shot needs a run folder, checkpoint or bundle (or --list-protocols)")
    from mmcl.common.stack import require_packages

    require_packages()
    from mmcl.evaluation.reporting.console import report_lines
    from mmcl.evaluation.zero_shot import judged

    report, out = judged(arguments)
    print("\n".join(report_lines(report, out)))
    return 0


if __name__ == "__main__":
    run(main)
