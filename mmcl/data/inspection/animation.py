"""One clip as an animation: its skeleton from the front and from the side, beside the crops of its video."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mmcl.common.errors import UserError
from mmcl.common.files import atomic_file
from mmcl.data.inspection.contact_sheet import crop_pictures
from mmcl.data.inspection.drawing import (
    PAPER,
    TINTS,
    Colour,
    draw_legend,
    draw_skeleton,
    extent,
    from_front,
    from_side,
    write,
)
from mmcl.data.opening import local_name
from mmcl.data.store import ClipStore

if TYPE_CHECKING:
    from PIL.Image import Image

PANEL, GAP, HEAD, FOOT = 320, 10, 62, 52  # pixels
WILD = 0.002  # share of the joints at either end that may lie outside the panel, so that one cannot shrink the rest
GIF_FPS = 50  # viewers slow anything quicker down to a crawl
GREY, LINE = (110, 110, 110), (205, 205, 205)
SUFFIXES = (".gif", ".mp4")
NAMES = {"front": "from the front, as the sensor sees it", "side": "from the side, the sensor on the left"}


class Animation:
    """Pictures of one clip, one a skeleton frame.

    Args:
        store: where the clip is.
        index: its position there.

    Attributes:
        frames: T.
        size: width and height of the pictures, even numbers (videos want them).
        panels: left edge of each panel, by its name: front, side (where the clip has depth), video (where it has one).
    """

    def __init__(self, store: ClipStore, index: int) -> None:
        self.store, self.index = store, index
        joints = store.joints_in_space(index)
        self.frames = joints.shape[1]
        views = {"front": from_front(joints)}
        if joints[..., 2].any():
            views["side"] = from_side(joints)
        self.crops = crop_pictures(store, index, PANEL)
        names = [*views, *(["video"] if self.crops else [])]
        self.panels = {name: GAP + number * (PANEL + GAP) for number, name in enumerate(names)}
        self.size = (max(GAP + len(names) * (PANEL + GAP), 480), HEAD + PANEL + FOOT)
        self.views, self.floor = _to_panels(views)
        self.background = self._background()

    def points(self, view: str, frame: int) -> np.ndarray:
        """Where the joints of a frame are in a panel: (M, V, 2) pixels from its upper left corner; NaN if missing."""
        return self.views[view][:, frame]

    def crop_at(self, frame: int) -> int:
        """Which of the m crops stands for a frame: each was taken from the middle of its share of the clip."""
        return min(frame * len(self.crops) // self.frames, len(self.crops) - 1)

    def picture(self, frame: int) -> Image:
        """The whole picture of one frame."""
        from PIL import Image, ImageDraw, ImageFont

        image = self.background.copy()
        for name in self.views:
            panel = Image.new("RGB", (PANEL, PANEL), PAPER)
            ImageDraw.Draw(panel).line([0, self.floor, PANEL, self.floor], fill=LINE, width=2)
            image.paste(draw_skeleton(panel, self.points(name, frame), self.store.layout), (self.panels[name], HEAD))
        draw, small = ImageDraw.Draw(image), ImageFont.load_default(13)
        if self.crops:
            number = self.crop_at(frame)
            image.paste(self.crops[number], (self.panels["video"], HEAD))
            words = f"video, frame {self.store.frame_indices(self.index)[number]} ({number + 1} of {len(self.crops)})"
            draw.text((self.panels["video"], HEAD + PANEL + 4), words, fill=GREY, font=small)
        width = self.size[0]
        draw.text((width - GAP, 14), f"{frame} / {self.frames - 1}", fill="black", font=small, anchor="ra")
        draw.text((width - GAP, 34), f"{frame / self.store.fps:.2f} s", fill=GREY, font=small, anchor="ra")
        done = GAP + (width - 2 * GAP) * (frame + 1) / self.frames
        draw.rectangle([GAP, self.size[1] - 10, done, self.size[1] - 5], fill=TINTS[0][0])
        return image

    def _background(self) -> Image:
        """What all frames have in common: title, names of the panels, legend, time line."""
        from PIL import Image, ImageDraw, ImageFont

        store, index, (width, height) = self.store, self.index, self.size
        image = Image.new("RGB", self.size, "white")
        draw, small = ImageDraw.Draw(image), ImageFont.load_default(13)
        room = width - 2 * GAP - 90  # the frame counter stands on the right
        write(draw, (GAP, 8), store.class_names[store.labels[index]], 20, "black", room)
        write(draw, (GAP, 36), caption(store, index), 13, GREY, room)
        for name in self.views:
            draw.text((self.panels[name], HEAD + PANEL + 4), NAMES[name], GREY, small)
        draw_legend(draw, GAP, height - 29, int(store.bodies[index]))
        draw.rectangle([GAP, height - 10, width - GAP, height - 5], fill=(230, 230, 230))
        return image


def caption(store: ClipStore, index: int) -> str:
    """What a clip is, in a line."""
    person = f"subject {store.subjects[index]}, " if store.subjects[index] else ""
    return f"{store.ids[index]}: {person}{store.frames[index]} frames at {store.fps:g} fps, {store.title}"


def _to_panels(views: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], float]:
    """Scale views (M, T, V, 2) into square panels, all by one factor over the whole clip; and the floor's height."""
    ends = {name: extent(flat, WILD) for name, flat in views.items()}
    side = max(float((high - low).max()) for low, high in ends.values())
    scale = PANEL / (max(side, 1e-3) * 1.15)
    placed = {name: (flat - sum(ends[name]) / 2) * scale + PANEL / 2 for name, flat in views.items()}
    lowest = extent(placed["front"], WILD)[1][1]
    return placed, float(lowest) + 6


