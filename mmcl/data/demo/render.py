"""Painting shapes from back to front into the frames of a video, in a plain room.

Frames are drawn at twice their size and reduced, which smooths the edges.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image, ImageDraw

from mmcl.data.demo.body import Array
from mmcl.data.demo.camera import Intrinsics, View
from mmcl.data.demo.figures import Shape

SCALE = 2
WALL_BEHIND = 1.4  # metres between the middle of the stage and the wall
FLOOR, JOIN = (146, 128, 108), (118, 100, 84)
Colour = tuple[int, int, int]


def tone(colour: Sequence[float] | Array, factor: float) -> Colour:
    """A lighter or darker colour."""
    red, green, blue = (min(255, max(0, int(part * factor))) for part in colour)
    return red, green, blue


def film(
    shapes: Sequence[Shape], feet: Sequence[Array], view: View, camera: Intrinsics, light: float
) -> Iterator[np.ndarray]:
    """Frames (height, width, 3) uint8 of a clip.

    Args:
        shapes: everything that is to be seen.
        feet: for each person (T, 3), the point of the floor below them, camera space.
        view: which camera.
        camera: the pinhole.
        light: brightness of the room, 1 is average.
    """
    empty = room(view, camera, light)
    for t in range(len(feet[0])):
        frame = empty.copy()
        for points in feet:
            _shadow(frame, points[t], camera)
        _paint(ImageDraw.Draw(frame), shapes, t)
        yield np.asarray(frame.reduce(SCALE))


def mask(shapes: Sequence[Shape], t: int, camera: Intrinsics) -> np.ndarray:
    """Pixels (height, width) bool that the shapes cover in frame ``t``."""
    image = Image.new("L", (SCALE * camera.width, SCALE * camera.height))
    _paint(ImageDraw.Draw(image), shapes, t, flat=255)
    return np.asarray(image.reduce(SCALE)) > 127


def _paint(draw: ImageDraw.ImageDraw, shapes: Sequence[Shape], t: int, flat: int | None = None) -> None:
    """Draw frame ``t`` of the shapes; with ``flat``, all in that one value."""
    for shape in sorted(shapes, key=lambda shape: -shape.depth[t]):
        if not shape.visible[t]:
            continue
        colour = shape.colour[t]
        if shape.polygon.shape[1]:
            draw.polygon((SCALE * shape.polygon[t]).ravel().tolist(), fill=tone(colour, 1.0) if flat is None else flat)
            continue
        capsules = (SCALE * shape.capsules[t]).tolist()
        # Pass by pass over all capsules, so that a trunk made of several shows no seams: rim, body, lit side.
        passes: list[tuple[float, float, float, int | Colour]] = [
            (1.5, 1.0, 0.0, tone(colour, 0.62)), (0.0, 1.0, 0.0, tone(colour, 0.86)),
            (0.0, 0.76, -0.2, tone(colour, 1.0)),
        ]  # fmt: skip
        if flat is not None:
            passes = [(0.0, 1.0, 0.0, flat)]
        for wider, share, shift, fill in passes:
            for x0, y0, x1, y1, r0, r1 in capsules:
                ends = (x0 + shift * r0, y0 + shift * r0, x1 + shift * r1, y1 + shift * r1)
                _capsule(draw, ends, share * r0 + wider, share * r1 + wider, fill)


def _capsule(draw: ImageDraw.ImageDraw, ends: tuple[float, float, float, float], r0: float, r1: float,
             fill: int | Colour) -> None:  # fmt: skip
    """A tapered line with round ends."""
    x0, y0, x1, y1 = ends
    length = float(np.hypot(x1 - x0, y1 - y0))
    if length > 0.5:
        nx, ny = (y1 - y0) / length, (x0 - x1) / length
        sides = (x0 + nx * r0, y0 + ny * r0, x1 + nx * r1, y1 + ny * r1,
                 x1 - nx * r1, y1 - ny * r1, x0 - nx * r0, y0 - ny * r0)  # fmt: skip
        draw.polygon(sides, fill=fill)
        draw.ellipse((x1 - r1, y1 - r1, x1 + r1, y1 + r1), fill=fill)
    draw.ellipse((x0 - r0, y0 - r0, x0 + r0, y0 + r0), fill=fill)


def room(view: View, camera: Intrinsics, light: float) -> Image.Image:
    """The empty stage seen from a camera, enlarged: a wall with a gradient behind a tiled floor."""
    width, height = SCALE * camera.width, SCALE * camera.height
    # The wall stands square to the camera; its foot is one level line of the picture.
    away = view.distance + WALL_BEHIND
    facing = np.array([0.0, -view.height, away])
    foot = SCALE * float(camera.project(view.tilt(facing))[1])
    rows = np.arange(height)[:, None, None]
    wall = np.array(view.tint) * light * (1.05 - 0.25 * rows / height)
    floor = np.array(FLOOR) * light * (0.62 + 0.5 * (rows - foot) / max(1.0, height - foot))
    pixels = np.broadcast_to(np.where(rows < foot, wall, floor), (height, width, 3))
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    along = np.linspace(-4.0, 4.0, 65)
    still = np.zeros_like(along)
    for offset in np.arange(-4.0, 4.01, 0.5):
        for line in ((still + offset, along), (along, still + offset)):
            points = view.to_camera(np.stack([line[0], still, line[1]], -1))
            ends = SCALE * camera.project(points[points[:, 2] > 0.4])
            ends = ends[ends[:, 1] > foot]
            draw.line([(x, y) for x, y in ends.tolist()], fill=tone(JOIN, light), width=1)
    draw.rectangle((0, foot - 8, width, foot), fill=tone(view.tint, 0.62 * light))
    return image


def _shadow(image: Image.Image, centre: Array, camera: Intrinsics) -> None:
    """Darken the floor under a person."""
    x, y = SCALE * camera.project(centre)
    across = SCALE * camera.focal * 0.3 / centre[2]
    draw = ImageDraw.Draw(image, "RGBA")
    draw.ellipse((x - across, y - 0.26 * across, x + across, y + 0.26 * across), fill=(20, 16, 12, 90))
