"""Skeletons as pictures: where joints lie on a flat page, and how bones look there."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

import numpy as np

from mmcl.common.fonts import pil_font
from mmcl.common.printing import one_line
from mmcl.skeletons.layout import Layout

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

    from mmcl.common.fonts import Font

Colour = tuple[int, int, int]
LEFT, RIGHT, TORSO = (45, 125, 255), (240, 60, 60), (150, 150, 150)
# Left, right, torso of the first body, and of the second; a third looks like the first.
TINTS: tuple[tuple[Colour, Colour, Colour], ...] = ((LEFT, RIGHT, TORSO), ((0, 175, 165), (250, 150, 0), (95, 75, 110)))
RIMS = ((255, 255, 255, 200), (40, 40, 40, 150))  # round the bones, so that they stand out on any picture
FINE = 3  # drawn this many times larger, then shrunk: smooth lines
PAPER = (246, 246, 246)
MOST = 500  # letters of a text that are looked at: no picture has room for more


def seen(joints: np.ndarray) -> np.ndarray:
    """The same joints (…, 3) with NaN for those that are missing (all zero)."""
    return np.where(joints.any(axis=-1, keepdims=True), joints, np.nan)


def from_front(joints: np.ndarray) -> np.ndarray:
    """Joints (…, 3), y up, as the sensor sees them without perspective: (…, 2), y down; missing ones NaN."""
    return np.asarray(seen(joints)[..., [0, 1]] * (1, -1))


def from_side(joints: np.ndarray) -> np.ndarray:
    """The same from the side; the sensor stands on the left."""
    return np.asarray(seen(joints)[..., [2, 1]] * (1, -1))


def extent(flat: np.ndarray, wild: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper ends of points (…, 2) along both axes, (2,) each; that share of them may lie beyond either."""
    known = flat.reshape(-1, 2)
    known = known[np.isfinite(known).all(axis=1)]
    if len(known) == 0:
        return np.zeros(2), np.zeros(2)
    return np.quantile(known, wild, axis=0), np.quantile(known, 1 - wild, axis=0)


def flat_points(joints: np.ndarray, size: int) -> np.ndarray:
    """Look at (m, M, V, 3) joints from the front: (m, M, V, 2) pixels of a square picture that holds all of them.

    Missing joints, and with them bodies that are not there, come out as NaN.
    """
    points = from_front(joints)
    low, high = extent(points)
    side = max(float((high - low).max()), 1e-3) * 1.15
    return np.asarray((points - (low + high) / 2) * (size / side) + size / 2)


def draw_skeleton(image: Image, points: np.ndarray, layout: Layout) -> Image:
    """Draw bodies over a picture, the second in tints of its own.

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
    points = np.asarray(points, dtype=np.float64)
    wild = (np.abs(points) > 20 * max(width, height)).any(axis=-1, keepdims=True)  # far outside: lines for ever
    for number, body in enumerate(np.where(wild, np.nan, points) * FINE):
        _draw_body(draw, body, layout, number, thick)
    smooth = overlay.reduce(FINE)
    return Image.alpha_composite(image.convert("RGBA"), smooth).convert("RGB")


def _draw_body(draw: ImageDraw, body: np.ndarray, layout: Layout, number: int, thick: int) -> None:
    """One body (V, 2): rims below, bones over them, joints on top."""
    rim = RIMS[number % len(RIMS)]
    bones = [(a, b) for a, b in layout.edges + layout.links if np.isfinite(body[[a, b]]).all()]
    for child, parent in bones:
        draw.line([*body[child], *body[parent]], fill=rim, width=thick + 2 * FINE)
    for child, parent in bones:
        draw.line([*body[child], *body[parent]], fill=_bone_colour(layout, child, parent, number), width=thick)
    for joint, (x, y) in enumerate(body):
        if np.isfinite([x, y]).all():
            r = thick * (1.8 if layout.joints[joint] == "head" else 0.9)
            draw.ellipse([x - r, y - r, x + r, y + r], fill=colour_of(layout.joints[joint], number), outline=rim[:3])


def colour_of(joint: str, body: int = 0) -> Colour:
    """Blue on the left, red on the right, grey between; the second body's own tints."""
    left, right, torso = TINTS[body % len(TINTS)]
    return left if joint.startswith("left_") else right if joint.startswith("right_") else torso


def _bone_colour(layout: Layout, child: int, parent: int, body: int) -> Colour:
    """That of the outer joint; what links left and right is grey."""
    colours = {colour_of(layout.joints[joint], body) for joint in (child, parent)}
    across = colours == set(TINTS[body % len(TINTS)][:2])
    return TINTS[body % len(TINTS)][2] if across else colour_of(layout.joints[child], body)


def draw_legend(draw: ImageDraw, x: int, y: int, bodies: int) -> int:
    """Swatches with names, from a point to the right; returns where they end."""
    from PIL.ImageFont import load_default

    font = load_default(13)
    entries: list[tuple[str, tuple[Colour, ...]]] = [("left", (LEFT,)), ("right", (RIGHT,)), ("torso", (TORSO,))]
    if bodies > 1:
        entries.append(("second body", TINTS[1]))
    for name, colours in entries:
        for colour in colours:
            draw.rectangle([x, y + 2, x + 12, y + 14], fill=colour)
            x += 14
        draw.text((x + 4, y), name, fill="black", font=font)
        x += int(draw.textlength(name, font=font)) + 22
    return x


def write(draw: ImageDraw, where: tuple[int, int], text: str, size: int, colour: Colour | str, room: int) -> None:
    """Write as much of a text, in whatever script, as fits into ``room`` pixels, on one line."""
    text = one_line(text, MOST)
    font = pil_font(text, size)
    draw.text(where, _shorten(draw, text, font, room), fill=colour, font=font)


def _shorten(draw: ImageDraw, text: str, font: Font, room: int) -> str:
    head = text[:MOST]  # measuring takes time by the letter, and text by letter would take its square
    if head == text and draw.textlength(text, font=font) <= room:
        return text
    fits = bisect_right(range(len(head) + 1), float(room), key=lambda n: draw.textlength(head[:n] + "…", font=font))
    return head[: max(fits - 1, 0)] + "…"
