"""Feature Alignment (FAM): the skeleton's embedding is pulled towards CLIP's embedding of the same clip's video."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from mmcl.common.errors import UserError
from mmcl.models.projection import projection
from mmcl.tasks.losses import SigLIP, info_nce, nt_xent


@dataclass(frozen=True)
class AlignmentOptions:
    """Options of Feature Alignment.

    Attributes:
        weight: lambda_1 of the total loss; 0 leaves alignment (and CLIP) out.
        loss: nt_xent (the paper: negatives of both modalities), info_nce (CLIP's) or siglip.
        temperature: tau of nt_xent and info_nce.
        space: skeleton (the paper: the image is projected to the encoder's width, the skeleton is not) or clip (the
            skeleton is projected to CLIP's joint space, where text of any class name can be compared with it).
        same_class_negatives: clips of one class count as negatives of each other, as in the paper; false is the
            supervised variant.
        witness: picture, or class_text: the control that bounds what alignment can give. In place of its pictures'
            embedding a clip then has that of its class's text, and needs no video.
    """

    weight: float = 0.1
    loss: Literal["nt_xent", "info_nce", "siglip"] = "nt_xent"
    temperature: float = 0.4
    space: Literal["skeleton", "clip"] = "skeleton"
    same_class_negatives: bool = True
    witness: Literal["picture", "class_text"] = "picture"

    @property
    def sees_pictures(self) -> bool:
        """Whether alignment is in the loss and takes the clips' video."""
        return self.weight > 0 and self.witness == "picture"

    def check(self) -> None:
        """Fail on numbers out of range.

        Raises:
            UserError: naming the key.
        """
        if not 0 <= self.weight < math.inf:
            raise UserError(f"task.alignment.weight is {self.weight}: it must be 0 or more")
        if not 0 < self.temperature < math.inf:
            raise UserError(f"task.alignment.temperature is {self.temperature}: it must be more than 0")


class Alignment(nn.Module):
    """The contrastive loss in the common space, and the image's way into the encoder's.

    Args:
        skeleton_width: D of the encoder's features.
        image_width: D of the CLIP tower's embeddings.
        options: loss, temperature, space.
        own_scale: false where SigLIP's scale is the text head's temperature.
    """

    def __init__(
        self, skeleton_width: int, image_width: int, options: AlignmentOptions, own_scale: bool = True
    ) -> None:
        super().__init__()
        self.options = options
        # Into CLIP's space it is the skeleton that is projected, by the task: texts may be compared there as well.
        self.project = projection(image_width, skeleton_width) if options.space == "skeleton" else None
        self.siglip = SigLIP(own_scale) if options.loss == "siglip" else None

    def forward(self, skeleton: Tensor, image: Tensor, labels: Tensor, log_scale: Tensor | None = None) -> Tensor:
        """L_FAM of this process's clips.

        Args:
            skeleton: (n, D) features of the encoder, or their projection into CLIP's space.
            image: (n, D_image) embeddings of the CLIP tower.
            labels: (n,) classes, used where same-class clips are no negatives.
            log_scale: SigLIP's, where it is another module's.
        """
        if self.project is not None:
            image = self.project(image)
        classes = None if self.options.same_class_negatives else labels
        with torch.autocast(skeleton.device.type, enabled=False):  # similarities in float32, whatever the precision
            if self.siglip is not None:
                return self.siglip(skeleton, image, classes, log_scale)
            loss = nt_xent if self.options.loss == "nt_xent" else info_nce
            return loss(skeleton, image, self.options.temperature, classes)
