"""What every encoder is: a network from skeletons to features and scores, with what tasks and exports may ask of it."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mmcl.common.errors import UserError
from mmcl.encoders.continual import Continual
from mmcl.encoders.factored import factored_layers, merge
from mmcl.skeletons.layout import Layout

LARGEST = 64_000_000  # numbers in whole weights: beyond them a lean form leaves factors as they are


class Encoder(nn.Module, ABC):
    """A network from preprocessed skeletons (N, M, T, V, C) to a feature (N, D) and class scores (N, K).

    A subclass sets ``options_type`` to its frozen dataclass of options (fields ``persons`` and ``channels`` among
    them, every field with a default, ``UserError`` for a value out of range) and takes (layout, classes, options).

    Attributes:
        head_parts: names of the modules that only :meth:`head` uses; they alone know how many classes there are.
        beside_parts: names of the modules and parameters that :meth:`outputs` alone uses; scores do without them.
        described_parts: parts of the body of which `text_features` and `text_scales` of :meth:`outputs` tell, behind
            the whole body; an encoder that has some has `text_width` among its options.
        tiny: options with which the contract test trains it in seconds, without dropout.
        fused: pattern of module names -> how many projections of equal size such a layer computes at once, one after
            the other along its output channels, such as queries, keys and values.
        layout: the joints it was built for.
        classes: K.
        options: its options.
        feature_width: D.
        frozen: whether :meth:`freeze_features` was called.
        altered: whether a surgery has exchanged modules, so that it is no longer the network of its class:
            :meth:`lean` must not count on its parts then. Factored layers (``factored.py``) are no other network.
    """

    options_type: ClassVar[type]
    head_parts: ClassVar[tuple[str, ...]] = ("classifier",)
    beside_parts: ClassVar[tuple[str, ...]] = ()
    described_parts: ClassVar[tuple[str, ...]] = ()
    tiny: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    fused: ClassVar[Mapping[str, int]] = MappingProxyType({})
    feature_width: int

    def __init__(self, layout: Layout, classes: int, options: Any) -> None:
        super().__init__()
        if classes < 1:
            raise UserError(f"an encoder needs at least one class, not {classes}")
        self.layout = layout
        self.classes = classes
        self.options = options
        self.frozen = self.altered = False

    @abstractmethod
    def features(self, x: Tensor) -> Tensor:
        """(N, M, T, V, C) -> (N, D), averaged over time, joints and persons."""

    @abstractmethod
    def head(self, features: Tensor) -> Tensor:
        """(N, D) -> (N, K) unnormalised scores."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, M, T, V, C) -> (N, K) unnormalised scores."""
        return self.head(self.features(x))

    def outputs(self, x: Tensor) -> dict[str, Tensor]:
        """Everything that the network can tell of (N, M, T, V, C), by name.

        ``features`` (N, D) and ``scores`` (N, K) are always there. A network that has more (``tokens``, ``parts``, …)
        overrides this and says in its docstring what they are. Tasks ask for names, not for networks.
        """
        features = self.features(x)
        return {"features": features, "scores": self.head(features)}

    def member_scores(self, x: Tensor) -> Tensor:
        """(N, M, T, V, C) -> (members, N, K): scores of the parts that :meth:`forward` averages.

        Plain supervision gives each of them a loss of its own. A network without members is its only one.
        """
        return self(x)[None]

    @abstractmethod
    def depth(self) -> list[list[nn.Module | nn.Parameter]]:
        """Levels of the network from the input to the features, each a list of modules and single parameters.

        Every parameter but the head's is in exactly one level. Layer-wise learning rates and partial freezing go by it.
        """

    def in_head(self, name: str) -> bool:
        """Whether a parameter or buffer, by its name in ``state_dict()``, belongs to the head."""
        return name.partition(".")[0] in self.head_parts

    def freeze_features(self) -> None:
        """Leave only the head to be trained: the rest takes no gradient, and keeps its batch statistics for good."""
        self.frozen = True
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(self.in_head(name))
        self.train(self.training)

    def train(self, mode: bool = True) -> Encoder:
        """Switch to training or evaluation; what is frozen stays in evaluation."""
        super().train(mode)
        if self.frozen:
            for name, child in self.named_children():
                child.train(mode and name in self.head_parts)
        return self

    def example(self, frames: int, clips: int = 1) -> Tensor:
        """Zeros of the shape this encoder takes, (clips, M, frames, V, C), on the device it is on."""
        shape = (clips, self.options.persons, frames, self.layout.joint_count, self.options.channels)
        return torch.zeros(shape, device=next(self.parameters()).device)

    def lean(self, frames: int | None = None) -> nn.Module:
        """The same function for use only: a copy in evaluation that is never trained, as fast as the encoder knows how.

        It has ``features``, ``head`` and ``forward`` as the encoder has them. Later changes of the encoder do not reach
        it. It counts on the layers that the encoder was built with: :func:`lean_form` looks whether they are there.

        Args:
            frames: T of the clips that will come, for what can be worked out beforehand; any other T works, too.
        """
        return copy.deepcopy(self).eval().requires_grad_(False)

    def continual(self) -> Continual | None:
        """The same function for use only, step by step with a state; None of a network that sees whole clips alone."""
        return None

    def check(self, x: Tensor) -> None:
        """Refuse a batch that is not (N, M, T, V, C) of this encoder; shapes only, so it costs nothing when traced.

        Raises:
            UserError: another number of axes, persons, joints or channels.
        """
        M, V, C = self.options.persons, self.layout.joint_count, self.options.channels
        if x.dim() != 5 or (x.shape[1], x.shape[3], x.shape[4]) != (M, V, C):
            raise UserError(
                f"the encoder takes (clips, {M} persons, frames, {V} joints of {self.layout.name}, {C} channels), "
                f"not {tuple(x.shape)}"
            )


def lean_form(encoder: Encoder, frames: int | None = None) -> nn.Module:
    """:meth:`Encoder.lean`; of a network that a surgery has altered, a plain copy, which counts on no parts.

    A lean form folds constants into whole weights, and factors are multiplied out for it: that takes no longer than the
    whole network did, which is less than thin and unfolded layers take. What is far too large for that stays as it is.
    """
    if encoder.altered:
        return Encoder.lean(encoder, frames)
    whole = unfactored(encoder)
    return Encoder.lean(encoder, frames) if whole is None else whole.lean(frames).requires_grad_(False)


def continual_form(encoder: Encoder) -> Continual | None:
    """:meth:`Encoder.continual`; None, too, of a network that a surgery has altered, or is too large to fold."""
    whole = None if encoder.altered else unfactored(encoder)
    return None if whole is None else whole.continual()


def unfactored(encoder: Encoder) -> Encoder | None:
    """The encoder itself if it has no factors, else a copy with their products; None if that is far too large."""
    saved = [layer.saved for _, layer in factored_layers(encoder)]
    if not saved:
        return encoder
    if sum(saved) + sum(parameter.numel() for parameter in encoder.parameters()) > LARGEST:
        return None
    copied = copy.deepcopy(encoder).eval()
    merge(copied)
    return copied
