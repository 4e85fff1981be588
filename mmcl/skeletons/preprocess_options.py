"""Holds what may be chosen about preprocessing, and refuses what cannot be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from mmcl.common.errors import UserError
from mmcl.common.options import fill
from mmcl.skeletons.placing import Centring
from mmcl.skeletons.streams import check_stream
from mmcl.skeletons.window import Timing

Scaling = Literal["none", "box"]
Gaps = Literal["interpolate", "zero"]
MOST_FRAMES = 10_000
MOST_VIEWS = 100
MOST_SMOOTHING = 50


@dataclass(frozen=True)
class PreprocessOptions:
    """What is done to raw joints before the encoder.

    Attributes:
        streams: one or more of joint, bone, joint_motion, bone_motion, k_bone (2_bone …), confidence; the encoder gets
            them side by side, as channels.
        window: frames the encoder sees.
        timing: resize stretches or shrinks each clip to the window; pad takes its frames one by one, puts zeros behind
            the last, and resizes what is longer; segments takes one frame of each of so many equal parts, a random one
            in training and the middle one in evaluation.
        views: of each clip in evaluation, whose scores are averaged: other crops, or of segments other frames.
        centring: first_frame (first person's centre joint in the first frame), every_frame, or none.
        crop: central share of a clip that evaluation and inference use (CTR-GCN: 0.95).
        scaling: box stretches each clip to [-1, 1] along every axis (CTR-GCN on NW-UCLA); none leaves metres.
        gaps: interpolate fills what a joint misses from the frames around; zero leaves it at zero, as most published
            preparations do.
        dimensions: coordinates of a joint that the encoder sees, 2 or 3; those of the data where not given.
        smoothing: deviation, in frames of the recording, of a Gaussian mean over time; 0 for none. A defence against
            changes that are faster than a body moves.
    """

    streams: tuple[str, ...] = ("joint",)
    window: int = 64
    timing: Timing = "resize"
    views: int = 1
    centring: Centring = "first_frame"
    crop: float = 0.95
    scaling: Scaling = "none"
    gaps: Gaps = "interpolate"
    dimensions: int | None = None
    smoothing: float = 0.0

    def __post_init__(self) -> None:
        if isinstance(self.streams, list):  # as JSON and YAML have it
            object.__setattr__(self, "streams", tuple(self.streams))
        for key, good, wanted in self._demands():
            if not good:
                raise UserError(f"preprocess.{key} is {getattr(self, key)!r}: it must be {wanted}")
        for stream in self.streams:
            check_stream(stream)

    def _demands(self) -> Iterator[tuple[str, bool, str]]:
        """What every value must be: its key, whether it is so, and that in words."""
        streams, window, views, crop = self.streams, self.window, self.views, self.crop
        single = type(streams) is tuple and 0 < len(streams) == len(set(streams))
        yield "streams", single, "a list of different streams, [joint] for instance"
        yield "window", type(window) is int and 2 <= window <= MOST_FRAMES, f"from 2 to {MOST_FRAMES} frames"
        yield "crop", type(crop) in (int, float) and 0 < crop <= 1, "in (0, 1]"
        yield "views", type(views) is int and 1 <= views <= MOST_VIEWS, f"from 1 to {MOST_VIEWS}"
        apart = views == 1 or self.timing == "segments" or crop < 1
        yield "views", apart, "1 where crop is 1 and timing is not segments: all views would be the same"
        smoothing = self.smoothing
        yield "smoothing", type(smoothing) in (int, float) and 0 <= smoothing <= MOST_SMOOTHING, "from 0 to 50 frames"
        yield "dimensions", self.dimensions is None or self.dimensions in (2, 3), "2 or 3"
        for key, kind in {"timing": Timing, "centring": Centring, "scaling": Scaling, "gaps": Gaps}.items():
            yield key, getattr(self, key) in get_args(kind), f"one of {', '.join(get_args(kind))}"

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any], where: str = "preprocess") -> PreprocessOptions:
        """Options as a description of a model holds them; keys that are missing keep their defaults.

        Raises:
            UserError: an unknown key, or a value that is none.
        """
        if unknown := sorted(str(key) for key in facts.keys() - {field.name for field in fields(cls)}):
            raise UserError(f"{where} has no option {', '.join(unknown)}")
        try:
            found: PreprocessOptions = fill("preprocess", facts, cls)
        except UserError as error:
            raise UserError(f"{where.removesuffix(' preprocess')}: {error}") from error
        return found
