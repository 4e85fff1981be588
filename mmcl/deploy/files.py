"""Skeleton files that `mmcl predict` reads: one clip a file, straight from where people have them."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from mmcl.errors import BadClip, UserError

SUFFIXES = (".mat", ".npy", ".npz")


def read_joints(path: Path) -> tuple[np.ndarray, str | None]:
    """Read one clip.

    ``.npy``: (T, V, 3) or (M, T, V, 3). ``.npz``: the same under ``joints`` or as its only array. ``.mat``: UTD-MHAD's
    ``d_skel`` (20, 3, T).

    Returns:
        (M, T, V, 3) float32 joints, and the layout's name where the file format implies one.

    Raises:
        UserError: the file is missing, damaged, of another kind, or holds no skeleton.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path}: skeleton files end in {', '.join(SUFFIXES)}")
    layout = None
    try:
        if path.suffix == ".mat":
            from mmcl.data.readers.utd_mhad import read_mat

            joints, layout = read_mat(path), "utd_mhad_20"
        else:
            joints = _read_numpy(path)
    except BadClip as error:
        raise UserError(f"{path}: {error}") from error
    if joints.ndim == 3:
        joints = joints[None]
    if joints.ndim != 4 or joints.shape[-1] != 3 or 0 in joints.shape:
        raise UserError(f"{path}: expected (frames, joints, 3) or (persons, frames, joints, 3), found {joints.shape}")
    if not np.isfinite(joints).all():
        frames = int((~np.isfinite(joints)).any(axis=(0, 2, 3)).sum())
        raise UserError(f"{path}: NaN or infinite coordinates in {frames} of {joints.shape[1]} frames")
    return np.ascontiguousarray(joints, dtype=np.float32), layout


def _read_numpy(path: Path) -> np.ndarray:
    try:
        content = np.load(path, allow_pickle=False)
        if path.suffix == ".npz":
            names = list(content.files)
            if "joints" not in names and len(names) != 1:
                raise BadClip(f"an .npz file needs an array 'joints'; this one has {names}")
            content = content["joints" if "joints" in names else names[0]]
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise BadClip(f"not a readable {path.suffix} file ({error})") from error
    if content.dtype.kind not in "fiu":
        raise BadClip(f"the array holds {content.dtype}, not numbers")
    return content
