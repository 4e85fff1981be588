"""Compares a network with the scores that were recorded when it was saved: it must still be what was trained."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from mmcl.common.errors import UserError
from mmcl.encoders.base import Encoder
from mmcl.models.bundle import read_tensors
from mmcl.models.run_checkpoints import PROBE, RUN_MODEL
from mmcl.skeletons.preprocess import Preprocess

TOLERANCE = 1e-4  # relative, of the probe's scores: another machine's rounding, and never another network


def check_probe(encoder: Encoder, preprocess: Preprocess, checkpoint: Path) -> None:
    """Whether a network gives the scores that were recorded with its checkpoint: one forward pass of a few clips.

    Weights that fit are not enough: a description that was edited, or code that changed since, makes another network of
    them.

    Args:
        encoder: filled, in evaluation mode, on the CPU, as it was when the scores were recorded.
        preprocess: from the joints of the run's store.
        checkpoint: folder of the checkpoint.

    Raises:
        UserError: it gives others, or the record is damaged.
    """
    probe = read_tensors(checkpoint / PROBE)
    if missing := {"joints", "lengths", "scores"} - probe.keys():
        raise UserError(f"{checkpoint / PROBE} is damaged: it lacks {', '.join(sorted(missing))}")
    joints, lengths, expected = probe["joints"], probe["lengths"], probe["scores"].float()
    if not _are_clips(joints, lengths):
        raise UserError(f"{checkpoint / PROBE} is damaged: it holds no clips with their lengths")
    words = "the joints recorded with it are others"
    if joints.shape[3] == preprocess.source.joint_count:
        with torch.no_grad():
            found = preprocess.averaged(encoder, joints, lengths)
        scale = max(1.0, float(expected.nan_to_num().abs().amax())) if expected.numel() else 1.0
        if found.shape == expected.shape and torch.allclose(found, expected, rtol=0, atol=TOLERANCE * scale):
            return
        words = "the scores recorded with it differ"
        if found.shape == expected.shape:
            words += f" by {float((found - expected).abs().max()):.1g}"
    raise UserError(
        f"{checkpoint}: the network is not what it was when it was trained ({words}): {RUN_MODEL} or mmcl has changed "
        "since; put it back"
    )


def _are_clips(joints: Tensor, lengths: Tensor) -> bool:
    """Whether tensors of a stranger are clips (N, M, T, V, C) and whole numbers (N,)."""
    clips = joints.dim() == 5 and joints.numel() > 0 and joints.is_floating_point() and 2 <= joints.shape[4] <= 4
    whole = not (lengths.is_floating_point() or lengths.is_complex())
    return clips and whole and lengths.shape == (len(joints),)
