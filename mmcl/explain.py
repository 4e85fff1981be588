"""``mmcl explain MODEL CLIP… --out DIR``: which joints spoke for an answer, as pictures and numbers."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from mmcl.attributions import ATTRIBUTIONS
from mmcl.common.arguments import AtLeastOne, NotNegative, add_which, in_path, out_path
from mmcl.common.errors import run
from mmcl.common.printing import complain
from mmcl.deploy.reading_flags import add_reading_flags

ABOUT = """Share the score of an answer among the joints of a clip: which of them spoke for it, which
against, and when. Writes a folder: report.md to read; clips/ and classes/ with a strip of
skeletons whose joints are coloured and sized by what they say, a map of joints over time, bars
of body parts, and animations; explanations.json and values.npz with the numbers.

CLIP is a store made by `mmcl prepare` (of which --clips or --per-class choose), or any number
of skeleton files as `mmcl predict` reads them. Shares are relative to "nothing in particular":
clips of the training side where the store is known, else each clip's own pose held still."""
EXAMPLES = """examples:
  mmcl explain runs/utd data/utd_mhad --out why
  mmcl explain runs/utd data/utd_mhad --clips a12_s2_t1,a5_s4_t2 --out why --method shapley
  mmcl explain checkpoints/utd mine.npy --out why --target wave
"""


def build_parser() -> argparse.ArgumentParser:
    """Command line of ``mmcl explain``."""
    parser = argparse.ArgumentParser(
        prog="mmcl explain", description=ABOUT, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=in_path, metavar="MODEL", help="run folder, checkpoint or bundle with weights")
    parser.add_argument("clips", nargs="+", metavar="CLIP", help="a clip store, or skeleton files")
    parser.add_argument("--out", required=True, type=out_path, metavar="DIR", help="folder to write")
    parser.add_argument(
        "--method", default="deep_lift", metavar="NAME",
        help=f"how shares are computed: {', '.join(ATTRIBUTIONS)} (default: deep_lift, for every joint and frame; "
        "shapley is the reference, of joints alone)",
    )  # fmt: skip
    parser.add_argument(
        "--option", action="append", default=[], metavar="KEY=VALUE", help="option of the method, such as "
        "players=parts, players=segments or permutations=400 of shapley; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--target", default="answer", metavar="C",
        help="whose score: answer (the default), label (the true class, of a store), or the name of a class",
    )  # fmt: skip
    parser.add_argument("--clips", dest="chosen", metavar="ID,ID", help="clips of the store, by id or position")
    parser.add_argument(
        "--per-class", type=int, action=AtLeastOne, metavar="N",
        help="otherwise: so many clips of each class, of the test side where the protocol is known (default: 1)",
    )  # fmt: skip
    parser.add_argument("--protocol", metavar="P", help="of the store (default: the run's own)")
    parser.add_argument(
        "--background", metavar="B", help="what stands for nothing: a clip store, or still, each clip's own mean pose "
        "(default: the store that is explained, or that the run was trained on; else still)",
    )  # fmt: skip
    parser.add_argument(
        "--background-clips", type=int, action=AtLeastOne, metavar="N", help="clips of it (default: 20)"
    )
    parser.add_argument(
        "--gifs", type=int, action=NotNegative, default=4, metavar="N",
        help="so many clips are animated, too (default: 4)",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of the choice of clips, and of what methods draw (0)")
    parser.add_argument("--layout", metavar="NAME", help="joint layout of files, where it is not the model's own")
    add_reading_flags(parser)
    add_which(parser)
    parser.add_argument(
        "--batch-size", type=int, action=AtLeastOne, default=64, metavar="N", help="clips at once (default: 64)"
    )
    parser.add_argument("--device", metavar="D", help="torch device (default: a GPU where there is one)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, explain, print a line for each clip."""
    arguments = build_parser().parse_intermixed_args(argv)
    from mmcl.common.stack import require_packages

    require_packages()
    from mmcl.attributions.reporting import write_explanations
    from mmcl.attributions.shares import share_scores
    from mmcl.attributions.sources import find_source, open_model_for
    from mmcl.common.files import check_replaceable

    check_replaceable(arguments.out, "explanations.json")
    saved, model = open_model_for(arguments.model, arguments.which, arguments.clips, arguments.layout, arguments.device)
    if saved.description.unlearned:
        complain("note", saved.description.unlearned)
    source = find_source(arguments, saved, model)
    explained = share_scores(arguments, model, source)
    write_explanations(arguments.out, model, source, arguments.method, explained, arguments.gifs)
    for clip in explained:
        spoken = ", ".join(clip.names[:3]) or "none"
        print(f"{clip.name}: {clip.target_name} {clip.probability:.2f}; spoke for it: {spoken}")
    print(f"pictures and report in {arguments.out / 'report.md'}")
    return 0


if __name__ == "__main__":
    run(main)
