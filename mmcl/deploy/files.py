"""Skeleton files that `mmcl predict` reads: one clip a file, by the same rules as `mmcl prepare`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mmcl.common.errors import BadClip, UserError
from mmcl.common.files import exists, is_file, is_folder
from mmcl.common.printing import complain
from mmcl.data.clip import RawClip, check_joints
from mmcl.data.readers.clip_file import SUFFIXES, read_clip
from mmcl.data.readers.files import VIDEO_SUFFIXES, read_bytes
from mmcl.data.readers.joints import UNITS, Axes, as_taken, clip_in_plane, clip_in_space
from mmcl.skeletons.believable import NOTE, fill, look
from mmcl.skeletons.believable.mending import mend
from mmcl.skeletons.believable.remarks import Remark
from mmcl.skeletons.layout import Layout

# Formats of data sets say which joints they hold.
LAYOUTS = {".mat": "utd_mhad_20", ".skeleton": "kinect_v2_25"}


@dataclass(frozen=True)
class Reading:
    """What somebody says about files whose format does not say it, and about clips that are hard to believe.

    Attributes:
        unit: of the coordinates: m, cm or mm.
        axes: what the three columns are, see :class:`mmcl.data.readers.joints.Axes`.
        columns: what the numbers of a joint are, xyz or xyzc; None: that is seen from the file.
        picture: width and height of the picture in which joints of two coordinates were found, in pixels.
        strict: refuse what is hard to believe instead of warning.
        planar: whether the model was trained on keypoints of pictures, which have no depth.
        takes: numbers of a joint that the model takes, 3 or 4; the fourth is the confidence.
    """

    unit: str = "m"
    axes: str = "xyz"
    columns: str | None = None
    picture: tuple[int, int] | None = None
    strict: bool = False
    planar: bool = False
    takes: int = 3


AS_IT_IS = Reading()


def implied_layout(path: Path) -> str | None:
    """Name of the layout that a file's format implies, or None where it does not."""
    return LAYOUTS.get(path.suffix.lower())


def read_joints(path: Path, layout: Layout, reading: Reading = AS_IT_IS) -> np.ndarray:
    """Read one clip. What was mended, and what is hard to believe, is said on stderr.

    ``.npy``, ``.npz``, ``.json``, ``.csv``: (T, V, C) or (M, T, V, C), see :mod:`mmcl.data.readers.folder`.
    ``.skeleton``: NTU RGB+D. ``.mat``: UTD-MHAD's ``d_skel`` (20, 3, T).

    Args:
        path: the file.
        layout: which joints it is taken to hold.
        reading: what else is known of it; columns and picture are of the first four alone.

    Returns:
        (M, T, V, C) float32 joints, metres, with as many numbers each as the model takes; missing ones are zero.

    Raises:
        UserError: the file is missing, damaged, of another kind, holds no skeleton of that layout, or is refused.
    """
    if is_folder(path):
        raise UserError(f"{path} is a folder: give its files, {path}/*.npy")
    if not is_file(path):
        raise UserError(f"{path}: {'a pipe or a device, and no file' if exists(path) else 'no such file'}")
    if path.suffix.lower() not in (*SUFFIXES, *LAYOUTS):
        raise UserError(
            f"{path}: skeleton files end in {', '.join((*SUFFIXES, *LAYOUTS))}, videos in {', '.join(VIDEO_SUFFIXES)}"
        )
    try:
        clip = _read(path, layout, reading)
        joints = np.ascontiguousarray(clip.joints, dtype=np.float32)
        check_joints(joints, layout.joint_count, joints.shape[3])
        clip = replace(clip, joints=joints).mended()
    except BadClip as error:
        raise UserError(f"{path}: {error} (read as layout '{layout.name}'; --layout names another)") from error
    sure = () if clip.confidence is None else (as_taken(clip.joints, 3), clip.confidence[..., None])
    joints, filled = fill(as_taken(np.concatenate(sure, axis=-1) if sure else clip.joints, reading.takes))
    say([*clip.remarks, *filled, *doubts(clip.joints, layout, reading)], str(path), reading.strict)
    return joints


def believed(joints: np.ndarray, layout: Layout, reading: Reading) -> tuple[np.ndarray, list[Remark]]:
    """A clip (M, T, V, 3 or 4) mended, and all that is to be said about it."""
    mended = mend(joints[..., :3])
    sure = [mended.follow(joints[..., 3:])] if joints.shape[-1] > 3 else []
    filled, remarks = fill(np.concatenate([mended.joints, *sure], axis=-1) if sure else mended.joints)
    return filled, [*mended.remarks, *remarks, *doubts(mended.joints, layout, reading, mended.seen)]


def doubts(joints: np.ndarray, layout: Layout, reading: Reading, seen: Any = None) -> list[Remark]:
    """What is hard to believe about a clip that was mended; ``seen`` is what mending found out about its joints."""
    return look(joints[..., :2], layout) if reading.planar else look(joints, layout, seen=seen)


def say(remarks: list[Remark], where: str, strict: bool) -> None:
    """Print remarks on stderr.

    Raises:
        UserError: one of them was not mended, and ``strict`` refuses that.
    """
    for remark in remarks:
        if strict and remark.level != NOTE:
            raise UserError(f"{where}: {remark} (refused by --strict)")
        complain("note" if remark.level == NOTE else "warning", f"{where}: {remark}")


def _read(path: Path, layout: Layout, reading: Reading) -> RawClip:
    straight = Axes(reading.axes).straight
    if path.suffix.lower() == ".mat":
        from mmcl.data.readers.utd_mhad import read_mat

        return clip_in_space(straight(read_mat(path)), None, UNITS[reading.unit])
    if path.suffix.lower() == ".skeleton":
        from mmcl.data.readers.ntu_bodies import choose
        from mmcl.data.readers.ntu_skeleton import parse

        total, tracks = parse(read_bytes(path))
        clip = choose(total, [replace(track, joints=straight(track.joints)) for track in tracks])
        return replace(clip, joints=clip_in_space(clip.joints, None, UNITS[reading.unit]).joints)
    held = read_clip(path, layout, reading.columns)
    if held.coordinates.shape[3] == 3:
        clip = clip_in_space(straight(held.coordinates), held.confidence, UNITS[reading.unit])
    elif not reading.planar:
        raise BadClip(f"two coordinates a joint (shape {held.values.shape}), and this model takes three")
    elif reading.picture is None:
        raise BadClip("two coordinates a joint: say how large the picture was in which they are pixels (--picture)")
    else:
        clip = clip_in_plane(held.coordinates, reading.picture, held.confidence)
    return replace(clip, remarks=tuple(held.remarks))
