"""Read a raw dataset folder into a clip store: skeletons, and small crops of the person from the video."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # run as a file: keep mmcl/ itself off sys.path, so that no module of ours shadows a library
    sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != Path(__file__).resolve().parent]

import argparse
from collections.abc import Sequence

from mmcl.data.readers import READERS
from mmcl.errors import UserError, run
from mmcl.stack import require_packages

DEMO = ("subjects", "clips_per_subject", "seed", "layout", "first_subject")
EPILOG = """\
example:
  mmcl prepare utd-mhad --source ~/UTD-MHAD --out data/utd_mhad
  mmcl check data/utd_mhad

The store lands in --out: store.json, skipped.csv (bad clips, each with its reason) and clips/*.arrow. Until it is
complete it lies in OUT.partial; after an interruption the same command goes on where it stopped.

utd-mhad: --source holds Skeleton/aX_sY_tZ_skeleton.mat and, if there, RGB/aX_sY_tZ_color.avi or Video/*.mp4.
demo: synthetic people; they are generated into --source first, unless they are there already.
"""


def build_parser() -> argparse.ArgumentParser:
    """Command line of ``mmcl prepare``."""
    parser = argparse.ArgumentParser(
        prog="mmcl prepare", description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", choices=sorted(READERS), help="which dataset the folder holds")
    parser.add_argument("--source", type=Path, metavar="ROOT", help="the dataset's own folder (demo: OUT.raw)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the store to make")
    parser.add_argument("--video", type=Path, metavar="DIR", help="folder of the video files, where it is not in ROOT")
    parser.add_argument("--frames", type=_count, default=5, metavar="M", help="frames to take from each video (5)")
    parser.add_argument("--crop-size", type=_count, default=224, metavar="PX", help="side of a person crop (224)")
    parser.add_argument("--workers", type=_count, metavar="N", help="processes (one a processor)")
    parser.add_argument("--timeout", type=float, default=60.0, metavar="S", help="seconds a clip may take (60)")
    parser.add_argument("--strict", action="store_true", help="stop at the first bad clip instead of skipping it")
    parser.add_argument("--overwrite", action="store_true", help="replace a store made with other options")
    demo = parser.add_argument_group("demo only", "what to generate", argument_default=argparse.SUPPRESS)
    demo.add_argument("--subjects", type=_count, metavar="N", help="people (8)")
    demo.add_argument("--clips-per-subject", type=_count, metavar="N", help="takes of each class by each of them (2)")
    demo.add_argument("--seed", type=int, metavar="N", help="of everything random (0)")
    demo.add_argument("--layout", metavar="NAME", help="sensor: kinect_v2_25 (default) or kinect_v1_20")
    demo.add_argument("--first-subject", type=_count, metavar="N", help="number of the first person (1)")
    return parser


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def main(argv: Sequence[str] | None = None) -> int:
    """Prepare a store and print what it came to. Returns the exit status: 130 after Ctrl-C or SIGTERM."""
    args = build_parser().parse_args(argv)
    if args.timeout <= 0:
        raise UserError(f"--timeout {args.timeout:g}: a clip needs some time, give seconds above 0")
    require_packages()
    from mmcl.data.preparation.build import prepare  # late: worker processes import this file and need none of it

    try:
        summary = prepare(
            READERS[args.dataset](_source(args), args.video),
            args.out,
            frames_per_clip=args.frames,
            crop_size=args.crop_size,
            workers=args.workers,
            timeout=args.timeout,
            strict=args.strict,
            overwrite=args.overwrite,
        )
    except KeyboardInterrupt:
        print(f"stopped: finished parts are kept in {args.out}.partial, the same command goes on", file=sys.stderr)
        return 130
    print(summary)
    return 0


def _source(args: argparse.Namespace) -> Path:
    """Where the recordings lie; generates those of the demo."""
    given = {name: getattr(args, name) for name in DEMO if hasattr(args, name)}
    if args.dataset != "demo":
        if given:
            raise UserError(f"--{next(iter(given)).replace('_', '-')} is for the demo, not for {args.dataset}")
        if args.source is None:
            raise UserError(f"{args.dataset}: --source ROOT is missing, the dataset's own folder")
        return args.source
    from mmcl.data.demo import ensure_generated
    from mmcl.data.preparation.pool import default_workers

    source = args.source or args.out.with_name(args.out.name + ".raw")
    if given or not (source / "demo.json").is_file():
        ensure_generated(source, workers=args.workers or default_workers(), **given)
    return source


if __name__ == "__main__":
    run(main)
