"""``mmcl export --run RUN --out DIR``: the skeleton branch of a run as a bundle, verified before it is there."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mmcl.common.arguments import add_model, add_which, out_path
from mmcl.common.errors import UserError, run
from mmcl.common.files import absolute, check_replaceable
from mmcl.common.stack import require_packages
from mmcl.deploy.options import MAX_DIFFERENCE, MIN_AGREEMENT, ExportOptions, parse_precisions
from mmcl.models.description import STEPS, is_bundle
from mmcl.models.rejection import FAMILIARITY, LEAST, SHARE, read_rejection

if TYPE_CHECKING:
    from mmcl.deploy.verify import Verified
    from mmcl.models.description import Description

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
    add_model(parser, "--run")
    parser.add_argument("--out", required=True, type=out_path, metavar="DIR", help="bundle folder to write")
    add_which(parser)
    parser.add_argument(
        "--onnx",
        nargs="?",
        const="fp32",
        metavar="P,…",
        help="also write ONNX graphs: fp32 (default), fp16 (weights at half the size, computed in fp32), int8 "
        "(calibrated on training clips). Each is compared with the network on validation or training clips first "
        "(needs the onnx extra)",
    )
    parser.add_argument(
        "--min-agreement", type=float, metavar="S",
        help="share of clips for which a graph must name the network's class; with less, nothing is written (default: "
        f"{MIN_AGREEMENT})",
    )  # fmt: skip
    bounds = ", ".join(f"{precision} {bound:g}" for precision, bound in MAX_DIFFERENCE.items())
    parser.add_argument(
        "--max-difference", type=float, metavar="P",
        help=f"how far a probability of a graph may be from the network's on these clips (default: {bounds})",
    )  # fmt: skip
    parser.add_argument(
        "--layout", metavar="NAME",
        help="joints that the bundle shall take, by name or .yaml file, where these are not the run's own: they are "
        "converted inside the bundle and inside its graphs",
    )  # fmt: skip
    parser.add_argument("--data", metavar="DIR", help="clip store to calibrate graphs on (default: the run's own)")
    parser.add_argument("--protocol", metavar="P", help="whose training side these are (default: the run's own)")
    parser.add_argument(
        "--reject", nargs="?", type=float, const=SHARE, metavar="SHARE",
        help="store a threshold below which an answer is 'none of these': so that, of clips like the held-out ones "
        f"that are answered right, that share is rejected ({SHARE}). Needs clips held out of training "
        "(--data.validation)",
    )  # fmt: skip
    parser.add_argument(
        "--reject-by", choices=sorted(LEAST, reverse=True),
        help="what the threshold is of: familiarity, the likeness with the training clips of the class that is "
        "answered, finds unknown classes; the largest probability finds wrong answers (default: familiarity)",
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
    parser.add_argument(
        "--page", type=out_path, metavar="DIR",
        help="also write a page that runs the bundle in the browser, as static files (`mmcl serve` shows it)",
    )  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="replace a bundle that is already there")
    return parser


def check_flags(arguments: argparse.Namespace) -> None:
    """Whether every option has something to act on.

    Raises:
        UserError: one of them would do nothing, leaves nothing to run, is no share, or is in another one's way.
    """
    if arguments.drop_weights and arguments.onnx is None:
        raise UserError("--drop-weights leaves nothing to run without --onnx")
    graphs, clips = ("min_agreement", "max_difference"), ("data", "protocol")
    for wanted, names in {"--onnx": graphs, "--reject": ("reject_by",), "--onnx or --reject": clips}.items():
        given = any(getattr(arguments, name) is not None for name in wanted.replace("--", "").split(" or "))
        for name in names:
            if getattr(arguments, name) is not None and not given:
                raise UserError(f"--{name.replace('_', '-')} does nothing without {wanted}: add that, or leave it out")
    for name in graphs:
        value = getattr(arguments, name)
        if value is not None and not 0 <= value <= 1:
            raise UserError(f"--{name.replace('_', '-')} is {value:g}: it must be a share from 0 to 1")
    if arguments.page is not None:
        out, page = absolute(arguments.out), absolute(arguments.page)
        if out == page or out in page.parents or page in out.parents:
            raise UserError(f"--page {arguments.page} and --out {arguments.out} are one folder, or one is in the "
                            "other: each is replaced as a whole, so give two folders")  # fmt: skip


def summary(out: Path, description: Description, verified: Verified) -> list[str]:
    """What was written, line by line."""
    from mmcl.skeletons.frames import not_of_a_stream
    from mmcl.skeletons.preprocess_options import PreprocessOptions

    size = sum(file.stat().st_size for file in out.iterdir()) / 2**20
    lines = [
        f"{out}: {description.counts['parameters']:,} parameters, {size:.1f} MiB, {len(description.class_names)} "
        "classes; same scores as the trained network in a fresh process without any training package (largest "
        f"difference {verified.difference:.1e} in double precision; {verified.rounding:.1e} is rounding in single)"
    ]
    lines += [
        f"{graph['file']}: {graph['bytes'] / 2**20:.2f} MiB; names the network's class for {graph['agreement']:.2%} of "
        f"{graph['n']} clips ({graph['compared_on']}), probabilities differ by "
        f"{graph['max_probability_difference']:.3f} at most"
        for graph in description.onnx.values()
    ]
    if (out / STEPS).is_file():
        frame, clip = description.counts["macs_frame"], description.counts["macs"]
        lines.append(
            f"{STEPS}: for streams; {frame / 1e6:.2f} M multiply-accumulates a frame, {frame / clip:.1%} of a clip's"
        )
    elif description.onnx and description.encoder.options.get("causal"):
        wrong = not_of_a_stream(PreprocessOptions.from_dict(description.preprocess))
        lines.append(f"note: no {STEPS}, since a stream cannot be preprocessed so; that would take {', '.join(wrong)}")
    if description.rejection and (rule := read_rejection(description.rejection, str(out))):
        lines.append(
            f"none of these: below a {rule.score} of {rule.threshold:.3f}, set to reject {rule.share:.1%} of clips "
            f"like the {rule.clips} that are answered right on {rule.side}"
        )
    if vocabulary := description.vocabulary:
        table = f"texts of {len(vocabulary['names'])} classes" if vocabulary["names"] else "no class texts (--classes)"
        lines.append(f"open vocabulary: text head of {description.counts['text_head']:,} parameters, {table}")
    if description.unlearned:
        lines.append(f"note: {description.unlearned}")
    if not description.provenance.get("complete", True):
        lines.append("note: this run has not reached its last epoch")
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, export, say what was written."""
    arguments = build_parser().parse_args(argv)
    require_packages()
    check_replaceable(arguments.out, is_bundle, arguments.overwrite)
    check_flags(arguments)
    onnx = parse_precisions(arguments.onnx) if arguments.onnx is not None else ()
    options = ExportOptions(
        onnx,
        MIN_AGREEMENT if arguments.min_agreement is None else arguments.min_agreement,
        arguments.max_difference,
        arguments.torch_export,
        arguments.drop_weights,
        arguments.reject,
        arguments.reject_by or FAMILIARITY,
    )
    from mmcl.deploy.export import export_run
    from mmcl.page.write import is_page, write_page

    if arguments.page is not None:
        check_replaceable(arguments.page, is_page)
    description, verified = export_run(
        arguments.run, arguments.out, arguments.which, arguments.classes, options, arguments.layout, arguments.data,
        arguments.protocol,
    )  # fmt: skip
    print("\n".join(summary(arguments.out, description, verified)))
    if arguments.page is not None:
        facts = write_page(arguments.out, arguments.page)
        print(f"{arguments.page}: a page for any web server" + ("" if facts["film"] else "; skeleton files only"))
    return 0


if __name__ == "__main__":
    run(main)
