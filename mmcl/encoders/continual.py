"""What an encoder is that goes through a clip step by step, with a state: for streams, whose end nobody waits for."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn


class Continual(nn.Module, ABC):
    """An encoder that goes through clips step by step: each step takes some frames and what is kept of those before.

    What is kept is a mapping of tensors, one row a body; a stream begins with zeros. Bodies are those of the slots
    0, 1, … of a clip; slots behind them are empty.

    Attributes:
        step: frames of a step.
        forget: frames without a body behind which nothing of it is left in what is kept.
        persons: M of the encoder.
    """

    step: int
    forget: int
    persons: int

    @abstractmethod
    def begin(self, bodies: int) -> dict[str, Tensor]:
        """What is kept of so many bodies before the first frame: zeros."""

    @abstractmethod
    def forward(self, x: Tensor, phase: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Go on by a step.

        Args:
            x: (B, step, V, C) preprocessed joints, missing ones zero.
            phase: (1,) how many steps the stream has gone before.
            state: what is kept of the frames before.

        Returns:
            features (D,), those of the whole encoder for all frames up to these, and what is kept of them.
        """

    @abstractmethod
    def head(self, features: Tensor) -> Tensor:
        """(…, D) -> (…, K) unnormalised scores."""
