"""Options of the STTFormer encoder."""

from __future__ import annotations

from dataclasses import dataclass

from mmcl.common.errors import UserError

TINY = ((32, 16), (32, 16), (64, 32), (64, 32), (128, 64), (128, 64), (128, 64), (128, 64))


@dataclass(frozen=True)
class STTFormerOptions:
    """Options of :class:`~mmcl.encoders.sttformer.network.STTFormer`; the defaults are CHARON's "tiny" network.

    Attributes:
        width: channels behind the input map.
        layers: (channels out, channels of a query) of each layer. STTFormer's own size is width 64 and layers
            (64, 16) twice, (128, 32) twice, (256, 64) four times.
        heads: of each layer's attention.
        tuple_frames: consecutive frames whose joints attend to each other. Clips of other than a multiple of it are
            lengthened by repeating their last frame.
        kernel: of the convolutions along (time, joints), odd numbers.
        persons: M, bodies in every clip (absent ones are zeros).
        channels: C, coordinates of a joint.
        dropout: on the feature.
        released: take a person for present if the sum of the coordinates is positive, and the first person always, as
            the released code does. Otherwise a person is present if any coordinate is not 0.
    """

    width: int = 32
    layers: tuple[tuple[int, int], ...] = TINY
    heads: int = 3
    tuple_frames: int = 6
    kernel: tuple[int, int] = (3, 5)
    persons: int = 2
    channels: int = 3
    dropout: float = 0.0
    released: bool = False

    def __post_init__(self) -> None:
        for name in ("width", "heads", "tuple_frames", "persons", "channels"):
            if getattr(self, name) < 1:
                raise UserError(f"sttformer.{name} must be at least 1, not {getattr(self, name)}")
        if not self.layers or min(min(layer) for layer in self.layers) < 1:
            raise UserError(f"sttformer.layers must be pairs of positive numbers, at least one, not {self.layers}")
        if min(self.kernel) < 1 or any(size % 2 == 0 for size in self.kernel):
            raise UserError(f"sttformer.kernel must be two odd numbers, not {self.kernel}")
        if not 0.0 <= self.dropout < 1.0:
            raise UserError(f"sttformer.dropout must lie in [0, 1), not {self.dropout}")
