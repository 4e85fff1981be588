"""Flags by which people say what their skeleton files do not say themselves."""

from __future__ import annotations

import argparse
from typing import get_args

from mmcl.data.readers.clip_file import Columns
from mmcl.data.readers.joints import Axes
from mmcl.deploy.files import Reading


def add_reading_flags(parser: argparse.ArgumentParser) -> None:
    """Add ``--unit``, ``--axes``, ``--columns``, ``--picture`` and ``--strict``."""
    parser.add_argument(
        "--unit", choices=("m", "cm", "mm"), default="m", help="of the coordinates in files (default: m)"
    )
    parser.add_argument(
        "--axes", default="xyz", metavar="XYZ",
        help="what their three columns are, with - where one grows the other way: --axes=-x-yz where y points down and "
        "x to the right, as Azure Kinect, OpenCV and MediaPipe have it (default: xyz, y up)",
    )  # fmt: skip
    parser.add_argument(
        "--columns", choices=get_args(Columns), help="the numbers of a joint in these files; c is its confidence"
    )
    parser.add_argument(
        "--picture", type=_picture, metavar="WxH", help="size of the picture, for joints of two coordinates in pixels"
    )
    parser.add_argument(
        "--strict", action="store_true", help="refuse clips that are hard to believe, instead of warning of them"
    )


def reading_of(arguments: argparse.Namespace, planar: bool = False, takes: int = 3) -> Reading:
    """How files are read.

    Args:
        arguments: with these flags.
        planar: see :class:`mmcl.deploy.files.Reading`.
        takes: the same.

    Raises:
        UserError: the axes are none; that is said once, and not of each file.
    """
    Axes(arguments.axes)
    return Reading(
        arguments.unit, arguments.axes, arguments.columns, arguments.picture, arguments.strict, planar, takes
    )


def _picture(text: str) -> tuple[int, int]:
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"'{text:.40}' is no size: give width and height in pixels, 1920x1080")
    return int(width), int(height)
