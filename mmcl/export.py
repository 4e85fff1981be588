"""``mmcl export --run RUN --out DIR``: the skeleton branch of a run as a bundle, verified before it is there."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mmcl.common.errors import UserError, run
from mmcl.common.files import check_replaceable
from mmcl.common.stack import require_packages
from mmcl.deploy.config import MAX_LOSS, Extras, is_bundle, parse_precisions

ABOUT = """Write the skeleton branch of a run as a bundle: weights, config, model card. The bundle
is loaded in a fresh process, in which no training package can be imported, and its
scores are compared with those the trained network recorded with its checkpoint; only
then is it put in place.

A run that learned a projection into a space of texts (recipe utd_mhad_open) takes it
along: with --classes, its bundle can name classes that were never trained."""
EXAMPLES = """examples:
  mmcl export --run runs/utd --out checkpoints/utd --onnx
  mmcl export --run runs/utd --out checkpoints/edge --onnx int8 --drop-weights  # small, for onnxruntime alone
  mmcl export --run runs/open --out checkpoints/open --classes own
  mmcl export --run runs/open --out checkpoints/open --classes "own,juggle,climb a ladder"
"""


def build_parser() -> argparse.ArgumentParser:
    """Command line of ``mmcl export``."""
    parser = argparse.ArgumentParser(
        prog="mmcl export",
        description=ABOUT,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--run", required=True, type=Path, metavar="DIR", help="run folder (--out of mmcl train)")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="bundle folder to write")
    parser.add_argument("--which", choices=("last", "best"), default="last", help="checkpoint (default: last)")
    parser.add_argument(
        "--onnx",
        nargs="?",
        const="fp32",
        metavar="P,…",
        help="also write ONNX graphs: fp32 (default), fp16 (weights at half the size, computed in fp32), int8 "
        "(calibrated on training clips). Each is judged on the run's test clips first (needs the onnx extra)",
    )
    parser.add_argument(
        "--max-loss", type=float, default=MAX_LOSS, metavar="P",
        help="points of top-1 accuracy that a graph may lose on test clips; with more, nothing is written "
        f"(default: {MAX_LOSS})",
    )  # fmt: skip
    parser.add_argument("--torch-export", action="store_true", help="also write model.pt2, a torch.export program")
    parser.add_argument(
        "--drop-weights", action="store_true",
        help="leave model.safetensors out: the bundle then runs with onnxruntime alone (needs --onnx)",
    )  # fmt: skip
    parser.add_argument(
        "--classes",
        metavar="C",
        help="open vocabulary: also write texts of these classes, trained or not, so that `mmcl predict --classes` can "
        "tell them apart without a text model. Names separated by commas, where `own` stands for all classes of the "
        "run's data set, withheld ones included; or a .yaml file of names and descriptions like those in prompts/. "
        "Templates are the run's",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a bundle that is already there")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, export, say what was written."""
    arguments = build_parser().parse_args(argv)
    require_packages()
    check_replaceable(arguments.out, is_bundle, arguments.overwrite)
    if arguments.drop_weights and arguments.onnx is None:
        raise UserError("--drop-weights leaves nothing to run without --onnx")
    if not 0 <= arguments.max_loss <= 100:
        raise UserError(f"--max-loss is {arguments.max_loss:g}: it must be a number of points from 0 to 100")
    onnx = parse_precisions(arguments.onnx) if arguments.onnx is not None else ()
    extras = Extras(onnx, arguments.max_loss, arguments.torch_export, arguments.drop_weights)
    from mmcl.evaluation.to_bundle import export_run

    facts = export_run(arguments.run, arguments.out, arguments.which, arguments.classes, extras)
    size = sum(file.stat().st_size for file in arguments.out.iterdir()) / 2**20
    print(
        f"{arguments.out}: {facts['counts']['parameters']:,} parameters, {size:.1f} MiB, "
        f"{len(facts['class_names'])} classes; same scores as the trained network in a fresh process without any "
        f"training package (largest difference {facts['verified']:.1e})"
    )
    for graph in facts.get("onnx", {}).values():
        print(
            f"{graph['file']}: {graph['bytes'] / 2**20:.2f} MiB, top-1 {graph['top1']:.2%} on {graph['n']} clips of "
            f"{graph['judged_on']} (the trained network {graph['reference_top1']:.2%}); names the same class for "
            f"{graph['agreement']:.2%}, probabilities differ by {graph['max_probability_difference']:.3f} at most"
        )
    if vocabulary := facts.get("vocabulary"):
        table = f"texts of {len(vocabulary['names'])} classes" if vocabulary["names"] else "no class texts (--classes)"
        print(f"open vocabulary: projection of {facts['counts']['projection']:,} parameters, {table}")
    if not facts["provenance"]["complete"]:
        print("note: this run has not reached its last epoch")
    return 0


if __name__ == "__main__":
    run(main)
