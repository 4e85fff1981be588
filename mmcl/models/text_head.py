"""What every text head is: the part of a model that recognises classes by their texts, trained or not."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from mmcl.common.errors import UserError
from mmcl.common.options import build
from mmcl.models import TEXT_HEADS


class TextHead(nn.Module, ABC):
    """From an encoder's features to scores of classes that are given by the embeddings of their texts.

    A task that trains one keeps it as its attribute ``text_head``, so that a checkpoint holds its tensors under the
    prefix ``text_head.``. A subclass sets ``options_type`` to its frozen dataclass of options and takes
    (features, width, options). Everything it needs for use is in its options and its ``state_dict``.

    Args:
        features: Df, width of the encoder's features.
        width: D, width of the text embeddings.
        options: of the subclass.

    Attributes:
        uncompared: options that follow from the classes of a protocol, so that a run and its gate's differ in them.
        text: which text model the embeddings are of: ``source`` (sentence or clip), ``model``, ``clip_model``,
            ``clip_pretrained``. Whoever trains the head sets it.
    """

    options_type: ClassVar[type]
    uncompared: ClassVar[tuple[str, ...]] = ()

    def __init__(self, features: int, width: int, options: Any) -> None:
        super().__init__()
        if min(features, width) < 1:
            raise UserError(f"a text head needs widths of 1 or more, not {features} and {width}")
        self.features, self.width, self.options = features, width, options
        self.text: Mapping[str, Any] = {}

    @abstractmethod
    def embed(self, features: Tensor) -> Tensor:
        """(N, Df) features of the encoder -> (N, E) float32, what :meth:`scores` compares with classes."""

    @abstractmethod
    def fit(self, rows: Tensor) -> Tensor:
        """Prepare a choice of classes.

        Args:
            rows: (n, D) unit-length text embeddings of the classes to tell apart, n of at least 2.

        Returns:
            (n, …) what :meth:`scores` takes, on the device of the rows; the same rows always give the same.
        """

    @abstractmethod
    def scores(self, features: Tensor, fitted: Tensor) -> Tensor:
        """(N, Df) features and what :meth:`fit` gave -> (N, n); softmax makes probabilities among these classes."""


def build_text_head(name: str, features: int, width: int, options: Any) -> TextHead:
    """Build a text head by name.

    Args:
        name: a name in ``TEXT_HEADS``.
        features: Df.
        width: D.
        options: the head's own dataclass, or a mapping with any of its fields.

    Raises:
        UserError: unknown name, or options that are wrong.
    """
    head: TextHead = build(TEXT_HEADS, name, options, features, width)
    return head
