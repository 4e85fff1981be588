"""From raw joints to what an encoder sees. This module is *the* definition: training, evaluation and bundles call it.

Order: which joints are there, persons cut or padded, gaps in time filled, smoothed, layout converted, window cut,
centred, augmented (training only), scaled, streams.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from mmcl.common.draws import uniform
from mmcl.common.errors import UserError
from mmcl.common.options import fill
from mmcl.skeletons.convert import conversion_matrix, convert
from mmcl.skeletons.layout import Layout
from mmcl.skeletons.masks import Skeletons, fill_gaps, present, seen_span, show_bodies
from mmcl.skeletons.placing import Centring, centre, clip_origin, fill_box
from mmcl.skeletons.smoothing import smooth
from mmcl.skeletons.streams import ancestors, channels, check_stream, to_stream
from mmcl.skeletons.window import Timing, evaluated_span, frame_times, look

if TYPE_CHECKING:  # a prediction augments nothing, and need not wait for it
    from mmcl.skeletons.augmentations.combined import Augmentation

Scaling = Literal["none", "box"]
Gaps = Literal["interpolate", "zero"]
MOST_FRAMES = 10_000
WITH_CONFIDENCE = 4  # numbers of a raw joint: x, y, z, confidence
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


class Preprocess(nn.Module):
    """Raw joints (N, M, T, V, C) in the source layout -> encoder input (N, persons, window, V', channels).

    Args:
        source: layout of the raw joints.
        target: layout the encoder was built for.
        persons: bodies the encoder takes, empty ones last; more are cut off, fewer are filled with zeros.
        options: streams, window, centring, crop …

    Attributes:
        options: the same, dimensions given.
        dimensions: coordinates of a joint that the encoder sees.
        columns: C of raw joints that say all that it can use, 3 or 4; it takes any.
        channels: C of what it gives, all streams together.
    """

    def __init__(self, source: Layout, target: Layout, persons: int, options: PreprocessOptions) -> None:
        super().__init__()
        self.source, self.target, self.persons = source, target, persons
        self.dtype = torch.float32  # of what it gives; float64 where tests compare exactly
        self.dimensions = options.dimensions or 3
        self.options = replace(options, dimensions=self.dimensions)
        self.columns = WITH_CONFIDENCE if "confidence" in options.streams else 3
        self.channels = channels(options.streams, self.dimensions)
        same = source.joints == target.joints
        self.matrix: Tensor | None
        self.register_buffer("matrix", None if same else conversion_matrix(source, target), persistent=False)
        is_centre = torch.arange(source.joint_count) == source.centre
        self.centre: Tensor
        self.register_buffer("centre", is_centre, persistent=False)
        for stream in options.streams:
            self.register_buffer(f"ends_{stream}", ancestors(target, stream), persistent=False)

    def forward(
        self, joints: Tensor, lengths: Tensor | None = None, keys: Tensor | None = None,
        augmentation: Augmentation | None = None, view: int = 0, crop_keys: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Encoder input (N, persons, window, V', channels) alone; everything else as in :meth:`masked`."""
        return self.masked(joints, lengths, keys, augmentation, view, crop_keys)[0]

    def masked(
        self, joints: Tensor, lengths: Tensor | None = None, keys: Tensor | None = None,
        augmentation: Augmentation | None = None, view: int = 0, crop_keys: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Preprocess a batch.

        A body that is absent is all zeros in what comes out, and no other body is.

        Args:
            joints: (N, M, T, V, C) raw joints of any float type, metres, padded at the end to the longest clip. C is
                2, 3, or 4: x, y, z (0 in a plane) and the confidence of a pose estimator, from 0 to 1. A joint is
                missing where :func:`mmcl.skeletons.masks.present` says so.
            lengths: (N,) real frames of each clip; None where all have T. Empty frames at either end do not count.
            keys: (N,) of the clips, from :func:`mmcl.common.draws.clip_keys`; with ``augmentation`` this is the
                training path.
            augmentation: None for evaluation and inference.
            view: which of the ``views`` of evaluation, from 0.
            crop_keys: (N,) by which an augmentation chooses what of a clip is looked at; None: by ``keys``.

        Returns:
            encoder input (N, persons, window, V', channels) and (N, persons, window, V') bool, which joints are there.
        """
        joints, confidence = joints.to(self.dtype), None
        if joints.shape[-1] == WITH_CONFIDENCE:
            joints, confidence = joints[..., :3], joints[..., 3]
        if joints.shape[-1] != self.dimensions:  # cut off, or filled up with zeros
            joints = pad(joints, (0, self.dimensions - joints.shape[-1]))
        x, mask = present(joints, self.centre, self.persons, lengths, confidence)
        if self.options.gaps == "interpolate":
            x, mask = fill_gaps(x, mask)
        if self.options.smoothing:
            x = smooth(x, mask, self.options.smoothing)
        if self.matrix is not None:
            x, mask = convert(x, mask, self.matrix, self.dimensions)
        origin = clip_origin(x[:, :, : self.dimensions], mask, self.target.centre)
        clips = self._window(x, mask, keys if crop_keys is None else crop_keys, augmentation, view)
        placed = centre(clips.joints, clips.mask, origin, self.target.centre, self.options.centring)
        clips = clips._replace(joints=placed)
        if augmentation is not None and keys is not None:
            clips = augmentation.apply(keys, clips, self.target)
        if self.options.scaling == "box":
            clips = clips._replace(joints=fill_box(clips.joints, clips.mask))
        streams = [to_stream(clips, stream, getattr(self, f"ends_{stream}")) for stream in self.options.streams]
        x = streams[0] if len(streams) == 1 else torch.cat(streams, dim=2)
        return show_bodies(x, clips.mask).movedim(2, 4).contiguous(), clips.mask

    def averaged(self, network: Callable[[Tensor], Tensor], joints: Tensor, lengths: Tensor | None = None) -> Tensor:
        """What a network says of raw clips, averaged over the ``views`` of each; arguments as in :meth:`masked`."""
        found = [network(self(joints, lengths, view=view)) for view in range(self.options.views)]
        return found[0] if len(found) == 1 else torch.stack(found).mean(dim=0)

    def _window(
        self, x: Tensor, mask: Tensor, keys: Tensor | None, augmentation: Augmentation | None, view: int
    ) -> Skeletons:  # fmt: skip
        """Each clip at ``window`` times."""
        options = self.options
        if not 0 <= view < options.views:
            raise ValueError(f"view {view} of {options.views}")
        first, frames = seen_span(mask)
        offsets: Tensor | float = (view + 0.5) / options.views
        if augmentation is None or keys is None:
            span = evaluated_span(frames, options.crop, view, options.views)
        else:
            span = augmentation.when(keys, frames, options.window)
            if options.timing == "segments":
                offsets = uniform(keys, "segments", (options.window,))
        times, inside = frame_times(span.frames, options.window, options.timing, span.positions, offsets)
        x, mask = look(x, mask, first + span.start, times)
        if inside is not None:
            mask = mask & inside[:, None, :, None]
            x = torch.where(mask[:, :, None], x, 0)
        width = self.dimensions
        return Skeletons(x[:, :, :width], mask, x[:, :, width] if x.shape[2] > width else None)
