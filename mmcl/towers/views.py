"""Several views of a clip's pictures: what a frozen tower says about them can be cached, and training still varies.

A person crop is square, centred on the person, with a margin of a quarter; a random window of 80 to 100 % of its area
moves and scales the person a little and leaves head and hands in sight most of the time. The window is the same in all
pictures of a clip: what moves between them is the person. Colours stay, since a tower that was trained on colours may
tell objects by them. Mirror images have to be asked for: the skeleton beside them is not mirrored, so that "left" and
"right" would lose their meaning, as in the actions of UTD-MHAD.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from mmcl.common.draws import uniform

if TYPE_CHECKING:
    from PIL.Image import Image

AREA = 0.8  # smallest share of a picture that a view keeps
SQUEEZE = 1.1  # largest ratio of a window's sides, relative to the picture's


def view(images: Sequence[Image], clip: int, number: int, mirror: bool = False) -> list[Image]:
    """One view of a clip's pictures. The same for the same (clip, number) everywhere, whatever the seed of a run.

    Args:
        images: the pictures.
        clip: the clip's position in its store.
        number: which view; 0 is the pictures as they are.
        mirror: half of the other views are mirror images.
    """
    if number == 0:
        return list(images)
    area, squeeze, left, top, flip = np.random.default_rng((clip, number)).random(5)
    area = AREA + (1 - AREA) * area
    ratio = SQUEEZE ** (2 * squeeze - 1)
    wide, high = min(1.0, (area * ratio) ** 0.5), min(1.0, (area / ratio) ** 0.5)
    left, top = left * (1 - wide), top * (1 - high)
    return [_cut(image, (left, top, left + wide, top + high), mirror and flip < 0.5) for image in images]


def _cut(image: Image, window: tuple[float, float, float, float], flip: bool) -> Image:
    from PIL import Image as Pil

    wide, high = image.size
    left, top, right, bottom = window
    box = (left * wide, top * high, right * wide, bottom * high)
    cut = image.resize(image.size, Pil.Resampling.BICUBIC, box=box)
    return cut.transpose(Pil.Transpose.FLIP_LEFT_RIGHT) if flip else cut


def draw_view(key: int, views: int) -> int:
    """Which view a clip is shown in: the same for the same (seed, epoch, clip).

    Args:
        key: the sample's, from :func:`mmcl.common.draws.clip_keys`.
        views: how many there are.
    """
    return int(float(uniform(torch.tensor([key]), "view")) * views) if views > 1 else 0
