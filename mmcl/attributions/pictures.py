"""An explained clip as a strip of moments, and as an animation, beside bars of body parts and joints."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mmcl.attributions.drawing import (
    AGAINST,
    FAINT,
    FOR,
    INK,
    SILENT,
    draw_bars,
    draw_loud_skeleton,
    draw_scale,
    shade,
)
from mmcl.common.files import atomic_file
from mmcl.common.fonts import pil_font
from mmcl.data.inspection.animation import shared_palette, write_gif
from mmcl.data.inspection.drawing import PAPER, extent, from_front, write
from mmcl.skeletons.layout import Layout

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

TILE, GAP, HEAD, ROW = (168, 236), 8, 78, 12  # pixels: a moment, between things, the title, a row of the map
MOMENTS, LOUDEST = 8, 8  # pictures of a strip; joints that get a bar
LARGE, BESIDE = (400, 470), 400  # panel of an animation, and bars beside it
REST = "other joints"


@dataclass(frozen=True)
class Explained:
    """What a picture shows.

    Attributes:
        title: in large letters.
        about: one line below it.
        joints: (M, W, V, 3) places, NaN where missing.
        values: (W, V) shares of the score, or (V,) where frames are not told apart.
        layout: of the joints.
        rate: frames a second.
    """

    title: str
    about: str
    joints: np.ndarray
    values: np.ndarray
    layout: Layout
    rate: float = 20.0

    @property
    def over_time(self) -> np.ndarray:
        """(V,) shares of the whole clip."""
        return self.values if self.values.ndim == 1 else np.asarray(self.values.sum(axis=0))

    def strengths(self, moments: int) -> np.ndarray:
        """(moments, V) what joints say around so many moments, as a part of the loudest word in the clip."""
        frames = self.joints.shape[1]
        if self.values.ndim == 1:
            found = np.tile(self.values, (moments, 1))
        else:
            width = max(frames / moments, frames / 10)  # a glance takes in a tenth of the clip
            centre = (np.arange(moments)[:, None] + 0.5) * frames / moments
            near = np.abs(np.arange(frames) + 0.5 - centre) <= width / 2
            found = near @ self.values / near.sum(axis=1, keepdims=True)
        return np.asarray(found / max(float(np.abs(found).max()), 1e-12))

    def parts(self) -> dict[str, float]:
        """Shares of the body's parts; of what is in none, too, where there is any."""
        totals = self.over_time
        named = {name.replace("_", " "): float(totals[list(joints)].sum()) for name, joints in
                 self.layout.parts.items()}  # fmt: skip
        others = sorted(set(range(len(totals))) - {joint for each in self.layout.parts.values() for joint in each})
        return {**named, REST: float(totals[others].sum())} if others and named else named

    def loudest(self, count: int = LOUDEST) -> dict[str, float]:
        """The joints of the largest shares either way, from the most positive to the most negative."""
        totals = self.over_time
        chosen = sorted(np.argsort(-np.abs(totals), kind="stable")[:count], key=lambda joint: -totals[joint])
        return {self.layout.joints[joint].replace("_", " "): float(totals[joint]) for joint in chosen}

    def points(self, size: tuple[int, int]) -> np.ndarray:
        """(W, M, V, 2) joints in the pixels of a panel, as the sensor sees them, at one scale."""
        flat = from_front(np.nan_to_num(self.joints)).swapaxes(0, 1)
        missing = np.isnan(self.joints).any(axis=-1).swapaxes(0, 1)
        flat[missing] = np.nan
        low, high = extent(flat, 0.002)
        scale = float((np.array(size) / np.maximum((high - low) * 1.22, 1e-3)).min())
        return np.asarray((flat - (low + high) / 2) * scale + np.array(size) / 2)


def strip(clip: Explained) -> Image:
    """Moments of a clip in a row, a map of joints by time where frames are told apart, and bars."""
    from PIL import Image, ImageDraw

    width, below = GAP + MOMENTS * (TILE[0] + GAP), HEAD + TILE[1] + 30
    chart = _time_map(clip, width - 2 * GAP) if clip.values.ndim == 2 else None
    tall = 0 if chart is None else chart.size[1] + 34
    rows = max(len(clip.loudest()), len(clip.parts()))
    image = Image.new("RGB", (width, below + tall + 30 + 22 * rows + 2 * GAP), "white")
    draw = ImageDraw.Draw(image)
    write(draw, (GAP, 8), clip.title, 22, INK, width - 330)
    write(draw, (GAP, 42), clip.about, 13, FAINT, width - 330)
    draw_scale(draw, width - 306, 28)
    _moments(clip, image)
    if chart is not None:
        draw.text((GAP, below), "joints over time", fill=INK, font=pil_font("", 13))
        image.paste(chart, (GAP, below + 20))
    half = (width - 5 * GAP) // 2
    _block(draw, "parts of the body", clip.parts(), GAP, below + tall, half)
    _block(draw, "loudest joints", clip.loudest(), half + 4 * GAP, below + tall, half)
    return image


