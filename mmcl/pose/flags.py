"""Options that say how people are found in a video: of ``mmcl pose``, and of ``mmcl predict``. Light to import."""

from __future__ import annotations

import argparse
from dataclasses import fields
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from mmcl.common.arguments import AtLeastOne
from mmcl.common.errors import UserError
from mmcl.common.options import fill
from mmcl.pose import ESTIMATORS

if TYPE_CHECKING:
    from mmcl.pose.base import Estimator
    from mmcl.pose.recording import Refinement

LONGEST_TIMEOUT = 86_400  # seconds, a day
PACKAGES = {"av": "av", "PIL": "pillow", "tqdm": "tqdm"}


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
    from mmcl.common.documents import parse_yaml
    from mmcl.pose.base import build_estimator

    if not 0 < arguments.timeout <= LONGEST_TIMEOUT:
        raise UserError(f"--timeout is {arguments.timeout:g}: it must be above 0, and at most {LONGEST_TIMEOUT} s")
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
