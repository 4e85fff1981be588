"""A contact sheet: a row of small pictures a recording, with the skeletons drawn over them."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mmcl.common.files import atomic_file
from mmcl.data.inspection.drawing import PAPER, draw_skeleton, write
from mmcl.pose.recording import Recording

if TYPE_CHECKING:
    from PIL.Image import Image

ACROSS, GAP, LABEL, ROWS = 6, 4, 22, 40  # pictures a row, pixels, pixels, rows of a sheet
SURE = 0.3  # confidence of a joint that is drawn
WIDEST, HIGHEST, MARGIN = 320, 240, 0.15  # pixels of one picture; room around people, in their own extents


def strip(recording: Recording, tiles: Mapping[int, bytes], title: str, caption: str) -> Image:
    """One row: some frames of a recording with its people, a title and a caption above.

    Args:
        recording: the people.
        tiles: frame of the film -> JPEG.
        title: name of the recording.
        caption: what is said of it.
    """
    from PIL import Image, ImageDraw

    frames = sorted(tiles)
    chosen = [frames[place] for place in np.linspace(0, len(frames) - 1, min(ACROSS, len(frames))).round().astype(int)]
    pictures = [_drawn(recording, frame, tiles[frame]) for frame in chosen]
    width = max((picture.width for picture in pictures), default=WIDEST)
    height = max((picture.height for picture in pictures), default=1)
    row = Image.new("RGB", (ACROSS * (width + GAP) + GAP, height + LABEL + GAP), PAPER)
    draw = ImageDraw.Draw(row)
    write(draw, (GAP, 3), f"{title}   {caption}", 13, "black", row.width - 2 * GAP)
    for column, picture in enumerate(pictures):
        row.paste(picture, (GAP + column * (width + GAP), LABEL))
    return row


def _drawn(recording: Recording, frame: int, jpeg: bytes) -> Image:
    """The part of one frame that people are ever in, with their skeletons."""
    from PIL import Image

    with Image.open(io.BytesIO(jpeg), formats=("JPEG",)) as opened:
        picture = opened.convert("RGB")
    scale = picture.width / recording.picture[0]
    left, top, right, bottom = (round(edge * scale) for edge in around(recording))
    picture = picture.crop((left, top, right, bottom))
    place = int(np.abs(recording.frames - frame).argmin())
    points = visible(recording, place) * scale - (left, top)
    grown = min(WIDEST / picture.width, HIGHEST / picture.height)
    picture = picture.resize((max(1, round(picture.width * grown)), max(1, round(picture.height * grown))))
    return draw_skeleton(picture, points * grown, recording.layout)


def around(recording: Recording) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the part of the picture that people are ever in, with a margin."""
    width, height = recording.picture
    points = recording.pixels[(recording.confidence >= SURE) & np.isfinite(recording.pixels).all(axis=-1)]
    if not len(points):
        return 0, 0, width, height
    low, high = np.quantile(points, 0.01, axis=0), np.quantile(points, 0.99, axis=0)
    margin = MARGIN * float((high - low).max()) + 8
    left, top = np.clip(low - margin, 0, (width - 16, height - 16))
    right, bottom = np.minimum(np.maximum(high + margin, (left + 16, top + 16)), (width, height))
    return int(left), int(top), int(right), int(bottom)


def visible(recording: Recording, place: int) -> np.ndarray:
    """(M, V, 2) joints of one frame in the film's own pixels, those that are not sure NaN."""
    sure = recording.confidence[:, place] >= SURE
    return np.where(sure[..., None], recording.pixels[:, place], np.nan)


def write_sheet(strips: list[Path], out: Path) -> None:
    """Put rows below each other: the first :data:`ROWS` of them."""
    from PIL import Image

    rows = []
    for path in strips[:ROWS]:
        with Image.open(path, formats=("JPEG",)) as opened:
            rows.append(opened.convert("RGB"))
    if not rows:
        return
    sheet = Image.new("RGB", (max(row.width for row in rows), sum(row.height + GAP for row in rows)), PAPER)
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height + GAP
    with atomic_file(out) as temporary:
        sheet.save(temporary, "JPEG", quality=88)
