"""The CLIP tower: any open_clip model, seen as person crops in, one embedding a clip out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcl.common.errors import UserError
from mmcl.common.precision import widen
from mmcl.towers.clip_load import load_clip
from mmcl.towers.frozen import constant_forward, save_only_trained
from mmcl.towers.strip import strip

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
        precision: of a frozen tower: bf16 is its arithmetic alone, over float32 weights; pure_bf16 its weights too, in
            half the memory. A trainable one follows the training's own mixed precision.
        images: separate: the crops of a clip are embedded one by one, and the mean counts; strip: they are glued left
            to right in time order, resized to the tower's square, and embedded as one picture.
        images_per_step: a frozen tower takes this many images at a time, which bounds its memory.
        views: in how many ways a clip's pictures are shown, one each time the clip is trained on: as they are, or in
            random windows (see :mod:`mmcl.towers.views`). A cache holds that many rows a clip.
        mirror: half of the other views are mirror images. Not where an action tells left from right.
    """

    model: str = "ViT-B-32"
    pretrained: str | None = None
    trainable: bool = False
    precision: Literal["fp32", "bf16", "pure_bf16"] = "fp32"
    images: Literal["separate", "strip"] = "separate"
    images_per_step: int = 64
    views: int = 1
    mirror: bool = False


@dataclass(frozen=True)
class ClipPreprocess:
    """From the pictures of a clip to the tower's input. Holds no weights, so data workers can carry it.

    Attributes:
        transform: the model's own evaluation transform, without augmentation: picture -> (3, H, W).
        strip_size: width and height of a strip of all pictures; None where each goes in by itself.
    """

    transform: Callable[[Image], Tensor]
    strip_size: tuple[int, int] | None

    def __call__(self, images: Sequence[Image]) -> Tensor:
        """Turn m pictures into (m, 3, H, W), or (1, 3, H, W) where they are glued into a strip."""
        pictures = [strip(images, self.strip_size)] if self.strip_size else images
        return torch.stack([self.transform(picture) for picture in pictures])


class ClipTower(nn.Module):
    """Visual tower of an open_clip model, and on demand its text tower.

    Frozen, it has no gradient and no train mode, and ``state_dict()`` is empty.

    Args:
        options: which model.
        text: keep the text tower in memory as well, for :meth:`encode_text`.

    Attributes:
        width: D of the joint embedding space.
        preprocess: pictures of a clip -> what :meth:`forward` takes of it; picklable, for data workers.
    """

    def __init__(self, options: ClipOptions, *, text: bool = False) -> None:
        super().__init__()
        if options.images_per_step < 1:
            raise UserError(f"clip.images_per_step must be at least 1, not {options.images_per_step}")
        if options.views < 1:
            raise UserError(f"clip.views must be at least 1, not {options.views}")
        loaded = load_clip(options.model, options.pretrained, allow_random=options.trainable)
        self.options, self.width, self.vision = options, loaded.width, loaded.vision
        size = loaded.size if options.images == "strip" else None
        self.preprocess = ClipPreprocess(loaded.transform, size)
        model: Any = loaded.model.requires_grad_(False)
        self.visual: nn.Module = model.visual.requires_grad_(options.trainable)
        if options.precision == "pure_bf16" and not options.trainable:
            self.visual.to(torch.bfloat16)
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

    def embed(self, images: Tensor) -> Tensor:
        """Embed single pictures: (n, 3, H, W) -> (n, D), float32, of length 1."""
        if self.options.trainable:
            return self._embed(images)
        with constant_forward(images.device, self.options.precision):
            return torch.cat([self._embed(part) for part in images.split(self.options.images_per_step)])

    def forward(self, pixels: Tensor) -> Tensor:
        """Embed clips of m pictures each (one, where they are strips): (N, m, 3, H, W) -> (N, D), float32.

        The mean of the pictures' unit-length embeddings. It is not brought to length 1 again: every loss here compares
        by cosine, and as it is its length (at most 1) still says how far the pictures agree.
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
        output = self.visual(images.to(next(self.visual.parameters()).dtype))
        pooled = output[0] if isinstance(output, tuple) else output  # CoCa's visual tower returns its tokens too
        return F.normalize(widen(pooled), dim=-1)
