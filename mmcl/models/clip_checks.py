"""Refuses clips that a model cannot say anything about, and answers that are no numbers."""

from __future__ import annotations

import torch
from torch import Tensor

from mmcl.common.errors import UserError
from mmcl.skeletons.layout import Layout


def check_finite(found: Tensor) -> None:
    """Refuse scores or features (N, K) that are no numbers: from finite weights, too, they can come.

    Raises:
        UserError: some are not finite.
    """
    if not bool(found.isfinite().all()):
        wrong = int((~found.isfinite()).any(dim=1).sum())
        raise UserError(
            f"what the model says of {wrong} of {len(found)} clips is not finite: its weights are damaged, or the "
            "coordinates are far too large"
        )


def check_clips(joints: Tensor, lengths: Tensor | None, layout: Layout) -> None:
    """Refuse clips that a model cannot say anything about; only the shape is looked at while a graph is traced.

    Args:
        joints: (N, M, T, V, C), missing joints zero or NaN.
        lengths: (N,), or None.
        layout: of the joints.

    Raises:
        UserError: another shape, no frame, nobody in a clip, infinite coordinates, or lengths that do not fit.
    """
    if not isinstance(joints, Tensor):
        raise UserError(f"joints must be a tensor, not {type(joints).__name__}: model(torch.as_tensor(joints))")
    if joints.dtype is torch.bool or joints.is_complex():
        raise UserError(f"joints must be numbers, not {joints.dtype}: joints.float()")
    if joints.dim() != 5 or joints.shape[3] != layout.joint_count or joints.shape[4] not in (2, 3, 4):
        raise UserError(
            f"this model takes joints (clips, persons, frames, {layout.joint_count}, 3) of layout '{layout.name}', not "
            f"{tuple(joints.shape)}; another layout can be named when loading"
        )
    if torch.compiler.is_compiling():
        return
    if joints.is_meta or joints.layout is not torch.strided:
        raise UserError("joints must be a dense tensor that holds its numbers, not a sparse or meta one")
    clips, persons, frames = joints.shape[:3]
    if not persons or not frames:
        raise UserError(f"clips of {persons} persons and {frames} frames: there is nothing to look at")
    if lengths is not None:
        if not isinstance(lengths, Tensor):
            raise UserError(f"lengths must be a tensor, not {type(lengths).__name__}: torch.as_tensor(lengths)")
        if lengths.shape != (clips,) or lengths.is_floating_point() or lengths.is_complex():
            raise UserError(f"lengths must be whole numbers ({clips},), not {lengths.dtype} {tuple(lengths.shape)}")
        if clips and not (int(lengths.min()) >= 1 and int(lengths.max()) <= frames):
            wrong = int(((lengths < 1) | (lengths > frames)).nonzero()[0])
            raise UserError(f"clip {wrong} has the length {int(lengths[wrong])}: it must be from 1 to {frames}")
    largest = joints.detach().float().nan_to_num(nan=0.0, posinf=torch.inf, neginf=-torch.inf).abs().flatten(1)
    sizes = largest.amax(dim=1) if clips else largest.sum(dim=1)
    good = (sizes > 0) & (sizes < torch.inf)
    if not bool(good.all()):
        wrong = int((~good).nonzero()[0])
        what = "infinite coordinates" if bool(sizes[wrong] > 0) else "nobody in it: every joint is missing"
        raise UserError(f"clip {wrong} of {clips} has {what}")
