"""Options of the MAMP encoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mmcl.common.errors import UserError


@dataclass(frozen=True)
class MAMPOptions:
    """Options of :class:`~mmcl.encoders.mamp.network.MAMP`; the defaults are the published network.

    Attributes:
        width: D, channels of a token, a multiple of ``heads``.
        depth: blocks.
        heads: of each block's attention.
        expansion: the hidden layer of a block has ``expansion`` * D channels, rounded down.
        patch_frames: consecutive frames of a joint that make a token. Clips of other than a multiple of it are
            lengthened by repeating their last frame.
        frames: T for which the positions in time are learned; they are interpolated for clips of another T.
        persons: M, bodies in every clip (absent ones are zeros).
        channels: C, coordinates of a joint.
        pooling: what a clip's feature is: "mean" the mean token, "joints" the mean token of every joint, one behind the
            other (V * D numbers), which keeps what joint does what, as MAMP's fine-tuning does.
        head: "linear"; "probe", a batch norm without scale and shift and then a linear layer, as in MAMP's linear
            probe; "mlp", two dense layers with a batch norm between them, as in MAMP's fine-tuning.
        hidden: width of the hidden layer of the head "mlp".
        dropout: on the tokens before they are pooled (MAMP's fine-tuning: 0.3).
        drop_path: probability of leaving a residual branch out in training, for the last block; it grows linearly from
            0 at the first (MAMP's fine-tuning: 0.3).
        released: average over all persons, absent ones too, as the released code does: a feature of a single person
            is then half of what it is, plus half of the feature of a body of zeros.
    """

    width: int = 256
    depth: int = 8
    heads: int = 8
    expansion: float = 4.0
    patch_frames: int = 4
    frames: int = 120
    persons: int = 2
    channels: int = 3
    pooling: Literal["mean", "joints"] = "mean"
    head: Literal["linear", "probe", "mlp"] = "linear"
    hidden: int = 2048
    dropout: float = 0.0
    drop_path: float = 0.0
    released: bool = False

    def __post_init__(self) -> None:
        for name in ("depth", "heads", "expansion", "patch_frames", "persons", "channels", "hidden"):
            if getattr(self, name) < 1:
                raise UserError(f"mamp.{name} must be at least 1, not {getattr(self, name)}")
        if self.width < self.heads or self.width % self.heads:
            raise UserError(f"mamp.width must be a multiple of mamp.heads ({self.heads}), not {self.width}")
        if self.frames < self.patch_frames or self.frames % self.patch_frames:
            raise UserError(
                f"mamp.frames must be a multiple of mamp.patch_frames ({self.patch_frames}), not {self.frames}"
            )
        for name, choices in (("pooling", ("mean", "joints")), ("head", ("linear", "probe", "mlp"))):
            if getattr(self, name) not in choices:
                raise UserError(f"mamp.{name} must be one of {', '.join(choices)}, not {getattr(self, name)!r}")
        for name in ("dropout", "drop_path"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise UserError(f"mamp.{name} must lie in [0, 1), not {getattr(self, name)}")
