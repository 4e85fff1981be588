"""A picture of a store: some clips, one a row, skeletons drawn over the frames they belong to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mmcl.common.fonts import pil_font
from mmcl.data.crops import decode, to_crop
from mmcl.data.inspection.drawing import PAPER, draw_legend, draw_skeleton, flat_points, write
from mmcl.data.store import ClipStore

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

    from mmcl.common.fonts import Font

TILE, LABEL, GAP, HEAD = 200, 190, 6, 40  # pixels
MOST = 10  # pictures of a clip


def contact_sheet(store: ClipStore, rows: int = 8) -> Image:
    """Draw up to ``rows`` clips of as many classes.

    Each row shows the sampled frames of a clip, or as many of them as there is room for: the stored crops with the
    skeleton over them, or, for a clip without video, the skeleton alone on white. Left limbs are blue, right ones red,
    the torso grey; a second body has tints of its own.
    """
    from PIL import Image, ImageDraw

    chosen = choose(store, rows)
    columns = max((len(_shown(store, index, MOST)) for index in chosen), default=0)
    width = LABEL + columns * (TILE + GAP) + GAP
    sheet = Image.new("RGB", (width, HEAD + len(chosen) * (TILE + GAP)), "white")
    draw = ImageDraw.Draw(sheet)
    _title(draw, f"{store.title}: {len(store)} clips", max((int(store.bodies[index]) for index in chosen), default=1))
    for row, index in enumerate(chosen):
        top = HEAD + row * (TILE + GAP)
        _caption(draw, store, index, top)
        for column, tile in enumerate(frame_pictures(store, index, TILE)):
            sheet.paste(tile, (LABEL + column * (TILE + GAP), top))
    return sheet


def choose(store: ClipStore, rows: int) -> list[int]:
    """Clips of different classes, spread over the class list, and of different subjects.

    Within a class, clips with video and with more bodies come first. Where the store has a clip with two bodies, one
    is shown: in place of the last row, if no row has any.
    """
    present = np.unique(store.labels)
    labels = present[np.linspace(0, len(present) - 1, min(rows, len(present))).round().astype(int)] if rows else []
    chosen = [_of_class(store, int(label), row) for row, label in enumerate(labels)]
    pairs = np.flatnonzero(store.bodies > 1)
    if chosen and len(pairs) and store.bodies[chosen].max() < 2:
        chosen[-1] = int(pairs[0])
    return chosen


def _of_class(store: ClipStore, label: int, turn: int) -> int:
    """A clip of that class; people take turns."""
    clips = np.flatnonzero(store.labels == label)
    for rank in (store.bodies, store.video_frames > 0):
        clips = clips[rank[clips] == rank[clips].max()]
    people = np.unique(store.subjects[clips])
    return int(clips[store.subjects[clips] == people[turn % len(people)]][0])


def _shown(store: ClipStore, index: int, most: int) -> np.ndarray:
    """Which of the sampled frames are drawn: all, or so many evenly spaced ones."""
    sampled = len(store.frame_indices(index))
    return np.linspace(0, sampled - 1, min(sampled, most)).round().astype(int)


def frame_pictures(store: ClipStore, index: int, size: int, video: bool = True, most: int = MOST) -> list[Image]:
    """Up to ``most`` sampled frames as square pictures: the crop if asked for and there, else the skeleton on paper."""
    from PIL import Image

    shown = _shown(store, index, most)
    if video and store.video_frames[index]:
        return crop_pictures(store, index, size, shown)
    points = flat_points(store.joints_in_space(index)[:, store.frame_indices(index)[shown]].swapaxes(0, 1), size)
    return [draw_skeleton(Image.new("RGB", (size, size), PAPER), p, store.layout) for p in points]


def crop_pictures(store: ClipStore, index: int, size: int, shown: np.ndarray | None = None) -> list[Image]:
    """The stored crops of one clip at that size, with the skeleton over them where its place in them is known.

    Args:
        store: the clips.
        index: which of them.
        size: of the pictures, in pixels.
        shown: which of the sampled frames; None: all.
    """
    from PIL import Image

    boxes, pixels, crops = store.boxes(index), store.pixels(index), store.crops(index)
    which = range(len(crops)) if shown is None else shown
    images = [decode(crops[i]).resize((size, size), Image.Resampling.LANCZOS) for i in which]
    if len(pixels) == 0:  # a video whose camera is unknown
        return images
    points = [to_crop(pixels[i], boxes[i], size) for i in which]
    return [draw_skeleton(image, p, store.layout) for image, p in zip(images, points, strict=True)]


def _title(draw: ImageDraw, title: str, bodies: int) -> None:
    font = pil_font(title, 16)
    draw.text((GAP, 10), title, fill="black", font=font)
    draw_legend(draw, max(LABEL, int(draw.textlength(title, font=font)) + 24), 12, bodies)


def _caption(draw: ImageDraw, store: ClipStore, index: int, top: int) -> None:
    name, room = store.class_names[store.labels[index]], LABEL - 2 * GAP
    y = top + 4
    for line in _wrap(draw, name, pil_font(name, 15), room):
        write(draw, (GAP, y), line, 15, "black", room)
        y += 19
    frames = ", ".join(str(frame) for frame in store.frame_indices(index)[_shown(store, index, MOST)])
    person = f"subject {store.subjects[index]}, " if store.subjects[index] else ""  # 0: the dataset names nobody
    details = (store.ids[index], f"{person}{store.frames[index]} frames", f"frames {frames}")
    for number, line in enumerate(details):
        write(draw, (GAP, y + 4 + 16 * number), line, 12, (90, 90, 90), room)


def _wrap(draw: ImageDraw, text: str, font: Font, width: int) -> list[str]:
    """Break a caption into lines that fit."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and draw.textlength(longer, font=font) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
