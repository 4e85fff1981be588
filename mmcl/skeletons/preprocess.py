"""From raw joints to what an encoder sees. This module is *the* definition: training, evaluation and bundles call it.

Order: persons cut or padded, layout converted, centred, window cut and resized, augmented (training only), scaled,
stream.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from mmcl.common.errors import UserError
from mmcl.skeletons.augment import Augmentation, augment, crop_span, time_positions
from mmcl.skeletons.convert import conversion_matrix, convert
from mmcl.skeletons.layout import Layout
from mmcl.skeletons.streams import stream_bones, to_stream
from mmcl.skeletons.window import central_span, centre, crop_resize, even_positions, fill_box, span

MOST_BODIES = 1 << 20  # that a clip may have, empty ones included


@dataclass(frozen=True)
class PreprocessOptions:
    """What is done to raw joints before the encoder.

    Attributes:
        stream: joint, bone, joint_motion, bone_motion, or k_bone (2_bone …).
        window: frames the encoder sees.
        centring: first_frame (first person's centre joint in the first frame), every_frame, or none.
        crop: central share of a clip that evaluation and inference use (CTR-GCN: 0.95).
        scaling: box stretches each clip to [-1, 1] along every axis (CTR-GCN on NW-UCLA); none leaves metres.
    """

    stream: str = "joint"
    window: int = 64
    centring: Literal["first_frame", "every_frame", "none"] = "first_frame"
    crop: float = 0.95
    scaling: Literal["none", "box"] = "none"


class Preprocess(nn.Module):
    """Raw joints (N, M, T, V, C) in the source layout -> encoder input (N, persons, window, V', C).

    Args:
        source: layout of the raw joints.
        target: layout the encoder was built for.
        persons: bodies the encoder takes, empty ones last; more are cut off, fewer are filled with zeros.
        options: stream, window, centring, crop.
    """

    def __init__(self, source: Layout, target: Layout, persons: int, options: PreprocessOptions) -> None:
        super().__init__()
        if options.window < 2 or not 0.0 < options.crop <= 1.0:
            raise UserError(f"window must be at least 2 and crop in (0, 1]: got {options.window} and {options.crop}")
        self.source, self.target, self.persons, self.options = source, target, persons, options
        self.dtype = torch.float32  # of what it gives; float64 where tests compare exactly
        same = source.joints == target.joints
        self.matrix: Tensor | None
        self.bones: Tensor | None
        self.register_buffer("matrix", None if same else conversion_matrix(source, target), persistent=False)
        self.register_buffer("bones", stream_bones(target, options.stream), persistent=False)

    def forward(
        self,
        joints: Tensor,
        lengths: Tensor | None = None,
        keys: Tensor | None = None,
        augmentation: Augmentation | None = None,
    ) -> Tensor:
        """Preprocess a batch.

        Args:
            joints: (N, M, T, V, C) raw joints of any float type, metres, padded at the end to the longest clip.
            lengths: (N,) real frames of each clip; None where all have T.
            keys: (N,) of the clips, from :func:`mmcl.common.draws.clip_keys`; with ``augmentation`` this is the
                training path.
            augmentation: None for evaluation and inference.
        """
        x = self.fit_persons(joints.to(self.dtype))
        if lengths is None:
            lengths = torch.full((x.shape[0],), x.shape[2], device=x.device)
        if self.matrix is not None:
            x = convert(x, self.matrix)
        x = centre(x, self.target.centre, self.options.centring)
        if augmentation is None or keys is None:
            start, frames = central_span(lengths, self.options.crop)
            x = crop_resize(x, start, frames, even_positions(self.options.window, x))
        else:
            start, frames = span(lengths, *crop_span(keys, augmentation), floor=augmentation.crop_floor)
            window = self.options.window
            positions = time_positions(keys, window) if augmentation.uneven else even_positions(window, x)
            x = augment(crop_resize(x, start, frames, positions), keys, augmentation, self.target)
        if self.options.scaling == "box":
            x = fill_box(x)
        return to_stream(x, self.options.stream, self.bones)

    def fit_persons(self, x: Tensor) -> Tensor:
        """Cut (N, M, T, V, C) to the encoder's number of persons, or fill it up with zeros.

        Bodies that are there come first, in the order given: trackers leave slots of people who have gone empty.
        """
        bodies = x.shape[1]
        if bodies > 1:
            absent = (x == 0).flatten(2).all(dim=2)
            places = torch.arange(bodies, device=x.device) + absent * MOST_BODIES
            order = places.argsort(dim=1)[:, : self.persons]
            x = x[torch.arange(x.shape[0], device=x.device)[:, None], order]
        if bodies >= self.persons:
            return x
        return torch.cat([x, x.new_zeros(x.shape[0], self.persons - bodies, *x.shape[2:])], dim=1)
