"""Person strips: the crops of a clip glued into one picture, as MMCL (ACM MM 2024) shows them to its towers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image


def strip(images: Sequence[Image], size: tuple[int, int] | None = None) -> Image:
    """Glue pictures left to right in time order, all at the first one's height.

    Args:
        images: the m pictures of a clip.
        size: width and height to resize the strip to. Where a model keeps only the centre of a picture, its own size
            keeps every frame in sight, narrower than it was (MMCL resizes its strips to a square in the same way).
    """
    from PIL import Image as Pil

    height = images[0].height
    parts = [_to_height(part.convert("RGB"), height) for part in images]
    glued = Pil.new("RGB", (sum(part.width for part in parts), height))
    left = 0
    for part in parts:
        glued.paste(part, (left, 0))
        left += part.width
    return glued.resize(size, Pil.Resampling.BICUBIC) if size else glued


def _to_height(image: Image, height: int) -> Image:
    if image.height == height:
        return image
    return image.resize((max(1, round(image.width * height / image.height)), height))
