"""Read a raw dataset folder into a clip store: skeletons, and small crops of the person from the video."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from mmcl.common.arguments import in_path, out_path
from mmcl.common.errors import UserError, run
from mmcl.common.stack import require_packages
from mmcl.data.readers import READERS
from mmcl.data.readers.named import complaint, dataset_in, options_of, reader_of
from mmcl.data.readers.options import add_flags
from mmcl.places.options import add_place_options, open_place

MOST, DAY = 1_000_000, 86_400  # of frames, pixels, processes, shards; seconds
EPILOG = """\
example:
  mmcl prepare utd-mhad --source ~/UTD-MHAD --out data/utd_mhad
  mmcl check data/utd_mhad

what --source is:
  ntu60, ntu120  folder or zip of the .skeleton files, or a folder that holds the official zips;
                 --video DIR: the *_rgb.avi files
  nw-ucla        folder all_sqe of JSON files, or its archive
  utd-mhad       folder that holds Skeleton/ and, if there, RGB/ or Video/
  sysu           folder that holds 3DvideoNorm/<subject>/video<1..12>/sklWorld.mat
  ctrgcn-npz     an .npz with x_train, y_train, x_test, y_test (or a folder of these as .npy)
  pyskl          a PYSKL / MMAction2 pickle (2D or 3D); it is read without running code
  folder         your own clips: clips.csv (id, label, subject, split, video …) and a .npy, .npz, .csv or .json each;
                 needs --layout NAME or a layout file
  pool           a clip store, whose clips and those of other stores (--also) are to be learned from without labels
  demo           synthetic people; they are generated into --source first, unless they are there already
`mmcl prepare NAME --help` lists the options of its own that a data set has.

