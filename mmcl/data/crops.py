"""From a clip to m small pictures of the person: which frames, which box, and the crop itself."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

from mmcl.common.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image

MARGIN = 0.25  # of the box's longer side: the head joint is the middle of the head, hands go on beyond the wrist
SMALLEST = 8  # pixels: joints that span less do not tell where a person is
JPEG_QUALITY = 90
MOST_PIXELS = 4096  # side of a stored crop; one of more was not made here


def sample_frames(frames: int, count: int) -> np.ndarray:
    """Middles of ``count`` equal segments of a clip: (count,) int32 frame indices, repeated in very short clips."""
    return ((np.arange(count) + 0.5) * frames / count).astype(np.int32)


def video_frames(indices: np.ndarray, skeleton_frames: int, total: int) -> np.ndarray:
    """Skeleton frame indices -> indices in a video of ``total`` frames that shows the same span of time."""
    if total == skeleton_frames:
        return indices
    return ((indices + 0.5) * total / skeleton_frames).astype(np.int32)


def person_box(points: np.ndarray | None, width: int, height: int) -> np.ndarray:
    """Square box around all bodies of one frame.

    Args:
        points: (M, V, 2) joints in pixels, NaN or infinite where unknown; None where nothing is known.
        width: of the picture.
        height: of the picture.

    Returns:
        (4,) float32 x0, y0, x1, y1: whole numbers, x1 - x0 = y1 - y0. The box may reach beyond the picture (the crop
        is black there). Without usable joints it is the smallest square that holds the whole picture.
    """
    size = np.array([width, height], dtype=np.float64)
    low, high = np.zeros(2), size
    if points is not None:
        known = points.reshape(-1, 2)[np.isfinite(points.reshape(-1, 2)).all(axis=1)].astype(np.float64)
        # Joints outside the picture count up to its border, so that one wild joint cannot blow up the box.
        known = np.clip(known, 0, size)
        if len(known) and (known.max(axis=0) - known.min(axis=0)).max() >= SMALLEST:
            low, high = known.min(axis=0), known.max(axis=0)
            side = (high - low).max() * (1 + MARGIN)
            return _square((low + high) / 2, min(side, size.max()), size)
    return _square((low + high) / 2, size.max(), size)


def _square(centre: np.ndarray, side: float, size: np.ndarray) -> np.ndarray:
    """Square of that side, moved into the picture along each axis on which it fits."""
    whole = int(np.ceil(side))
    start = np.round(centre - whole / 2)
    room = size - whole
    start = np.where(room >= 0, np.clip(start, 0, np.maximum(room, 0)), np.round(room / 2))
    return np.array([*start, *(start + whole)], dtype=np.float32)


def crop(frame: np.ndarray, box: np.ndarray, size: int) -> bytes:
    """Cut a box out of a (H, W, 3) uint8 frame and return it as a ``size`` x ``size`` JPEG."""
    from PIL import Image

    left, top, right, bottom = (int(edge) for edge in box)
    cut = Image.fromarray(frame).crop((left, top, right, bottom))  # black where the box leaves the picture
    stream = io.BytesIO()
    cut.resize((size, size), Image.Resampling.BICUBIC).save(stream, "JPEG", quality=JPEG_QUALITY)
    return stream.getvalue()


class DamagedPicture(UserError, OSError):
    """A stored crop cannot be shown; an OSError, too, as what Pillow raises: those who only draw it do without."""


def decode(jpeg: bytes) -> Image:
    """A stored crop as an RGB picture.

    Raises:
        DamagedPicture: it is damaged, or no picture of a person.
    """
    from PIL import Image

    try:
        picture = Image.open(io.BytesIO(jpeg), formats=("JPEG",))
        if max(picture.size) > MOST_PIXELS:
            raise ValueError(f"{picture.size[0]} x {picture.size[1]} pixels")
        return picture.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DamagedPicture(f"a stored picture is damaged ({error}): prepare the store again") from error


def to_crop(pixels: np.ndarray, box: np.ndarray, size: int) -> np.ndarray:
    """Points (..., 2) in video pixels -> points in pixels of the crop of that box."""
    return (pixels - box[:2]) * (size / (box[2] - box[0]))
