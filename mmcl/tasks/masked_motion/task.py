"""Masked motion prediction (MAMP): most tokens are hidden, moving ones above all, and their motion is predicted.

The encoder sees the tokens that are kept and nothing else; a decoder that is thrown away afterwards predicts, from what
the encoder made of them, how the joints of the hidden tokens move. No label is used.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmcl.common.draws import named_seed, uniform
from mmcl.common.errors import UserError
from mmcl.common.precision import widen
from mmcl.encoders.bodies import present_bodies
from mmcl.encoders.building import encoder_name
from mmcl.encoders.mamp.patches import patchify
from mmcl.encoders.masking import kept_count, mask_by_score
from mmcl.encoders.tokens import TokenEncoder, whole_groups
from mmcl.tasks.base import Apply, Task
from mmcl.tasks.context import Context
from mmcl.tasks.levels import head_parameters
from mmcl.tasks.masked_motion.decoder import MotionDecoder
from mmcl.tasks.masked_motion.masks import mask_scores, masked_error, motion, motion_seen, normalise_patches
from mmcl.tasks.masked_motion.options import MaskedMotionOptions
from mmcl.tasks.nearest import NearestClip
from mmcl.tasks.stages import ParameterGroup, Stage


class MaskedMotion(Task):
    """The squared error of the motion that is predicted for masked tokens, averaged over a clip, then over clips.

    Every clip counts the same, however many persons are in it, so that the loss of a batch does not depend on how it
    is shared out over micro-batches and processes. Tokens of absent persons do not count, nor do those of joints that
    are missing in one of the token's frames.

    Args:
        context: its encoder must be a :class:`~mmcl.encoders.tokens.TokenEncoder`.
        options: see :class:`MaskedMotionOptions`.

    Raises:
        UserError: another encoder, options out of range, or a mask that leaves no token or hides none.
    """

    options = MaskedMotionOptions
    classifies = False
    encoder: Any  # both an Encoder and a TokenEncoder

    def __init__(self, context: Context, options: MaskedMotionOptions) -> None:
        super().__init__(context)
        options.check()
        self.settings, encoder = options, context.encoder
        if not isinstance(encoder, TokenEncoder):
            raise UserError(
                f"masked_motion needs an encoder that can encode a part of its tokens, and {encoder_name(encoder)} "
                "cannot: give --encoder.name=mamp"
            )
        self.frames, V = encoder.patch_frames, encoder.layout.joint_count
        window = context.preprocess.options.window
        patches = -(-window // self.frames)
        self.tokens = patches * V
        self.kept = kept_count(self.tokens, options.ratio, options.released)
        if not 0 < self.kept < self.tokens:
            raise UserError(f"task.ratio is {options.ratio}: of {self.tokens} tokens a body it keeps {self.kept}")
        if options.stride >= window:
            raise UserError(f"task.stride is {options.stride}: it must be less than preprocess.window ({window})")
        size, values = options.decoder, self.frames * context.preprocess.channels
        self.decoder = MotionDecoder(
            encoder.token_width, size.width, size.depth, size.heads, size.expansion, patches, V, values
        )
        self.nearest = NearestClip(context)

    @classmethod
    def tiny(cls, folder: Path) -> dict[str, Any]:
        """A decoder of one block behind the tiny MAMP."""
        return {"encoder.name": "mamp", "task.decoder.width": 8, "task.decoder.depth": 1, "task.decoder.heads": 2}

    def stages(self) -> list[Stage]:
        """One; nothing trains the classifier."""
        return [Stage(train=("encoder", "decoder"))]

    def parameter_groups(self, stage: Stage) -> list[ParameterGroup]:
        """Encoder and decoder, by the run's own optimiser; the classifier, which no stage trains."""
        named = list(self.encoder.named_parameters())
        return [
            ParameterGroup("encoder", [tensor for name, tensor in named if not self.encoder.in_head(name)]),
            ParameterGroup("classifier", head_parameters(self.encoder)),
            ParameterGroup("decoder", list(self.decoder.parameters())),
        ]

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """``loss`` and ``loss_motion``, which is the same."""
        x, there = self.augmented_masked(batch)
        noise = self.noise(batch, "mask").uniform(x.shape[1], self.tokens)
        loss = self.clip_losses(x, there, noise).mean()
        return {"loss": loss, "loss_motion": loss.detach()}

    def clip_losses(self, x: Tensor, there: Tensor, noise: Tensor) -> Tensor:
        """The loss of each clip.

        Args:
            x: (N, M, T, V, C) encoder input.
            there: (N, M, T, V) bool, which joints are there.
            noise: (N, M, L) uniform in [0, 1), which decides on the mask.

        Returns:
            (N,), 0 for a clip with nobody in it.
        """
        released, shape = self.settings.released, x.shape[:2]
        counts = torch.ones(shape, dtype=torch.bool, device=x.device) if released else present_bodies(x)
        rows = counts.flatten().nonzero().squeeze(1)
        bodies = whole_groups(x.flatten(0, 1)[rows], self.frames)
        mask = mask_by_score(
            mask_scores(patchify(bodies, self.frames), noise.flatten(0, 1)[rows], self.settings.temperature), self.kept
        )
        predicted = self.decoder(self.encoder.encode(mask.take(self.encoder.tokenise(bodies))), mask.restore)
        counted = mask.masked
        if not released:
            seen = whole_groups(there.flatten(0, 1)[rows][..., None], self.frames)
            moves = motion_seen(seen[..., 0], self.settings.stride)[..., None]
            counted = counted & patchify(moves, self.frames).all(dim=3).flatten(1)
        errors = masked_error(widen(predicted), self.targets(bodies), counted)
        each = errors.new_zeros(counts.numel()).index_copy(0, rows, errors).view(shape)
        return each.sum(dim=1) / counts.sum(dim=1).clamp(min=1)

    def targets(self, bodies: Tensor) -> Tensor:
        """(B, T, V, C), T a multiple of the frames of a patch -> (B, L, P): the motion that is predicted."""
        targets = patchify(motion(bodies, self.settings.stride), self.frames).flatten(1, 2)
        return normalise_patches(targets) if self.settings.normalise else targets

    def _held_out(self, joints: Tensor, lengths: Tensor) -> Tensor:
        """(N,) losses of clips that are not trained on, with one mask's noise for all of them."""
        x, there = self.preprocess.masked(joints, lengths)
        key = torch.tensor([named_seed(0, "held-out mask")], device=x.device)
        noise = uniform(key, "mask", (x.shape[1], self.tokens)).expand(len(x), -1, -1)
        return self.clip_losses(x, there, noise)

    def validation(self, apply: Apply, clips: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """``minus_loss`` of held-out clips, by which ``best`` is chosen without a label, and ``nearest_top1``."""
        loss = float(apply(self._held_out, clips).mean())
        return {"minus_loss": -loss, "nearest_top1": self.nearest.top1(self, apply, clips, labels)}
