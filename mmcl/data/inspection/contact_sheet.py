"""A picture of a store: some clips, one a row, skeletons drawn over the frames they belong to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mmcl.data.crops import decode, to_crop
from mmcl.data.store import ClipStore
from mmcl.skeletons.layout import Layout

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont
    from PIL.ImageFont import ImageFont as DefaultFont

LEFT, RIGHT, TORSO = (45, 125, 255), (240, 60, 60), (150, 150, 150)
TILE, LABEL, GAP, HEAD = 200, 190, 6, 40  # pixels
FINE = 3  # drawn this many times larger, then shrunk: smooth lines


def contact_sheet(store: ClipStore, rows: int = 8) -> Image:
    """Draw up to ``rows`` clips of as many classes.

    Each row shows the m sampled frames of a clip: the stored crops with the skeleton over them, or, for a clip
    without video, the skeleton alone on white. Left limbs are blue, right ones red, the torso grey.
    """
    from PIL import Image, ImageDraw

    chosen = choose(store, rows)
    columns = max((len(store.frame_indices(index)) for index in chosen), default=0)
    width = LABEL + columns * (TILE + GAP) + GAP
    sheet = Image.new("RGB", (width, HEAD + len(chosen) * (TILE + GAP)), "white")
    draw = ImageDraw.Draw(sheet)
    _legend(draw, f"{store.info['title']}: {len(store)} clips")
    for row, index in enumerate(chosen):
        top = HEAD + row * (TILE + GAP)
        _caption(draw, store, index, top)
        for column, tile in enumerate(_tiles(store, index)):
            sheet.paste(tile, (LABEL + column * (TILE + GAP), top))
    return sheet


def choose(store: ClipStore, rows: int) -> list[int]:
    """Clips of different classes, spread over the class list, of different subjects and as many bodies as there are."""
    present = np.unique(store.labels)
    labels = present[np.linspace(0, len(present) - 1, min(rows, len(present))).round().astype(int)] if rows else []
    chosen = []
    for row, label in enumerate(labels):
        clips = np.flatnonzero(store.labels == label)
        clips = clips[store.bodies[clips] == store.bodies[clips].max()]
        people = np.unique(store.subjects[clips])
        chosen.append(int(clips[store.subjects[clips] == people[row % len(people)]][0]))
    return chosen


def _tiles(store: ClipStore, index: int) -> list[Image]:
    """One picture for each sampled frame."""
    from PIL import Image

    frames = store.frame_indices(index)
    crops, boxes, pixels = store.crops(index), store.boxes(index), store.pixels(index)
    if crops:
        images = [decode(jpeg).resize((TILE, TILE), Image.Resampling.LANCZOS) for jpeg in crops]
        points = [to_crop(p, box, TILE) for p, box in zip(pixels, boxes, strict=True)] if len(pixels) else None
    else:
        images = [Image.new("RGB", (TILE, TILE), (250, 250, 250)) for _ in frames]
        points = list(flat_points(store.joints(index)[:, frames].swapaxes(0, 1), TILE))
    if points is None:  # a video whose camera is unknown
        return images
    return [draw_skeleton(image, p, store.layout) for image, p in zip(images, points, strict=True)]


def flat_points(joints: np.ndarray, size: int) -> np.ndarray:
    """Look at (m, M, V, 3) joints from the front: (m, M, V, 2) pixels of a square picture that holds all of them.

    Joints of bodies that are not there (all zero) come out as NaN.
    """
    points = joints[..., :2] * np.array([1, -1])
    absent = ~joints.any(axis=(-1, -2), keepdims=True)
    points = np.where(absent, np.nan, points)
    flat = points.reshape(-1, 2)
    flat = flat[np.isfinite(flat).all(axis=1)]
    if len(flat) == 0:
        return np.full(points.shape, np.nan)
    low, high = flat.min(axis=0), flat.max(axis=0)
    side = max(float((high - low).max()), 1e-3) * 1.15
    return (points - (low + high) / 2) * (size / side) + size / 2


def draw_skeleton(image: Image, points: np.ndarray, layout: Layout) -> Image:
    """Draw bodies over a picture.

    Args:
        image: any size.
        points: (M, V, 2) joints in its pixels; NaN where unknown.
        layout: bones and sides.

    Returns:
        A new picture.
    """
    from PIL import Image, ImageDraw

    width, height = image.size
    thick = max(width // 80, 1) * FINE
    overlay = Image.new("RGBA", (width * FINE, height * FINE), (0, 0, 0, 0))
    draw = ImageDraw.Draw(overlay)
    for body in np.asarray(points, dtype=np.float64) * FINE:
        bones = [(a, b) for a, b in layout.edges if np.isfinite(body[[a, b]]).all()]
        for child, parent in bones:  # a light rim first, so that bones stand out on any picture
            draw.line([*body[child], *body[parent]], fill=(255, 255, 255, 200), width=thick + 2 * FINE)
        for child, parent in bones:
            draw.line([*body[child], *body[parent]], fill=_colour(layout.joints[child]), width=thick)
        for joint, (x, y) in enumerate(body):
            if np.isfinite([x, y]).all():
                r = 0.9 * thick
                draw.ellipse([x - r, y - r, x + r, y + r], fill=_colour(layout.joints[joint]), outline="white")
    smooth = overlay.resize(image.size, Image.Resampling.LANCZOS)
    return Image.alpha_composite(image.convert("RGBA"), smooth).convert("RGB")


def _colour(joint: str) -> tuple[int, int, int]:
    return LEFT if joint.startswith("left_") else RIGHT if joint.startswith("right_") else TORSO


def _legend(draw: ImageDraw, title: str) -> None:
    from PIL import ImageFont

    draw.text((GAP, 10), title, fill="black", font=ImageFont.load_default(16))
    x = LABEL + max(0, int(draw.textlength(title, font=ImageFont.load_default(16))) - LABEL + 24)
    for name, colour in (("left", LEFT), ("right", RIGHT), ("torso", TORSO)):
        draw.rectangle([x, 14, x + 12, 26], fill=colour)
        draw.text((x + 18, 12), name, fill="black", font=ImageFont.load_default(13))
        x += 76


def _caption(draw: ImageDraw, store: ClipStore, index: int, top: int) -> None:
    from PIL import ImageFont

    name = store.class_names[store.labels[index]]
    lines = _wrap(draw, name, ImageFont.load_default(15), LABEL - 2 * GAP)
    y = top + 4
    for line in lines:
        draw.text((GAP, y), line, fill="black", font=ImageFont.load_default(15))
        y += 19
    small = ImageFont.load_default(12)
    frames = ", ".join(str(frame) for frame in store.frame_indices(index))
    details = (store.ids[index], f"subject {store.subjects[index]}, {store.frames[index]} frames", f"frames {frames}")
    for number, line in enumerate(details):
        draw.text((GAP, y + 4 + 16 * number), line, fill=(90, 90, 90), font=small)


def _wrap(draw: ImageDraw, text: str, font: FreeTypeFont | DefaultFont, width: int) -> list[str]:
    """Break a caption into lines that fit."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and draw.textlength(longer, font=font) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