def write_animation(store: ClipStore, index: int, path: Path, speed: float = 1.0, progress: bool = True) -> None:
    """Draw a clip into a file, which appears when it is whole.

    Args:
        store: where the clip is.
        index: its position there.
        path: ``.gif`` or ``.mp4``.
        speed: 0.5 is half as fast as it was.
        progress: show a progress bar on stderr, should it take longer than a second.

    Raises:
        UserError: another suffix.
    """
    from tqdm import tqdm

    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"{path}: an animation is a {' or a '.join(SUFFIXES)} file")
    animation, rate = Animation(store, index), store.fps * speed
    step = math.ceil(rate / GIF_FPS) if path.suffix.lower() == ".gif" else 1
    frames = range(0, animation.frames, step)
    pictures = (animation.picture(frame) for frame in tqdm(frames, unit="frame", delay=1, disable=not progress))
    with atomic_file(path) as temporary:
        if path.suffix.lower() == ".gif":
            write_gif(temporary, pictures, _palette(animation), len(frames), rate / step)
        else:
            _write_mp4(temporary, pictures, animation.size, rate)


def _palette(animation: Animation) -> Image:
    """256 colours for all frames, so that nothing flickers; those of the bones are certain to be among them."""
    chosen = np.unique(np.linspace(0, animation.frames - 1, 8).astype(int))
    own = [PAPER, LINE, GREY, (255, 255, 255), (0, 0, 0), *(colour for tints in TINTS for colour in tints)]
    return shared_palette([animation.picture(int(frame)) for frame in chosen], own)


def shared_palette(pictures: list[Image], own: list[Colour]) -> Image:
    """256 colours for pictures of one size: some that are certain to be among them, and the commonest others."""
    from PIL import Image

    width, height = pictures[0].size
    sample = Image.new("RGB", (width, height * len(pictures)))
    for row, picture in enumerate(pictures):
        sample.paste(picture, (0, row * height))
    found = sample.quantize(256 - len(own)).getpalette() or []
    palette = Image.new("P", (1, 1))
    palette.putpalette(([channel for colour in own for channel in colour] + found)[: 3 * 256])
    return palette


def write_gif(path: Path, pictures: Iterator[Image], palette: Image, count: int, rate: float) -> None:
    """Write pictures as an animation that repeats.

    Args:
        path: of the file.
        pictures: of one size.
        palette: of :func:`shared_palette`.
        count: how many pictures there are.
        rate: pictures a second, at most 50.
    """
    from PIL import Image

    # A GIF counts hundredths of a second: rounding the ends of the frames, not their lengths, keeps the total.
    ends = [round(100 * number / rate) for number in range(count + 1)]
    lengths = [10 * (end - begin) for begin, end in zip(ends, ends[1:], strict=False)]
    flat = (picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures)
    next(flat).save(path, "GIF", save_all=True, append_images=flat, duration=lengths, loop=0, optimize=True)


def _write_mp4(path: Path, pictures: Iterator[Image], size: tuple[int, int], rate: float) -> None:
    import av

    with av.open(local_name(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=Fraction(rate).limit_denominator(1000), options={"crf": "16"})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_image(picture)))
        container.mux(stream.encode())
