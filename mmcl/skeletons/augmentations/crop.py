"""Looks at a random part of a clip in time, before the window is cut."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from mmcl.common.errors import UserError
from mmcl.skeletons.layout import Layout
from mmcl.skeletons.transform import Transform
from mmcl.skeletons.window import Span, Timing, crop_span


@dataclass(frozen=True)
class Crop(Transform):
    """A random part of the clip in time.

    Attributes:
        crop_min: shortest share of a clip that the temporal crop keeps.
        crop_max: longest share.
        crop_floor: shortest crop in frames, where the clip has as many.
        uneven: sample the crop at random times (in order) instead of evenly spaced ones, as CTR-GCN does on NW-UCLA.
    """

    crop_min: float = 0.5
    crop_max: float = 1.0
    crop_floor: int = 64
    uneven: bool = False

    name = "crop"
    example = {"crop_min": 0.3, "crop_max": 0.5, "crop_floor": 1, "uneven": True}

    def __post_init__(self) -> None:
        self.require("crop_min", 0 < self.crop_min <= self.crop_max <= 1, "in (0, crop_max], and crop_max at most 1")
        self.require("crop_floor", self.crop_floor >= 1, "at least 1")

    def check(self, layout: Layout, timing: Timing) -> None:
        """Random times between frames need a clip that is resized."""
        if self.uneven and timing != "resize":
            raise UserError(f"augmentation.uneven is true, which goes with preprocess.timing resize, not {timing}")

    def when(self, keys: Tensor, span: Span, window: int) -> Span:
        """A part of random length at a random place."""
        share, position = self.uniform(keys, (2,)).unbind(1)
        ratio = self.crop_min + share.double() * (self.crop_max - self.crop_min)  # as the feeders compute it
        start, frames, _ = crop_span(span.frames, ratio, position, self.crop_floor)
        return Span(span.start + start, frames, self.times(keys, window) if self.uneven else None)

    def times(self, keys: Tensor, window: int) -> Tensor:
        """(N, window) ascending random numbers in [0, 1)."""
        return self.uniform(keys, (2 + window,))[:, 2:].sort(dim=1).values
