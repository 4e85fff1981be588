"""What an attribution works on: clips as the encoder sees them, beside background clips that stand for "nothing"."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from mmcl.common.draws import named_seed
from mmcl.encoders.base import Encoder, lean_form
from mmcl.encoders.bodies import computing_every_body
from mmcl.models.model import Model

ROWS_WITHOUT_GRADIENTS = 4  # times as many clips in a forward pass that keeps nothing for a backward pass
Watched = Callable[[list[Tensor]], Iterable[Tensor]]  # wraps the batches of a loop: a progress bar, for instance


@dataclass(frozen=True)
class View:
    """One view of some clips. A joint that a clip does not show is shown in none of the background clips either.

    Attributes:
        encoder: with which gradients are computed.
        lean: the same function, fast and without gradients.
        x: (N, M, W, V, C) encoder input.
        mask: (N, M, W, V) which joints are there.
        background: (B, M, W, V, C) encoder input of the background clips.
        target: (N,) the class whose score is shared out.
        keys: (N,) int64, of whatever is drawn for a clip: the same in whatever batch it comes.
        rows: clips at once in a forward and backward pass.
        watched: what the batches of a long loop go through.
    """

    encoder: Encoder
    lean: nn.Module
    x: Tensor
    mask: Tensor
    background: Tensor
    target: Tensor
    keys: Tensor
    rows: int = 64
    watched: Watched = iter

    @classmethod
    def of(
        cls, model: Model, clips: tuple[Tensor, Tensor | None], background: tuple[Tensor, Tensor | None],
        target: Tensor, seed: int = 0, number: int = 0, rows: int = 64, watched: Watched = iter,
    ) -> View:  # fmt: skip
        """One of a model's ``preprocess.views`` of raw clips and background clips, both with their lengths.

        Keys are made of a seed and of what a clip shows.
        """
        x, mask = model.preprocess.masked(*clips, view=number)
        behind = model.preprocess(*background, view=number)
        lean = lean_form(model.encoder, model.preprocess.options.window)
        return cls(model.encoder, lean, x, mask, behind, target, content_keys(*clips, seed), rows, watched)

    def background_of(self, clip: int) -> Tensor:
        """(B, M, W, V, C) what stands for "nothing" in a clip: the background where it has joints, and zero elsewhere.

        A body of the clip stays in the view where a background clip has fewer bodies or frames: it is then absent.
        """
        return torch.where(self.mask[clip, ..., None], self.background, 0)

    def pairs(self) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Every clip with every background clip, in batches: numbers (R,) of both, x (R, …) and background (R, …)."""
        N, B = len(self.x), len(self.background)
        for part in self.watched(list(torch.arange(N * B, device=self.x.device).split(self.rows))):
            clip, behind = part // B, part % B
            yield clip, behind, self.x[clip], torch.where(self.mask[clip, ..., None], self.background[behind], 0)

    @property
    def together(self) -> int:
        """Clips at once in a forward pass alone: it needs less memory a clip, and is faster the more there are."""
        return ROWS_WITHOUT_GRADIENTS * self.rows

    @torch.no_grad()
    def scores(self, x: Tensor, target: Tensor) -> Tensor:
        """(R,) scores of inputs (R, M, W, V, C) for their targets (R,)."""
        found = [
            self.lean(part).gather(1, wanted[:, None])[:, 0]
            for part, wanted in zip(x.split(self.together), target.split(self.together), strict=True)
        ]
        return torch.cat(found)

    def background_scores(self) -> Tensor:
        """(N, B) scores of each clip's target when all joints of the clip are those of a background clip."""
        return torch.stack(
            [self.scores(self.background_of(clip), target.expand(len(self.background))) for clip, target in
             enumerate(self.target)]
        )  # fmt: skip

    def gradient(self, x: Tensor, target: Tensor) -> Tensor:
        """(R, M, W, V, C) gradient of each input's target score."""
        leaf = x.detach().clone().requires_grad_(True)
        with torch.enable_grad(), computing_every_body():
            total = self.encoder(leaf).gather(1, target[:, None]).sum()
            (gradient,) = torch.autograd.grad(total, leaf)
        return gradient


def content_keys(joints: Tensor, lengths: Tensor | None, seed: int) -> Tensor:
    """(N,) int64 keys of raw clips (N, M, T, V, C): a seed's, by what each shows, whatever it is padded with."""
    found = []
    for number, clip in enumerate(joints.cpu().numpy()):
        shown = clip[:, : clip.shape[1] if lengths is None else int(lengths[number])]
        bodies = shown[(shown != 0).any(axis=(1, 2, 3))]
        found.append(named_seed(seed, hashlib.blake2b(np.ascontiguousarray(bodies).tobytes()).hexdigest()))
    return torch.tensor(found, dtype=torch.int64, device=joints.device)
