"""Skeleton files that `mmcl predict` reads: one clip a file, by the same rules as `mmcl prepare`."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from mmcl.common.errors import BadClip, UserError
from mmcl.data.clip import RawClip, check_joints
from mmcl.data.readers.clip_file import SUFFIXES, read_clip
from mmcl.data.readers.files import read_bytes
from mmcl.data.readers.joints import UNITS, clip_in_space
from mmcl.skeletons.layout import Layout

SMALLEST, LARGEST = 0.2, 5.0  # metres: from a child that sits to whatever trackers make of tall people
# Formats of data sets say which joints they hold.
LAYOUTS = {".mat": "utd_mhad_20", ".skeleton": "kinect_v2_25"}


def implied_layout(path: Path) -> str | None:
    """Name of the layout that a file's format implies, or None where it does not."""
    return LAYOUTS.get(path.suffix.lower())


def read_joints(path: Path, layout: Layout, unit: str = "m") -> np.ndarray:
    """Read one clip.

    ``.npy``, ``.npz``, ``.json``, ``.csv``: (T, V, 3) or (M, T, V, 3), see :mod:`mmcl.data.readers.folder`.
    ``.skeleton``: NTU RGB+D. ``.mat``: UTD-MHAD's ``d_skel`` (20, 3, T).

    Args:
        path: the file.
        layout: which joints it is taken to hold.
        unit: of the coordinates of the first four: m, cm or mm.

    Returns:
        (M, T, V, 3) float32 joints, metres; missing ones are zero.

    Raises:
        UserError: the file is missing, damaged, of another kind, or holds no skeleton of that layout.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    if path.suffix.lower() not in (*SUFFIXES, *LAYOUTS):
        raise UserError(f"{path}: skeleton files end in {', '.join((*SUFFIXES, *LAYOUTS))}")
    try:
        joints = np.ascontiguousarray(_read(path, layout.joint_count, unit).joints, dtype=np.float32)
        check_joints(joints, layout.joint_count)
    except BadClip as error:
        raise UserError(f"{path}: {error} (read as layout '{layout.name}'; --layout names another)") from error
    if warning := odd_size(joints):
        print(f"warning: {path}: {warning}", file=sys.stderr)
    return joints


def odd_size(joints: np.ndarray) -> str | None:
    """Say so if people cannot be as large as joints (M, T, V, 3) have them; None where they can, or nobody is there."""
    there = (joints != 0).any(axis=-1, keepdims=True) & np.isfinite(joints)
    low = np.where(there, joints, np.inf).min(axis=2)
    high = np.where(there, joints, -np.inf).max(axis=2)
    sizes = (high - low).max(axis=-1)  # of every body in every frame
    sizes = sizes[np.isfinite(sizes) & (sizes > 0)]
    if not len(sizes) or SMALLEST <= (size := float(np.median(sizes))) <= LARGEST:
        return None
    return f"bodies of {size:.3g} metres: are the coordinates in another unit (--unit)?"


def _read(path: Path, joint_count: int, unit: str) -> RawClip:
    if path.suffix.lower() == ".mat":
        from mmcl.data.readers.utd_mhad import read_mat

        return RawClip(joints=read_mat(path))
    if path.suffix.lower() == ".skeleton":
        from mmcl.data.readers.ntu_bodies import choose
        from mmcl.data.readers.ntu_skeleton import parse

        return choose(*parse(read_bytes(path)))
    coordinates = read_clip(path, joint_count)
    if coordinates.shape[3] != 3:
        raise BadClip("joints with two coordinates: a model needs them as `mmcl prepare` makes them, x, y up and z = 0")
    return clip_in_space(coordinates, metres=UNITS[unit])