def _moments(clip: Explained, image: Image) -> None:
    """Skeletons in a row, each in the middle of its share of the clip."""
    from PIL import ImageDraw

    frames, places, strengths = clip.joints.shape[1], clip.points(TILE), clip.strengths(MOMENTS)
    draw, small = ImageDraw.Draw(image), pil_font("", 12)
    for moment in range(MOMENTS):
        frame = min(int((moment + 0.5) * frames / MOMENTS), frames - 1)
        left = GAP + moment * (TILE[0] + GAP)
        image.paste(draw_loud_skeleton(TILE, places[frame], strengths[moment], clip.layout), (left, HEAD))
        words = f"{100 * (frame + 0.5) / frames:.0f} %"
        draw.text((left + TILE[0] // 2, HEAD + TILE[1] + 4), words, fill=FAINT, font=small, anchor="ma")


def _block(draw: ImageDraw, title: str, rows: dict[str, float], left: int, top: int, width: int) -> int:
    """Bars under a title; returns their lower edge."""
    if not rows:
        return top
    draw.text((left, top), title, fill=INK, font=pil_font("", 13))
    return draw_bars(draw, left, top + 22, width, rows)


def _time_map(clip: Explained, width: int) -> Image:
    """Joints by time: a row for each joint, in the order of the layout's parts, names on the left."""
    from PIL import Image, ImageDraw

    strengths = clip.strengths(min(clip.joints.shape[1], 48))
    order = [joint for joints in clip.layout.parts.values() for joint in joints]
    order += [joint for joint in range(strengths.shape[1]) if joint not in order]
    room, row = 120, ROW
    image = Image.new("RGB", (width, len(order) * row), "white")
    draw, small = ImageDraw.Draw(image), pil_font("", 11)
    edges = np.linspace(room, width, len(strengths) + 1)
    for place, joint in enumerate(order):
        y = place * row
        name = clip.layout.joints[joint].replace("_", " ")
        draw.text((room - 8, y + row // 2), name, fill=FAINT, font=small, anchor="rm")
        for moment, strength in enumerate(strengths[:, joint]):
            paint = shade(float(strength)) if abs(strength) > 0.02 else PAPER
            draw.rectangle([edges[moment], y, edges[moment + 1] - 1, y + row - 2], fill=paint)
    return image


def animation_frames(clip: Explained) -> Iterator[Image]:
    """Every frame of a clip: the skeleton from the front, beside bars of parts and joints."""
    from PIL import Image, ImageDraw

    frames = clip.joints.shape[1]
    places, strengths = clip.points(LARGE), clip.strengths(frames)
    width, height = LARGE[0] + BESIDE + 5 * GAP, HEAD + LARGE[1] + 26
    paper = Image.new("RGB", (width, height), "white")
    draw, left = ImageDraw.Draw(paper), LARGE[0] + 4 * GAP
    write(draw, (GAP, 8), clip.title, 22, INK, width - 2 * GAP)
    write(draw, (GAP, 42), clip.about, 13, FAINT, width - 2 * GAP)
    end = _block(draw, "parts of the body", clip.parts(), left, HEAD + 4, BESIDE)
    _block(draw, "loudest joints", clip.loudest(), left, end + 2 * GAP, BESIDE)
    draw_scale(draw, left, HEAD + LARGE[1] - 16)
    draw.rectangle([GAP, height - 14, width - GAP, height - 8], fill=(230, 230, 230))
    for frame in range(frames):
        image = paper.copy()
        image.paste(draw_loud_skeleton(LARGE, places[frame], strengths[frame], clip.layout), (GAP, HEAD))
        done = GAP + (width - 2 * GAP) * (frame + 1) / frames
        ImageDraw.Draw(image).rectangle([GAP, height - 14, done, height - 8], fill=FAINT)
        yield image


def write_animation(clip: Explained, path: Path) -> None:
    """Write the GIF of a clip."""
    pictures = list(animation_frames(clip))
    own = [PAPER, (255, 255, 255), INK, FAINT, SILENT, FOR, AGAINST, *(shade(s) for s in np.linspace(-1, 1, 21))]
    palette = shared_palette(pictures[:: max(len(pictures) // 8, 1)], own)
    with atomic_file(path) as temporary:
        write_gif(temporary, iter(pictures), palette, len(pictures), min(clip.rate, 50.0))
