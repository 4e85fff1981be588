"""Preprocessing for streams: what :mod:`mmcl.skeletons.preprocess` makes of a clip, frame by frame."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from mmcl.common.errors import UserError
from mmcl.skeletons.convert import convert
from mmcl.skeletons.masks import Skeletons, present
from mmcl.skeletons.placing import centre, clip_origin
from mmcl.skeletons.preprocess import WITH_CONFIDENCE, Preprocess
from mmcl.skeletons.preprocess_options import PreprocessOptions
from mmcl.skeletons.streams import to_stream

MEAN = 0.5  # how well an origin is known that is the mean of some joints


def not_of_a_stream(options: PreprocessOptions) -> list[str]:
    """What of the preprocessing asks for frames that a stream has not seen or does not keep, as words to change it."""
    moving = [stream for stream in options.streams if "motion" in stream]
    demands = [
        ("timing=pad", options.timing == "pad"), ("crop=1", options.crop == 1), ("views=1", options.views == 1),
        ("centring=every_frame", options.centring in ("every_frame", "none")), ("gaps=zero", options.gaps == "zero"),
        ("scaling=none", options.scaling == "none"), ("smoothing=0", options.smoothing == 0),
        (f"streams without {', '.join(moving)}", not moving),
    ]  # fmt: skip
    return [words for words, good in demands if not good]


class FramePreprocess(nn.Module):
    """Raw joints (B, T, V, C) of the next frames -> encoder input (B, T, V', channels), as for a whole clip.

    Row b is the body of slot b, and stays it: whoever calls this keeps people apart. What is kept from frame to frame
    is the origin for frames in which the first body's centre joint is missing: where it was seen first, and until then
    the mean of the joints of the first frames that show that body. A clip whose centre joint is never seen has the mean
    of all its frames there, which a stream cannot know.

    Args:
        whole: the same for clips.

    Raises:
        UserError: it needs frames that a stream has not seen, see :func:`not_of_a_stream`.
    """

    def __init__(self, whole: Preprocess) -> None:
        super().__init__()
        if wrong := not_of_a_stream(whole.options):
            raise UserError(f"a stream cannot be preprocessed so: train with preprocess {', '.join(wrong)}")
        self.whole = whole

    def begin(self) -> Tensor:
        """What is kept before the first frame, (C + 1,): the origin, and 0; 0.5 once it is a mean, 1 once seen."""
        return self.whole.centre.new_zeros(self.whole.dimensions + 1, dtype=self.whole.dtype)

    def forward(self, joints: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
        """Frames of bodies, and what is kept of the frames before -> encoder input, and what is kept now."""
        whole, width = self.whole, self.whole.dimensions
        joints, confidence = joints[:, None].to(whole.dtype), None  # every body as a clip of its own: none moves up
        if joints.shape[-1] == WITH_CONFIDENCE:
            joints, confidence = joints[..., :3], joints[..., 3]
        if joints.shape[-1] != width:
            joints = pad(joints, (0, width - joints.shape[-1]))
        x, mask = present(joints, whole.centre, 1, None, confidence)
        if whole.matrix is not None:
            x, mask = convert(x, mask, whole.matrix, width)
        x, mask = x.transpose(0, 1), mask.transpose(0, 1)
        middle = whole.target.centre
        level, seen = kept[width:], mask[0, 0, :, middle].any()
        settled = (level > MEAN) | ((level > 0) & ~seen)
        origin = torch.where(settled, kept[:width], clip_origin(x[:, :, :width], mask, middle)[0, 0, :, 0, 0])
        placed = centre(x[:, :, :width], mask, origin[None, None, :, None, None], middle, whole.options.centring)
        clips = Skeletons(placed, mask, x[:, :, width] if x.shape[2] > width else None)
        streams = [to_stream(clips, stream, getattr(whole, f"ends_{stream}")) for stream in whole.options.streams]
        level = torch.maximum(level, torch.maximum(MEAN * mask[0, 0].any().to(level), seen.to(level)))
        return torch.cat(streams, dim=2).movedim(2, 4)[0].contiguous(), torch.cat([origin, level.to(origin)])
