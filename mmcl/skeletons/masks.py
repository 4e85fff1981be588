"""Which joints of a clip are there. The mask is made once, from raw joints, and goes along with them from then on.

In between the borders of this package, where clips are (N, M, T, V, C), coordinates stand before frames: joints ``x``
(N, M, C, T, V) go together with ``mask`` (N, M, T, V), so that a mask is applied to whole planes. ``x`` is zero where
``mask`` is False. The mask is never made again from zeros: a joint that is there may come to lie at the origin, as the
centre joint does when it has been subtracted.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

MOST_BODIES = 1 << 20  # that a clip may have, empty ones included
SPECK = 1e-5  # metres: what a body that is there shows where its input would be all zeros


class Skeletons(NamedTuple):
    """A batch of clips on its way to the encoder.

    Attributes:
        joints: (N, M, C, T, V), zero where a joint is missing.
        mask: (N, M, T, V) bool, which joints are there.
        confidence: (N, M, T, V) how sure a pose estimator was; None where nobody asked.
    """

    joints: Tensor
    mask: Tensor
    confidence: Tensor | None = None


def nowhere(condition: Tensor) -> bool:
    """Whether a step can be left out, since its condition holds nowhere.

    Looking costs less than most steps on a CPU; on a GPU it would wait for all that is queued, and a graph that is
    being traced has no values. There the answer is False, and the step changes nothing.
    """
    return condition.device.type == "cpu" and not torch.compiler.is_compiling() and not bool(condition.any())


def present(
    joints: Tensor, centre: Tensor, persons: int, lengths: Tensor | None = None, confidence: Tensor | None = None
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Find out which raw joints are there, set the others to zero, and take a number of bodies.

    A joint is missing where all its coordinates are zero, where one is not finite, behind a clip's end, and where its
    confidence is not positive. There is one exception: in a clip that was centred before, the centre joint lies at the
    origin and the body around it, on either side along every axis. No body lies around its own sensor, so that this
    centre joint is there.

    Bodies that are there come first, in the order given: trackers leave slots of people who have gone empty.

    Args:
        joints: (N, M, T, V, C) raw.
        centre: (V,) bool, True at the layout's centre joint.
        persons: how many bodies are taken; empty ones fill up.
        lengths: (N,) real frames of each clip; None where all have T.
        confidence: (N, M, T, V) or None.

    Returns:
        joints (N, persons, C, T, V), confidence behind the coordinates where it is given, and mask (N, persons, T, V).
    """
    x = joints.movedim(4, 2).contiguous()
    size = x.abs().sum(dim=2)  # not a number where a coordinate is none, so that it compares false
    mask, zero = (size > 0) & (size < torch.inf), size == 0
    if confidence is not None:
        mask = mask & (confidence > 0)
        x = torch.cat([x, confidence.to(x)[:, :, None]], dim=2)
    if lengths is not None:
        time = torch.arange(x.shape[3], device=x.device)
        mask = mask & (time < lengths[:, None])[:, None, :, None]
    mask, x, zero = _fit(persons, mask, x, zero)
    x = torch.where(mask[:, :, None], x, 0)
    at_origin = centre & zero & mask.any(dim=3, keepdim=True)
    if joints.shape[-1] == 3 and not nowhere(at_origin):
        axes = x[:, :, :3]
        around = ((axes > 0).any(dim=-1) & (axes < 0).any(dim=-1)).all(dim=2)
        mask = mask | (at_origin & around[..., None])
    return x, mask


def _fit(persons: int, mask: Tensor, *others: Tensor) -> list[Tensor]:
    """The bodies that are taken: of the mask (N, M, T, V), and of everything else that begins with (N, M)."""
    clips, bodies = mask.shape[:2]
    tensors = [mask, *others]
    if bodies > 1:
        absent = ~mask.flatten(2).any(dim=2)
        places = torch.arange(bodies, device=mask.device) + absent * MOST_BODIES
        order = places.argsort(dim=1)[:, :persons]
        rows = torch.arange(clips, device=mask.device)[:, None]
        tensors = [each[rows, order] for each in tensors]
    if bodies < persons:
        empty = (clips, persons - bodies)
        tensors = [torch.cat([each, each.new_zeros(*empty, *each.shape[2:])], dim=1) for each in tensors]
    return tensors


def fill_gaps(x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Fill what is missing for a while from the frames around it.

    Between the first and the last frame in which a body is seen, each of its joints is interpolated linearly between
    the two frames nearest in time that show it. Before its first and behind its last it stays where it was seen: zero
    would move it to the body's centre. Joints that are never seen, and frames before and behind the body's, stay
    missing.

    Args:
        x: (N, M, C, T, V) joints, zero where missing.
        mask: (N, M, T, V) bool.

    Returns:
        Joints and mask of the same shapes.
    """
    body = mask.any(dim=3)
    shown = body.cumsum(dim=2)
    within = (shown > 0) & ((shown < shown[:, :, -1:]) | body)
    filled = within[..., None] & mask.any(dim=2, keepdim=True)
    if nowhere(filled & ~mask):
        return x, mask
    time = torch.arange(mask.shape[2], device=x.device)[:, None]
    seen = mask.cumsum(dim=2)
    count = seen[:, :, -1:]
    # frames[k] is the k-th frame that shows the joint; what is missing writes into one place behind all of them.
    place = torch.where(mask, seen - 1, mask.shape[2])
    frames = torch.zeros_like(place[:, :, :1]).expand(-1, -1, mask.shape[2] + 1, -1)
    frames = frames.scatter(2, place, time.expand_as(place))
    before = frames.gather(2, (seen - 1).clamp(min=0))
    after = frames.gather(2, torch.minimum(seen, count - 1).clamp(min=0))
    share = ((time - before) / (after - before).clamp(min=1)).clamp(0, 1).to(x.dtype)[:, :, None]
    a, b = (x.gather(3, each[:, :, None].expand_as(x)) for each in (before, after))
    return torch.where(filled[:, :, None], a + (b - a) * share, 0), filled


def seen_span(mask: Tensor) -> tuple[Tensor, Tensor]:
    """First frame that shows anybody and number of frames to the last one, both (N,); 0 and 1 where none does.

    Empty frames in front and behind are no part of an action.
    """
    frames = mask.shape[2]
    anybody = mask.any(dim=3).any(dim=1)
    time = torch.arange(frames, device=mask.device)
    first = torch.where(anybody, time, frames).amin(dim=1)
    last = torch.where(anybody, time, -1).amax(dim=1)
    return first.clamp(max=frames - 1), (last - first + 1).clamp(min=1)


def show_bodies(x: Tensor, mask: Tensor) -> Tensor:
    """Make sure that no body that is there is all zeros, since encoders take such a body for absent.

    A body that does not move has a motion stream of zeros, for example. Its joints are set to :data:`SPECK`.

    Args:
        x: (N, M, C, T, V) encoder input.
        mask: (N, M, T, V) bool.
    """
    hidden = (x.abs().flatten(2).amax(dim=2) == 0) & mask.flatten(2).any(dim=2)
    if nowhere(hidden):
        return x
    return torch.where((mask & hidden[:, :, None, None])[:, :, None], SPECK, x)
