"""Options of masked motion prediction."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mmcl.common.errors import UserError


@dataclass(frozen=True)
class DecoderOptions:
    """The decoder, which is thrown away after training. The defaults are the published one for NTU RGB+D.

    Attributes:
        width: of its tokens, a multiple of ``heads``.
        depth: blocks (MAMP: 3 for NTU RGB+D, 5 for NTU RGB+D 120 and PKU-MMD).
        heads: of each block's attention.
        expansion: the hidden layer of a block has ``expansion`` * width channels, rounded down.
    """

    width: int = 256
    depth: int = 3
    heads: int = 8
    expansion: float = 4.0


@dataclass(frozen=True)
class MaskedMotionOptions:
    """Options of masked motion prediction; the defaults are MAMP's for NTU RGB+D.

    Attributes:
        ratio: share of the tokens that is masked.
        temperature: how much more often moving tokens are masked: little at a high one (MAMP: 0.8, or 0.75). 0 masks
            all tokens alike, as the released code does, which is not the formula's limit.
        stride: frames between the two positions whose difference is predicted.
        normalise: predict each patch's motion at mean 0 and variance 1.
        decoder: its size.
        released: keep as many tokens as the released code's rounding does (74 of 750 instead of 75), and train on
            absent persons and missing joints, which lie at zero, as on all others.
    """

    ratio: float = 0.9
    temperature: float = 0.8
    stride: int = 1
    normalise: bool = True
    decoder: DecoderOptions = field(default_factory=DecoderOptions)
    released: bool = False

    def check(self) -> None:
        """Fail on numbers out of range.

        Raises:
            UserError: naming the key, its value and what it should be.
        """
        decoder = self.decoder
        checks: list[tuple[str, Any, bool, str]] = [
            ("ratio", self.ratio, 0 < self.ratio < 1, "between 0 and 1"),
            ("temperature", self.temperature, self.temperature >= 0, "0 or more"),
            ("stride", self.stride, self.stride >= 1, "at least 1"),
            ("decoder.depth", decoder.depth, decoder.depth >= 1, "at least 1"),
            ("decoder.heads", decoder.heads, decoder.heads >= 1, "at least 1"),
            ("decoder.expansion", decoder.expansion, decoder.expansion >= 1, "at least 1"),
            ("decoder.width", decoder.width, decoder.width >= decoder.heads >= 1 and not decoder.width % decoder.heads,
             f"a multiple of decoder.heads ({decoder.heads})"),
        ]  # fmt: skip
        for key, value, good, wanted in checks:
            if not good:
                raise UserError(f"task.{key} is {value}: it must be {wanted}")
