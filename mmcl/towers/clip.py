"""The CLIP tower: any open_clip model, seen as person crops in, one embedding a clip out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcl.errors import UserError
from mmcl.towers.clip_load import load_clip
from mmcl.towers.frozen import constant_forward, save_only_trained

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass
class ClipOptions:
    """Which CLIP, and how it is run.

    Attributes:
        model: a name from ``open_clip.list_models()``, ``hf-hub:owner/name``, or a folder with
            ``open_clip_config.json`` and weights.
        pretrained: for a name: one of its tags, or a local file with a state dict. A file says nothing of the image
            normalisation it was trained with, a tag and a folder do.
        trainable: train the visual tower too (the text tower never is). A trainable tower may start without weights.
        precision: arithmetic of a frozen tower; weights stay float32. A trainable one follows the training's own
            mixed precision.
        images_per_step: a frozen tower takes this many images at a time, which bounds its memory.
    """

    model: str = "ViT-B-32"
    pretrained: str | None = None
    trainable: bool = False
    precision: Literal["fp32", "bf16"] = "fp32"
    images_per_step: int = 64


class ClipTower(nn.Module):
    """Visual tower of an open_clip model, and on demand its text tower.

    Frozen, it has no gradient and no train mode, and ``state_dict()`` is empty.

    Args:
        options: which model.
        text: keep the text tower in memory as well, for :meth:`encode_text`.

    Attributes:
        width: D of the joint embedding space.
        transform: PIL image -> (3, H, W); picklable, for data workers.
    """

    def __init__(self, options: ClipOptions, *, text: bool = False) -> None:
        super().__init__()
        if options.images_per_step < 1:
            raise UserError(f"clip.images_per_step must be at least 1, not {options.images_per_step}")
        loaded = load_clip(options.model, options.pretrained, allow_random=options.trainable)
        self.options, self.width, self.transform = options, loaded.width, loaded.transform
        model: Any = loaded.model.requires_grad_(False)
        self.visual: nn.Module = model.visual.requires_grad_(options.trainable)
        del model.visual  # the text side below does not need it, and the same weights must not be listed twice
        self.text: Any = None
        if text:
            from open_clip import get_tokenizer

            self.text, self.tokenizer = model, get_tokenizer(loaded.name)
        save_only_trained(self)
        self.train(options.trainable)

    def train(self, mode: bool = True) -> ClipTower:
        """Switch the visual tower if it is trainable; what is frozen stays in evaluation mode."""
        super().train(mode and self.options.trainable)
        if self.text is not None:
            self.text.eval()
        return self

    def preprocess(self, images: Sequence[Image]) -> Tensor:
        """Turn n pictures into (n, 3, H, W) by the model's own evaluation transform, without augmentation."""
        return torch.stack([self.transform(image) for image in images])

    def embed(self, images: Tensor) -> Tensor:
        """Embed single pictures: (n, 3, H, W) -> (n, D), float32, of length 1."""
        if self.options.trainable:
            return self._embed(images)
        with constant_forward(images.device, self.options.precision):
            return torch.cat([self._embed(part) for part in images.split(self.options.images_per_step)])

    def forward(self, pixels: Tensor) -> Tensor:
        """Embed clips of m crops each: (N, m, 3, H, W) -> (N, D), float32.

        The mean of the crops' unit-length embeddings. It is not brought to length 1 again: every loss here compares
        by cosine, and as it is its length (at most 1) still says how far the crops agree.
        """
        return self.embed(pixels.flatten(0, 1)).unflatten(0, pixels.shape[:2]).mean(1)

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Embed n texts: (n, D), float32, of length 1, on the tower's device.

        Raises:
            UserError: the tower was built without its text side.
        """
        if self.text is None:
            raise UserError("this CLIP tower was built without its text tower: build it with text=True")
        device = next(self.text.parameters()).device
        with constant_forward(device, self.options.precision):
            embeddings = self.text.encode_text(self.tokenizer(list(texts)).to(device))
        return F.normalize(embeddings.float(), dim=-1)

    def _embed(self, images: Tensor) -> Tensor:
        output = self.visual(images)
        pooled = output[0] if isinstance(output, tuple) else output  # CoCa's visual tower returns its tokens too
        return F.normalize(pooled.float(), dim=-1)
