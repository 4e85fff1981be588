"""``mmcl compress RUN|BUNDLE --out DIR``: thin factors in place of a trained model's matrices (LORTSAR)."""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmcl.common.arguments import AtLeastOne
from mmcl.common.errors import UserError, run
from mmcl.common.files import atomic_folder, check_replaceable
from mmcl.models.description import is_bundle

if TYPE_CHECKING:
    from mmcl.data.selection import Selection
    from mmcl.models.folder import SavedModel
    from mmcl.surgery.low_rank.sweep import Point

SECONDS = 2.0  # for each model whose time is taken
AMOUNTS = {
    "ratio": "share of the rank that each matrix could have",
    "rank": "the same rank for all",
    "energy": "share of the energy of its directions that each layer keeps",
    "parameters": "share of the network's parameters, or their number",
    "macs": "share of its multiply-accumulates a clip, or their number",
    "milliseconds": "time of one clip through ONNX Runtime on this machine",
}
FLAGS = {  # options of the surgery that have flags, which say more than the surgery's own number
    "policy": "one of --ratio, --rank, --energy, --parameters, --macs, --milliseconds, --merge",
    "amount": "--ratio, --rank, --energy, --parameters, --macs or --milliseconds",
    "basis": "--basis", "include": "--include", "exclude": "--exclude", "temporal": "--temporal",
    "batch_size": "--batch-size",
}  # fmt: skip
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
"""


def build_parser() -> argparse.ArgumentParser:
    """Command line of ``mmcl compress``."""
    parser = argparse.ArgumentParser(
        prog="mmcl compress", formatter_class=argparse.RawDescriptionHelpFormatter, epilog=EPILOG,
        description="Put two thin factors in the place of a trained model's matrices, by the directions that matter.",
    )  # fmt: skip
    parser.add_argument("checkpoint", type=Path, metavar="RUN|BUNDLE", help="run folder, checkpoint or bundle")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="bundle to write; of a sweep, a folder")
    policy = parser.add_mutually_exclusive_group(required=True)
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
    parser.add_argument("--which", choices=("last", "best"), default="last", help="checkpoint of a run (default: last)")
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


def asked(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Options of every surgery that a command line asks for.

    Raises:
        UserError: one of them is given by --option, and has a flag.
    """
    from mmcl.evaluation.judging import option_words

    options = option_words(arguments.option)
    if said := next((key for key in FLAGS if key in options), None):
        raise UserError(f"--option {said}: give {FLAGS[said]} instead")
    shared = {
        "basis": arguments.basis or "svd", "include": arguments.include, "exclude": arguments.exclude,
        "temporal": arguments.temporal, "batch_size": max(2, arguments.batch_size), **options,
    }  # fmt: skip
    if arguments.merge:
        return [{**shared, "policy": "merge"}]
    policy = next(name for name in AMOUNTS if getattr(arguments, name) is not None)
    return [{**shared, "policy": policy, "amount": amount} for amount in getattr(arguments, policy)]


def judged_clips(saved: SavedModel, arguments: argparse.Namespace) -> Selection | None:
    """The clips to judge on; None where neither command line nor run names any.

    Raises:
        UserError: a side is asked for, or statistics, and there is no store; or that side holds no clip.
    """
    from mmcl.evaluation.judging import select

    own = saved.description.provenance if saved.checkpoint is not None else {}
    if (arguments.data or own.get("data")) and (arguments.protocol or own.get("protocol")):
        data = select(saved, arguments.data, arguments.protocol, arguments.split)
        if not len(data.clips):
            raise UserError(f"the run holds no clips out for validation: --split {data.side} is empty; take another")
        return data
    if arguments.statistics or arguments.data or arguments.protocol:
        raise UserError(f"{saved.path} does not say which clips: give --data and --protocol")
    return None


def compress(arguments: argparse.Namespace) -> list[Point]:
    """Write all bundles and the report; returns the original and what became of it.

    Raises:
        UserError: no such model or store, options that are wrong, or nothing would become smaller.
    """
    from tqdm import tqdm

    from mmcl.common.device import pick_device
    from mmcl.deploy.export import export_model
    from mmcl.models.folder import find_model
    from mmcl.surgery.base import build_surgery
    from mmcl.surgery.low_rank.page import write_report
    from mmcl.surgery.low_rank.sweep import measured

    saved = find_model(arguments.checkpoint, arguments.which)
    data = judged_clips(saved, arguments)
    train = None if data is None else replace(data, side="train")
    if arguments.basis is None and not arguments.merge:
        arguments.basis = "outputs" if train is not None and len(train.clips) else "svd"
    surgeries = {_name(options): build_surgery("low_rank", options) for options in asked(arguments)}
    model = saved.load(None if data is None else data.store.layout, pick_device(arguments.device))
    shown = train if arguments.statistics or arguments.basis == "outputs" else None
    models = {"original": model}
    with atomic_folder(arguments.out, _result(len(surgeries))) as folder:
        for name, surgery in tqdm(surgeries.items(), desc="compressing", unit="model", disable=len(surgeries) < 2):
            models[name] = surgery.run(model, shown)
            own = models[name].taking(saved.description.layout)  # not that of the clips it is judged on
            export_model(copy.deepcopy(own).cpu(), folder / name)
        points = measured(models, data, arguments.batch_size, SECONDS, arguments.onnx)
        write_report(folder, points, models, data)
        if len(surgeries) == 1:  # --out is the bundle itself
            for file in list((folder / name).iterdir()):
                file.rename(folder / file.name)
            (folder / name).rmdir()
    return points


def _name(options: dict[str, Any]) -> str:
    return "merged" if options["policy"] == "merge" else f"{options['policy']}-{options['amount']:.12g}"


def _result(models: int) -> str | Callable[[Path], bool]:
    """What marks --out as a result: a single model is what --out names."""
    from mmcl.surgery.low_rank.page import SWEEP

    return SWEEP if models > 1 else is_bundle


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, compress, print one line for each model."""
    from mmcl.common.stack import require_packages

    arguments = build_parser().parse_args(argv)
    require_packages()
    from mmcl.surgery.low_rank.page import PAGE

    check_replaceable(arguments.out, _result(len(asked(arguments))), arguments.overwrite)
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
