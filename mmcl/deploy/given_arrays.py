"""Arrays that people hand to a model: whether they are clips, or frames, in the order that is asked for."""

from __future__ import annotations

from typing import Any

import numpy as np

from mmcl.common.errors import UserError
from mmcl.data.readers.array_order import MOST_PERSONS, arranged
from mmcl.data.readers.joints import as_taken, check_confidence, check_distance, zero_where_missing
from mmcl.deploy.files import Reading
from mmcl.skeletons.layout import Layout

ORDER = "(persons, frames, joints, coordinates)"


def one_clip(given: Any, layout: Layout, reading: Reading) -> np.ndarray:
    """A clip (M, T, V, C) that somebody gave, with as many numbers a joint as the model takes; missing joints zero.

    Raises:
        UserError: it is no array of numbers, or not one clip of the layout's joints in that order.
        BadClip: infinite or far too large coordinates, or confidences that are none.
    """
    clip = numbers_of(given, "a clip")
    if clip.ndim != 4 or clip.shape[2] != layout.joint_count:
        raise UserError(
            f"one clip is (persons, frames, {layout.joint_count}, 2 to 4) of layout '{layout.name}', not {clip.shape}"
        )
    check_shape(clip.shape, reading.planar, int((np.nan_to_num(clip) != 0).any(axis=(1, 2, 3)).sum()))
    check_order(clip, layout, reading.planar)
    return sound(clip, reading.takes)


def one_frame(given: Any, joint_count: int, columns: int) -> np.ndarray:
    """A frame (M, V, C) that somebody gave, with ``columns`` numbers a joint; missing joints zero.

    Raises:
        UserError: it is no array of numbers, or has another shape.
        BadClip: infinite or far too large coordinates, or confidences that are none.
    """
    frame = numbers_of(given, "a frame")
    if frame.ndim != 3 or frame.shape[1] != joint_count or not 2 <= frame.shape[2] <= 4:
        raise UserError(f"a frame must be (persons, {joint_count} joints, {columns}), not {frame.shape}")
    check_confidence(frame[..., 3:])
    check_distance(frame[..., :3], np.isnan(frame).any(axis=-1))
    return as_taken(zero_where_missing(frame), columns)


def numbers_of(given: Any, what: str) -> np.ndarray:
    """What somebody gave as an array of numbers, NaN where it is masked.

    Raises:
        UserError: it is none.
    """
    if hasattr(given, "detach"):  # a tensor, wherever it is and of whatever precision
        given = given.detach().cpu()
        given = given.float() if given.is_floating_point() else given
    try:
        if isinstance(given, np.ma.MaskedArray) and given.dtype.kind in "fiu":
            given = np.ma.filled(given.astype(np.float64), np.nan)
        array = np.asarray(given)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:  # lists of uneven lengths, tensors of a GPU
        raise UserError(f"{what} must be a NumPy array of numbers, not {type(given).__name__} "
                        f"({str(error).splitlines()[0]:.80})") from error  # fmt: skip
    if array.dtype.kind not in "fiu":
        held = type(given).__name__ if array.dtype.hasobject else array.dtype
        raise UserError(f"{what} must be a NumPy array of numbers, not {held}: missing joints are zero or NaN")
    return array


def check_shape(shape: tuple[int, ...], planar: bool, persons: int) -> None:
    """Whether a shape (M, T, V, C) can be that of a clip.

    Args:
        shape: of the array.
        planar: whether the model takes joints of two coordinates.
        persons: slots in which somebody is; how many are empty says nothing of the order of axes.

    Raises:
        UserError: more persons than can be in it, or numbers a joint that the model does not take.
    """
    (_, frames, _, count), shape = shape, tuple(shape)
    if not 2 <= count <= 4:
        raise UserError(f"a joint has 2, 3 or 4 numbers (x, y, z and its confidence), not {count}: {shape}")
    if persons > MOST_PERSONS:
        raise UserError(f"{persons} persons in {frames} frames: a clip is {ORDER}, and in this one, {shape}, frames "
                        "and persons seem to be exchanged")  # fmt: skip
    if count == 2 and not planar:
        hint = ", or ST-GCN's order: transpose it to " + ORDER if shape[0] == 3 else ""
        raise UserError(f"two coordinates a joint {shape}, and this model takes three{hint}")


def check_order(clip: np.ndarray, layout: Layout, planar: bool) -> None:
    """Whether a clip (M, T, V, C) of three people, or of three coordinates in ST-GCN's order, shows people as it is.

    Raises:
        UserError: it shows them in another order.
    """
    persons, frames, _, count = clip.shape
    if persons == 3 and frames >= 3 and count < 4 and bool(clip.any()):
        _, remarks = arranged(clip, layout, (2, 3, 4) if planar else (3, 4))
        if remarks:
            raise UserError(f"{str(remarks[0]).partition(':')[0]}: transpose it to {ORDER}")


def sound(clip: np.ndarray, takes: int) -> np.ndarray:
    """A clip (M, T, V, C) as a model takes it, missing joints zero.

    Raises:
        BadClip: infinite or far too large coordinates, or confidences that are none.
    """
    check_confidence(clip[..., 3:])
    check_distance(clip[..., :3], np.isnan(clip).any(axis=-1))
    return as_taken(zero_where_missing(clip), takes)