The store lands in --out: store.json, skipped.csv (bad clips, each with its reason) and clips/*.arrow. Until it is
complete it lies in OUT.partial; after an interruption the same command goes on where it stopped. Clips that took too
long are tried again with another --timeout (in a finished store: and --overwrite). On several machines:
--on ray or --on slurm with --shards 8, which lie in OUT.shards until they are joined; or by hand, each machine with
--shard 1/8, 2/8 … and its own --out, then `mmcl merge` what they made.
"""


def build_parser(dataset: str | None = None) -> argparse.ArgumentParser:
    """Command line of ``mmcl prepare``, with the flags of one data set's reader."""
    parser = argparse.ArgumentParser(
        prog="mmcl prepare", description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )  # fmt: skip
    parser.add_argument("dataset", choices=sorted(READERS), help="which dataset the folder holds")
    parser.add_argument("--source", type=in_path, metavar="ROOT", help="the dataset's own folder (demo: OUT.raw)")
    parser.add_argument("--out", type=out_path, required=True, metavar="DIR", help="folder of the store to make")
    parser.add_argument("--video", type=in_path, metavar="DIR",
                        help="folder of the video files, where it is not in ROOT; none: read no video")  # fmt: skip
    parser.add_argument("--frames", type=_count, default=5, metavar="M", help="frames to take from each video (5)")
    parser.add_argument("--crop-size", type=_count, default=224, metavar="PX", help="side of a person crop (224)")
    parser.add_argument("--workers", type=_count, metavar="N", help="processes (one a processor)")
    parser.add_argument("--timeout", type=float, default=60.0, metavar="S", help="seconds a clip may take (60)")
    parser.add_argument("--strict", action="store_true", help="stop at the first bad clip instead of skipping it")
    parser.add_argument("--overwrite", action="store_true", help="replace a store made with other options")
    parser.add_argument("--shard", type=_shard, metavar="I/N", help="prepare only the I-th of N equal shares")
    parser.add_argument("--shards", type=_count, metavar="N", help="with --on ray or slurm: as N jobs, then joined")
    add_place_options(parser, "shard")
    if dataset is not None:
        add_flags(parser, dataset, options_of(dataset))
    return parser


def _count(text: str) -> int:
    value = int(text)
    if not 1 <= value <= MOST:
        raise argparse.ArgumentTypeError(f"must be from 1 to {MOST:,}")
    return value


def _shard(text: str) -> tuple[int, int]:
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise argparse.ArgumentTypeError(f"'{text}' is no share: give I/N with I from 1 to N, for instance 2/8")
    return int(index), int(count)


def main(argv: Sequence[str] | None = None) -> int:
    """Prepare a store and print what it came to. Returns the exit status: 130 after Ctrl-C or SIGTERM."""
    words = sys.argv[1:] if argv is None else list(argv)
    dataset = dataset_in(words)
    args, strange = build_parser(dataset).parse_known_args(words)
    if strange:
        raise UserError(complaint(args.dataset, strange[0]))
    if not 0 < args.timeout <= DAY:
        raise UserError(f"--timeout {args.timeout:g}: give the seconds that a clip may take, above 0 and at most {DAY}")
    require_packages()
    _check_place(args)
    video = str(args.video) != "none"
    args.video = args.video if video else None
    finished = (args.out / "store.json").is_file() and not args.overwrite
    if args.on != "local" and not finished:
        return _in_shards(args, words, video)
    from mmcl.data.preparation.build import prepare  # late: worker processes import this file and need none of it

    try:
        summary = prepare(
            reader_of(args),
            args.out,
            video=video,
            frames_per_clip=args.frames,
            crop_size=args.crop_size,
            workers=args.workers,
            timeout=args.timeout,
            strict=args.strict,
            overwrite=args.overwrite,
            shard=args.shard,
        )
    except KeyboardInterrupt:
        print(f"stopped: finished parts are kept in {args.out}.partial, the same command goes on", file=sys.stderr)
        return 130
    if args.on != "local":
        _remove_shards(args.out)
    print(summary)
    return 0


def _check_place(args: argparse.Namespace) -> None:
    if args.on == "local" and (args.shards or args.jobs or args.cpus or args.gpus or args.retries or args.slurm):
        raise UserError("--shards, --jobs, --cpus, --gpus, --retries and --slurm go with --on ray or --on slurm")
    if args.on != "local" and (args.shards is None or args.shard is not None):
        raise UserError(f"--on {args.on}: give --shards N, the number of jobs, and no --shard")


def _remove_shards(out: Path) -> None:
    """Remove what is left of the shards of a finished store, where joining them was interrupted at its very end."""
    from mmcl.data.preparation.shares import shards_of

    shutil.rmtree(shards_of(out), ignore_errors=True)


def _in_shards(args: argparse.Namespace, words: list[str], video: bool) -> int:
    """Prepare as jobs of Ray or Slurm, and join what they made."""
    from mmcl.data.preparation.shares import prepare_in_shards, shards_of
    from mmcl.data.preparation.work import Work
    from mmcl.places.performing import perform

    reader = reader_of(args)
    work = Work.of(reader, video=video, frames_per_clip=args.frames, crop_size=args.crop_size)
    args.cpus = args.cpus or args.workers or 1
    command = ["prepare", *_own_words(words), "--workers", str(args.workers or args.cpus)]
    if args.source is None:  # of the demo, whose default depends on --out
        command.append(f"--source={args.out.with_name(f'{args.out.name}.raw')}")
    try:
        with open_place(args) as place:
            summary = prepare_in_shards(
                work, args.out, command, args.shards, lambda jobs: perform(jobs, place, "prepare", "shard"),
                strict=args.strict, overwrite=args.overwrite,
            )  # fmt: skip
    except KeyboardInterrupt:
        print(f"stopped: finished parts are kept in {shards_of(args.out)}, the same command goes on", file=sys.stderr)
        return 130
    print(summary.told(f"{args.shards} shards joined"))
    return 0


def _own_words(words: list[str]) -> list[str]:
    """The command line without what is of the whole alone: where to work, the store's folder, its replacement."""
    parser = argparse.ArgumentParser(allow_abbrev=False, add_help=False)
    add_place_options(parser, "shard")
    for name in ("--shards", "--out", "--workers"):
        parser.add_argument(name)
    parser.add_argument("--overwrite", action="store_true")
    return parser.parse_known_args(words)[1]


if __name__ == "__main__":
    run(main)
