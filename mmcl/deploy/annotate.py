"""A video with the skeletons of its people drawn over them, and what each does written beside."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mmcl.common.errors import BadClip
from mmcl.common.files import atomic_file
from mmcl.data.inspection.drawing import TINTS, draw_skeleton, write
from mmcl.data.opening import local_name
from mmcl.deploy.segments import TOGETHER, Segment
from mmcl.pose.film import USUAL_RATE, Film
from mmcl.pose.recording import Recording
from mmcl.pose.sheet import visible
from mmcl.skeletons.layout import Layout

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

WIDEST, LETTERS, MARGIN = 960, 18, 16  # pixels of the drawn video's longer side, of its letters, and around people
UNIT, UNITS = Fraction(1, 90_000), {"matroska": Fraction(1, 1000)}  # seconds in which a film counts when a frame comes
HEAD = 0.09  # of a person's height that may be above the highest joint: many layouts end at the eyes


def annotate(
    source: Path, recording: Recording, segments: Sequence[Segment], out: Path, progress: bool = True
) -> None:  # fmt: skip
    """Write the drawn video, which is there when it is whole.

    Args:
        source: the video that was looked at.
        recording: the people in it.
        segments: what they do, and when.
        out: file to write, of a suffix in :data:`~mmcl.deploy.film_flags.DRAWN`.
        progress: show a bar.

    Raises:
        BadClip: the source cannot be read any more, or is too small.
    """
    import av
    from PIL import Image
    from tqdm import tqdm

    film = Film(source, WIDEST)
    if min(film.facts.width, film.facts.height) < 2:
        raise BadClip(f"{source}: pictures of {film.facts.width} x {film.facts.height} pixels cannot be drawn on")
    rate = Fraction(film.facts.rate or USUAL_RATE).limit_denominator(1001)
    bar = tqdm(film, total=film.facts.frames or None, desc="drawing", unit="frame", leave=False, disable=not progress)
    kind = {".mkv": "matroska"}.get(out.suffix.lower(), out.suffix.lower()[1:])
    with atomic_file(out) as temporary, av.open(local_name(temporary), "w", format=kind) as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "20", "preset": "veryfast"})
        unit = stream.codec_context.time_base = UNITS.get(kind, UNIT)
        last = -1
        for number, seconds, picture in bar:
            height, width = (side // 2 * 2 for side in picture.shape[:2])
            if number == 0:
                stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            drawn = draw_frame(Image.fromarray(picture[:height, :width]), recording, segments, seconds)
            frame = av.VideoFrame.from_image(drawn)
            frame.pts, frame.time_base = max(round(seconds / unit), last + 1), unit
            last = frame.pts
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    film.close()


def draw_frame(picture: Image, recording: Recording, segments: Sequence[Segment], seconds: float) -> Image:
    """One picture of the video with its people and their labels.

    Args:
        picture: of any size.
        recording: the people.
        segments: what they do.
        seconds: when the picture was taken.
    """
    from PIL import ImageDraw

    place = int(np.abs(recording.seconds - seconds).argmin())
    points = visible(recording, place) * (picture.width / recording.picture[0])
    drawn = _with_bones(picture, points, recording.layout)
    draw = ImageDraw.Draw(drawn, "RGBA")
    now = [each for each in segments if each.begin <= seconds < each.end]
    for row, each in enumerate(each for each in now if each.person == TOGETHER):
        _write(draw, 8, 8 + row * (LETTERS + 12), _words(each), TINTS[0][0], picture.width)
    for each in now:
        if each.person != TOGETHER:
            there = points[each.person - 1][np.isfinite(points[each.person - 1]).all(axis=-1)]
            if len(there):
                (left, top), bottom = there.min(axis=0), there[:, 1].max()
                colour = TINTS[(each.person - 1) % len(TINTS)][0]
                above = int(top - HEAD * (bottom - top)) - LETTERS - 10
                _write(draw, int(left), above, _words(each), colour, picture.width)
    return drawn


def _with_bones(picture: Image, points: np.ndarray, layout: Layout) -> Image:
    """Skeletons (M, V, 2) over the part of a picture that they are in: quicker, and bones as thick as people are."""
    there = points[np.isfinite(points).all(axis=-1)]
    if not len(there):
        return picture.copy()
    low = np.clip(there.min(axis=0) - MARGIN, 0, (picture.width - 1, picture.height - 1)).astype(int)
    high = np.clip(there.max(axis=0) + MARGIN, low + 1, (picture.width, picture.height)).astype(int)
    drawn = picture.copy()
    part = draw_skeleton(picture.crop((*low, *high)), points - low, layout)
    drawn.paste(part, tuple(low.tolist()))
    return drawn


def _words(each: Segment) -> str:
    number = "" if each.person == TOGETHER else f"{each.person}  "
    return f"{number}{each.name}" + ("" if each.rejected else f"  {each.probability:.0%}")


def _write(draw: ImageDraw, x: int, y: int, text: str, colour: tuple[int, int, int], width: int) -> None:
    """White letters on a bar of a person's colour, inside the picture."""
    from mmcl.common.fonts import pil_font

    room = min(int(draw.textlength(text, font=pil_font(text, LETTERS))) + 12, width - 4)
    x, y = max(2, min(x, width - room - 2)), max(2, y)
    draw.rectangle([x, y, x + room, y + LETTERS + 8], fill=(*colour, 210))
    write(draw, (x + 6, y + 2), text, LETTERS, "white", room - 8)
