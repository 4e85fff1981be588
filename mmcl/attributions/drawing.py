"""Skeletons whose joints show how much they say: warm and large for the class, cold and large against it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from mmcl.common.fonts import pil_font
from mmcl.data.inspection.drawing import FINE, PAPER, Colour
from mmcl.skeletons.layout import Layout

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

FOR, AGAINST, SILENT = (205, 62, 24), (30, 98, 170), (196, 196, 196)
BONES = ((168, 168, 172), (206, 196, 180))  # of the first body and of others
INK, FAINT = (40, 40, 40), (120, 120, 120)
FIGURES = 52  # room for the number behind a bar
LEAST, MOST = 0.011, 0.05  # radius of a joint that says nothing and of the loudest one, in heights of the panel


def shade(strength: float) -> Colour:
    """Colour of a share from -1 (all against) to 1 (all for)."""
    end, way = (FOR if strength > 0 else AGAINST), min(abs(strength), 1.0) ** 0.7
    red, green, blue = (round(a + (b - a) * way) for a, b in zip(SILENT, end, strict=True))
    return red, green, blue


def draw_loud_skeleton(size: tuple[int, int], points: np.ndarray, strength: np.ndarray, layout: Layout) -> Image:
    """One moment of a clip.

    Args:
        size: width and height of the panel, in pixels.
        points: (M, V, 2) joints in its pixels; NaN where missing.
        strength: (V,) shares from -1 to 1.
        layout: bones.
    """
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (size[0] * FINE, size[1] * FINE), PAPER)
    draw = ImageDraw.Draw(image)
    for number, body in enumerate(points * FINE):
        for child, parent in layout.edges:
            if np.isfinite(body[[child, parent]]).all():
                ends = [*body[child], *body[parent]]
                draw.line(ends, fill=BONES[min(number, 1)], width=max(size[1] * FINE // 70, 1))
    for joint in np.argsort(np.abs(strength)):  # the loudest ones on top
        for body in points * FINE:
            if np.isfinite(body[joint]).all():
                _draw_joint(draw, body[joint], float(strength[joint]), size[1] * FINE)
    return image.reduce(FINE)


def _draw_joint(draw: ImageDraw, place: np.ndarray, strength: float, height: int) -> None:
    (x, y), r = place, height * (LEAST + (MOST - LEAST) * min(abs(strength), 1.0) ** 0.5)
    draw.ellipse([x - r, y - r, x + r, y + r], fill=shade(strength), outline=(255, 255, 255), width=FINE)


def draw_bars(draw: ImageDraw, left: int, top: int, width: int, rows: Mapping[str, float], line: int = 22) -> int:
    """Named bars about a common zero, to the right for the class and to the left against it.

    Args:
        draw: on what.
        left: edge of the block.
        top: edge of the block.
        width: of the block, names included.
        rows: name -> value, from the top.
        line: height of a row.

    Returns:
        The lower edge of the block.
    """
    font = pil_font("".join(rows), 13)
    names = max((int(draw.textlength(name, font=font)) for name in rows), default=0) + 12
    below, above = -min(0.0, *rows.values()), max(0.0, *rows.values())
    figures = FIGURES * (2 if below else 1)
    scale = (width - names - figures) / max(below + above, 1e-12)
    zero = left + names + (FIGURES if below else 0) + below * scale
    for number, (name, value) in enumerate(rows.items()):
        y, end = top + number * line, zero + value * scale
        draw.text((left + names - 10, y + line // 2), name, fill=INK, font=font, anchor="rm")
        draw.rectangle([min(zero, end), y + 4, max(zero, end), y + line - 4], fill=FOR if value > 0 else AGAINST)
        where, anchor = (end + 5, "lm") if value >= 0 else (end - 5, "rm")
        draw.text((where, y + line // 2), f"{value:+.2f}", fill=FAINT, font=font, anchor=anchor)
    draw.line([zero, top, zero, top + line * len(rows)], fill=FAINT)
    return top + line * len(rows)


def draw_scale(draw: ImageDraw, left: int, top: int) -> None:
    """What sizes and colours mean: dots from strongly against to strongly for."""
    font = pil_font("", 13)
    draw.text((left, top), "against", fill=AGAINST, font=font, anchor="lm")
    x = left + int(draw.textlength("against", font=font)) + 14
    for strength in (-1.0, -0.5, -0.15, 0.0, 0.15, 0.5, 1.0):
        r = 3 + 8 * abs(strength) ** 0.5
        draw.ellipse([x - r, top - r, x + r, top + r], fill=shade(strength))
        x += 25
    draw.text((x - 6, top), "for the class", fill=FOR, font=font, anchor="lm")
