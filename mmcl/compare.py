"""``mmcl compare A B …``: set runs side by side, seeds' mean and deviation, and intervals of their differences."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from mmcl.common.arguments import out_path
from mmcl.common.errors import run
from mmcl.common.stack import require_packages

ABOUT = """\
Set runs side by side: top-1, mean class accuracy and calibration error, mean and standard deviation over seeds, and
the difference of each group to the first one with a 95 % interval (paired bootstrap over clips and seeds). All must
have been judged on the same clips of the same data by the same protocol."""
EPILOG = """\
GROUP is NAME=PATH,PATH,… or PATH,PATH,…: the seeds of one thing. A PATH is a report folder (of `mmcl evaluate`,
`mmcl zero-shot`, `mmcl ensemble`) or a run folder (its report-test is taken), and may be a pattern in quotes.
The folder of a study stands for all its arms, whose runs are paired as the study pairs them.

examples:
  mmcl compare runs/joint runs/bone
  mmcl compare 'joint=runs/joint_*' 'bone=runs/bone_*' fused=reports/two_streams --out reports/streams

An interval that holds 0 says that these runs show no difference; it does not say that there is none.
"""


def build_parser() -> argparse.ArgumentParser:
    """Command line of ``mmcl compare``."""
    parser = argparse.ArgumentParser(
        prog="mmcl compare", description=ABOUT, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("groups", nargs="+", metavar="GROUP", help="the first one is what others are compared with")
    parser.add_argument("--out", type=out_path, metavar="DIR", help="folder for comparison.md, .json and .png")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Compare, print the table, write it."""
    arguments = build_parser().parse_args(argv)
    require_packages()
    from mmcl.common.files import check_replaceable
    from mmcl.evaluation.compare import compare
    from mmcl.evaluation.reporting.comparison import comparison_text, write_comparison
    from mmcl.evaluation.reporting.groups import read_groups, read_pairing

    groups = read_groups(arguments.groups)
    if arguments.out is not None:
        check_replaceable(arguments.out, "comparison.json")
    rows = compare(groups, read_pairing(arguments.groups))
    print(comparison_text(rows, groups))
    if arguments.out is not None:
        write_comparison(arguments.out, rows, groups)
        print(f"\nwritten to {arguments.out}")
    return 0


if __name__ == "__main__":
    run(main)
