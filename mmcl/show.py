"""Show one clip of a store: its skeleton moving, as an animation or on a page on which it can be turned."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmcl.common.arguments import AtLeastOne, out_path
from mmcl.common.errors import UserError, run
from mmcl.common.stack import require_packages

if TYPE_CHECKING:
    import numpy as np

    from mmcl.data.store import ClipStore
    from mmcl.deploy.stream import Ranking

EPILOG = """\
examples:
  mmcl show a12_s3_t2 --data data/utd_mhad
  mmcl show 0 --data data/ntu60 --out first.mp4 --speed 0.5
  mmcl show 0 --data data/ntu60 --out first.html --bundle checkpoints/ntu

CLIP is a clip's id, or its position in the store, counted from 0; `mmcl check` names clips worth a look. Left limbs
are blue, right ones red, the torso grey; further bodies have tints of their own.

An animation (.gif, .mp4) shows the skeleton from the front and from the side. The line is the floor: the height of the
lowest joint. Beside the skeleton stand the stored crops of its video, each while its share of the clip goes by.

A page (.html) is one file of some ten to some hundred kB that any browser opens, without a network: drag to turn the
skeleton, zoom, play, step, change the speed. It holds the clip's joints, rounded to millimetres, and nothing of its
video unless --frames is given: most licences of data sets forbid to pass recordings on, and joints are recordings, too.
"""
PAGE_ONLY = ("bundle", "frames", "span", "hop")


def build_parser() -> argparse.ArgumentParser:
    """Command line of ``mmcl show``."""
    parser = argparse.ArgumentParser(
        prog="mmcl show", description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clip", metavar="CLIP", help="id or position of the clip")
    parser.add_argument("--data", required=True, metavar="DIR", help="a store made by `mmcl prepare`")
    parser.add_argument(
        "--out", type=out_path, metavar="FILE", help=".gif, .mp4 or .html to write (CLIP.gif, CLIP.html)"
    )
    parser.add_argument("--speed", type=_factor, default=1.0, metavar="X", help="0.5: half as fast as it was (1)")
    page = parser.add_argument_group("of pages")
    page.add_argument("--html", action="store_true", help="write CLIP.html, a page, where --out does not say a name")
    page.add_argument(
        "--frames", action="store_true", help="take the stored crops of the video along, as small JPEGs: whoever gets "
        "the page gets these pictures of people; see what the data set's licence says about that",
    )  # fmt: skip
    page.add_argument(
        "--bundle", metavar="X", help="draw what a bundle (or run folder, or checkpoint) says of windows of the clip"
    )
    page.add_argument(
        "--span", type=int, action=AtLeastOne, metavar="N", help="frames of such a window (the model's own window, or "
        "half the clip where that is less)",
    )  # fmt: skip
    page.add_argument(
        "--hop", type=int, action=AtLeastOne, metavar="N", help="frames from one to the next (an eighth of the span)"
    )
    return parser


def _factor(text: str) -> float:
    value = float(text)
    if not 0.01 <= value <= 100:
        raise argparse.ArgumentTypeError("must be between 0.01 and 100")
    return value


def main(argv: Sequence[str] | None = None) -> int:
    """Write the animation or the page, and say where it is."""
    args = build_parser().parse_args(argv)
    suffix = ".html" if args.html else ".gif"
    if args.out is not None:
        suffix = args.out.suffix.lower()
    if args.html and suffix != ".html":
        raise UserError(f"--html writes a page, and {args.out} does not end in .html")
    if suffix != ".html" and (asked := [name for name in PAGE_ONLY if getattr(args, name)]):
        raise UserError(f"--{asked[0]} belongs to pages: add --html, or name a file that ends in .html")
    if args.bundle is None and (args.span or args.hop):
        raise UserError("--span and --hop are of the windows that a model looks at: name it with --bundle")
    require_packages()
    from mmcl.data.inspection.animation import write_animation
    from mmcl.data.readers.naming import file_stem
    from mmcl.data.selection import find_clip
    from mmcl.data.store import open_store

    store = open_store(args.data)
    index = find_clip(store, args.clip)
    name = store.ids[index]
    path = args.out or Path(f"{file_stem(name)}{suffix}")
    if suffix == ".html":
        write_page(store, index, path, args)
    else:
        write_animation(store, index, path, args.speed)
    frames, action = int(store.frames[index]), store.class_names[store.labels[index]]
    size = f" ({path.stat().st_size / 1000:.0f} kB)" if suffix == ".html" else ""
    print(f"{name} ({action}, {frames} frame{'s' if frames != 1 else ''}, {frames / store.fps:.1f} s): {path}{size}")
    return 0


def write_page(store: ClipStore, index: int, path: Path, args: argparse.Namespace) -> None:
    """Write the page of a clip.

    Raises:
        UserError: no such model, one that cannot take these joints, or a damaged picture.
    """
    from mmcl.page.clips import shown_clip
    from mmcl.page.player import write_player

    clip = shown_clip(store, index, pictures=args.frames)
    if args.bundle is not None and (scores := model_scores(store, index, args.bundle, args.span, args.hop)) is not None:
        clip["scores"] = scores
    write_player(path, [clip], store.layout, store.ids[index], args.speed)


def model_scores(store: ClipStore, index: int, bundle: str, span: int | None, hop: int | None) -> dict[str, Any] | None:
    """What a model says of windows of a clip, as :func:`mmcl.page.clips.scores_over_time` gives it."""
    import torch

    from mmcl.deploy.predictor import ranking_of
    from mmcl.deploy.watch import rejects_by
    from mmcl.models.folder import open_model
    from mmcl.models.rejection import PROBABILITY, read_rejection
    from mmcl.page.clips import scores_over_time

    model = open_model(bundle, layout=store.layout)
    rule = read_rejection(model.description.rejection, bundle)
    span = span or min(model.description.window, max(2, -(-int(store.frames[index]) // 2)))

    def classify(joints: np.ndarray) -> Ranking:
        scores, familiarity = model.judge(torch.from_numpy(joints)[None])
        return ranking_of(scores[0], model.class_names, None if familiarity is None else float(familiarity[0]))

    return scores_over_time(
        store.numbers(index),
        classify, span, hop or max(1, span // 8), rejects_by(rule),
        rule.threshold if rule is not None and rule.score == PROBABILITY else None,
    )  # fmt: skip


if __name__ == "__main__":
    run(main)
