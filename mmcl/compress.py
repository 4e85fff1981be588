"""``mmcl compress RUN|BUNDLE --out DIR``: thin factors in place of a trained model's matrices, or another surgery."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from mmcl.common.arguments import AtLeastOne, add_which, in_path, out_path
from mmcl.common.errors import run
from mmcl.common.files import check_replaceable
from mmcl.surgery.compressing import AMOUNTS, LOW_RANK, asked, compress, result_of

EPILOG = """\
One of the six policies says how small; several numbers with commas between them (--parameters 0.7,0.5) make a sweep:
a bundle for each, and one page that sets them side by side. What is written can be trained on, which is how accuracy
comes back:
  mmcl train --config utd_mhad_joint --start.checkpoint=checkpoints/small --optimiser.rate=0.01 --schedule.epochs=10

examples:
  mmcl compress runs/utd --parameters 0.5 --out checkpoints/small
  mmcl compress runs/utd --parameters 0.7,0.5,0.3 --onnx --out checkpoints/sizes
  mmcl compress runs/utd --parameters 0.5 --basis random --statistics --out checkpoints/control
  mmcl compress checkpoints/small --merge --out checkpoints/whole
  mmcl compress runs/utd --surgery their_pruning --option share=0.3 --out checkpoints/pruned   (of another package)
"""


def build_parser() -> argparse.ArgumentParser:
    """Command line of ``mmcl compress``."""
    parser = argparse.ArgumentParser(
        prog="mmcl compress", formatter_class=argparse.RawDescriptionHelpFormatter, epilog=EPILOG,
        description="Put two thin factors in the place of a trained model's matrices, by the directions that matter.",
    )  # fmt: skip
    parser.add_argument("checkpoint", type=in_path, metavar="RUN|BUNDLE", help="run folder, checkpoint or bundle")
    parser.add_argument(
        "--out", required=True, type=out_path, metavar="DIR", help="bundle to write; of a sweep, a folder"
    )
    parser.add_argument("--surgery", default=LOW_RANK, metavar="NAME", help="another one, of an installed package, "
                        f"with --option for its options and no policy (default: {LOW_RANK})")  # fmt: skip
    policy = parser.add_mutually_exclusive_group()
    for name, words in AMOUNTS.items():
        flags = [f"--{name}", "--ratios"] if name == "ratio" else [f"--{name}"]
        policy.add_argument(*flags, dest=name, type=_numbers, metavar="X[,Y]", help=words)
    policy.add_argument("--merge", action="store_true", help="the reverse: factored layers get one weight again")
    parser.add_argument("--include", action="append", default=[], metavar="PATTERN", help="layers to factor; repeat")
    parser.add_argument("--exclude", action="append", default=[], metavar="PATTERN", help="layers to leave; repeat")
    parser.add_argument("--temporal", action="store_true", help="also convolutions over several frames")
    parser.add_argument(
        "--basis", metavar="B",
        help="directions that are kept: outputs, those of what layers put out on training clips; svd, the singular "
        "vectors of weights; random, the control (default: outputs where training clips are known, otherwise svd)",
    )  # fmt: skip
    parser.add_argument(
        "--option", action="append", default=[], metavar="KEY=VALUE", help="any other option of the surgery; repeat"
    )
    parser.add_argument("--data", metavar="DIR", help="clip store to judge on (default: the run's own)")
    parser.add_argument("--protocol", metavar="P", help="protocol (default: the run's own)")
    parser.add_argument("--split", choices=("test", "validation", "train"), default="test", help="default: test")
    parser.add_argument(
        "--statistics",
        action="store_true",
        help="with svd or random, too, measure batch norms again on the protocol's training clips",
    )
    parser.add_argument("--onnx", action="store_true", help="also take the time through ONNX Runtime")
    add_which(parser)
    parser.add_argument(
        "--batch-size", type=int, action=AtLeastOne, default=64, metavar="N", help="clips at once (default: 64)"
    )
    parser.add_argument("--device", metavar="D", help="torch device (default: a GPU where there is one)")
    parser.add_argument("--overwrite", action="store_true", help="replace what is already there")
    return parser


def _numbers(text: str) -> list[float]:
    """``0.7,0.5`` as numbers."""
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: write numbers with commas between them") from error
    if len(set(found)) < len(found):
        raise argparse.ArgumentTypeError(f"{text!r}: a number is there twice")
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, compress, print one line for each model."""
    from mmcl.common.stack import require_packages

    arguments = build_parser().parse_args(argv)
    require_packages()
    from mmcl.surgery.low_rank.page import PAGE

    check_replaceable(arguments.out, result_of(len(asked(arguments))), arguments.overwrite)
    first, *others = compress(arguments)
    for point in others:
        accuracy = "" if point.accuracy is None else f", top-1 {first.accuracy:.2%} -> {point.accuracy:.2%}"
        print(
            f"{point.name}: parameters {first.parameters:,} -> {point.parameters:,}, MACs {first.macs / 1e6:,.1f} M -> "
            f"{point.macs / 1e6:,.1f} M{accuracy}"
        )
    print(f"report in {arguments.out / PAGE}")
    return 0


if __name__ == "__main__":
    run(main)
