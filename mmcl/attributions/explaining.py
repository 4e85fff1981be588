"""Why did a model answer so? Clips in, shares of the answer's score out, with what stands for "nothing" chosen.

``found = explain(model, joints)`` asks for the shares of each clip's own answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from mmcl.attributions.base import Attributed, build_attribution
from mmcl.attributions.view import Watched
from mmcl.common.errors import UserError
from mmcl.models.folder import SavedModel
from mmcl.models.model import Model
from mmcl.skeletons.masks import present
from mmcl.skeletons.preprocess import Preprocess

Clips = tuple[Tensor, Tensor | None]  # (N, M, T, V, C) and the real frames (N,) of each, or None where all have T


def explain(
    model: Model, joints: Tensor, lengths: Tensor | None = None, method: str = "deep_lift",
    options: Mapping[str, Any] | None = None, target: Tensor | None = None, background: Clips | None = None,
    rows: int = 64, watched: Watched = iter,
) -> Attributed:  # fmt: skip
    """Share the score of a class among the joints of each clip.

    Args:
        model: what answers.
        joints: (N, M, T, V, C) clips in the model's layout, metres, missing joints zero or NaN.
        lengths: (N,) real frames of each clip, or None where all have T.
        method: a name in ``ATTRIBUTIONS``.
        options: of the method; ``{"over": "frames"}`` tells frames apart where it can.
        target: (N,) classes; the model's own answers where not given.
        background: clips that stand for "nothing in particular", with their lengths. Where not given, each clip is
            compared with its own mean pose held still: the shares then say what the joints' motion adds.
        rows: clips at once in a forward and backward pass; four times as many in a forward pass alone.
        watched: what the batches of the longest loop go through, ``tqdm.tqdm`` for instance.

    Returns:
        Values (N, W, V) or (N, V) for joints of the encoder's layout, ``model.preprocess.target``.

    Raises:
        UserError: unknown method, or shapes that do not go together.
    """
    attribution = build_attribution(method, options)
    joints = joints.nan_to_num(0.0)
    target = model(joints, lengths).argmax(dim=1) if target is None else target
    if background is not None:
        return attribution.run(model, joints, lengths, target, *_named(background), rows=rows, watched=watched)
    found = []
    for clip in range(len(joints)):
        one, own = joints[clip : clip + 1], None if lengths is None else lengths[clip : clip + 1]
        still = held_still(one, own, model.layout.centre)
        found.append(attribution.run(model, one, own, target[clip : clip + 1], still, own, rows, watched))
    return joined(found)


def _named(background: Clips) -> tuple[Tensor, Tensor | None]:
    return background[0].nan_to_num(0.0), background[1]


def joined(found: Sequence[Attributed]) -> Attributed:
    """What was found of several clips, as one."""
    names = ("values", "scores", "baseline", "target")
    return Attributed(*(torch.cat([getattr(each, name) for each in found]) for name in names))


def held_still(joints: Tensor, lengths: Tensor | None, centre: int) -> Tensor:
    """Each clip with every joint at its mean place over the frames that show it; missing joints stay missing.

    Bodies that are there come first, each with its own confidences, which stay as they are.
    """
    is_centre = torch.arange(joints.shape[3], device=joints.device) == centre
    confidence = joints[..., 3] if joints.shape[-1] > 3 else None
    found, mask = present(joints[..., :3], is_centre, joints.shape[1], lengths, confidence)
    x, others = found[:, :, :3], found[:, :, 3:]
    mean = x.sum(dim=3, keepdim=True) / mask.sum(dim=2, keepdim=True).clamp(min=1)[:, :, None]
    still = torch.where(mask[:, :, None], mean, 0)
    return torch.cat([still, others], dim=2).movedim(2, 4).contiguous()


def shown_skeleton(model: Model, joints: Tensor, lengths: Tensor | None) -> Tensor:
    """(N, M, W, V, 3) the joints that shares belong to, for pictures: not centred nor scaled, NaN where missing."""
    own = model.preprocess
    options = replace(own.options, streams=("joint",), centring="none", scaling="none", views=1, dimensions=3)
    plain = Preprocess(own.source, own.target, own.persons, options).to(joints.device)
    x, mask = plain.masked(joints, lengths)
    return torch.where(mask[..., None], x, torch.nan)


def class_number(model: Model, name: str, numbers: bool = True) -> int:
    """The class of a name, or of a number; the name of a clip's label is no number (``numbers=False``).

    Raises:
        UserError: the model does not know it.
    """
    names = model.class_names
    if name in names:
        return names.index(name)
    if numbers and name.isdecimal() and int(name) < len(names):
        return int(name)
    raise UserError(f"the model has no class '{name:.60}': it knows {', '.join(names[:5])}{' …' if names[5:] else ''}")


def loudest(values: Tensor, count: int) -> list[int]:
    """Of one clip the joints (V,) that speak most for the class, in their order; none that speaks against it."""
    order = values.argsort(descending=True, stable=True)[:count].tolist()
    return [joint for joint in order if float(values[joint]) > 0]


def require_weights(saved: SavedModel) -> None:
    """Refuse a bundle that holds graphs alone.

    Raises:
        UserError: it does.
    """
    if saved.graphs_only:
        raise UserError(
            f"{saved.path} holds ONNX graphs alone, which cannot be looked into: an answer is explained "
            "by a bundle with weights (`mmcl export` without --drop-weights)"
        )
