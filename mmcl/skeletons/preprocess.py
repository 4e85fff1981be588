"""From raw joints to what an encoder sees. This module is *the* definition: training, evaluation and bundles call it.

Order: which joints are there, persons cut or padded, gaps in time filled, smoothed, layout converted, window cut,
centred, augmented (training only), scaled, streams.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from mmcl.common.draws import uniform
from mmcl.skeletons.convert import conversion_matrix, convert
from mmcl.skeletons.layout import Layout
from mmcl.skeletons.masks import Skeletons, fill_gaps, present, seen_span, show_bodies
from mmcl.skeletons.placing import centre, clip_origin, fill_box
from mmcl.skeletons.preprocess_options import PreprocessOptions
from mmcl.skeletons.smoothing import smooth
from mmcl.skeletons.streams import ancestors, channels, to_stream
from mmcl.skeletons.window import evaluated_span, frame_times, look

if TYPE_CHECKING:  # a prediction augments nothing, and need not wait for it
    from mmcl.skeletons.augmentations.combined import Augmentation

WITH_CONFIDENCE = 4  # numbers of a raw joint: x, y, z, confidence


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
