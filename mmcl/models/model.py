"""A trained model: raw joints in, class scores out. One thing for a run, a checkpoint and a bundle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mmcl.encoders.base import Encoder, lean_form
from mmcl.models.clip_checks import check_clips, check_finite
from mmcl.models.description import Description
from mmcl.models.familiarity import Familiarity
from mmcl.models.text_head import TextHead
from mmcl.models.vocabulary import Vocabulary, require_vocabulary
from mmcl.skeletons.layout import Layout
from mmcl.skeletons.preprocess import Preprocess

if TYPE_CHECKING:
    from mmcl.models.record import Record

# (N, M, T, V, C) and lengths (N,) or None -> the same, mended.
Check = Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor | None]]


class Model(nn.Module):
    """The skeleton branch with all that is needed to use it; loads with torch, safetensors and numpy alone.

    Attributes:
        description: what it is and where it comes from, as plain data.
        encoder: the network, on preprocessed (N, M, T, V, C).
        preprocess: layout conversion, centring, window, streams.
        class_names: K names in the order of the scores.
        layout: layout of the raw joints.
        vocabulary: the way to classes that are given by text; None where the model was trained without.
        path: the folder that it was read from; None where it was made in memory.
        familiarity: how much clips look like what was learned from; None where no rejection goes by that.
        check: mends clips and says what is hard to believe about them, before they are computed; None for nothing.
            :func:`mmcl.load` sets it. Calls that keep gradients go past it.
    """

    def __init__(
        self, description: Description, encoder: Encoder, preprocess: Preprocess,
        vocabulary: Vocabulary | None = None, path: Path | None = None, familiarity: Familiarity | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.description, self.encoder, self.preprocess = description, encoder, preprocess
        self.vocabulary, self.path, self.familiarity = vocabulary, path, familiarity
        self.class_names: list[str] = list(description.class_names)
        self.layout: Layout = preprocess.source
        self.check: Check | None = None
        self._lean: tuple[list[tuple[int, int]], nn.Module] | None = None
        self.eval()

    @property
    def text_head(self) -> TextHead | None:
        """The part that scores classes by their texts; None where the model has none."""
        return None if self.vocabulary is None else self.vocabulary.head

    @property
    def record(self) -> Record:
        """What the model learned from, as far as that is known.

        Raises:
            UserError: the record was edited or damaged.
        """
        from mmcl.models.learned import record_of  # reads clip stores, which needs more than inference does

        return record_of(self.description, self.path)

    @property
    def device(self) -> torch.device:
        """Where its tensors are."""
        return next(self.encoder.parameters()).device

    def taking(self, layout: Layout) -> Model:
        """The same network for joints of another layout, which are converted by name.

        Raises:
            UserError: a joint that it needs cannot be had from that layout.
        """
        own = self.preprocess
        preprocess = Preprocess(layout, own.target, own.persons, own.options).to(self.device)
        return Model(self.description, self.encoder, preprocess, self.vocabulary, self.path, self.familiarity)

    def forward(self, joints: Tensor, lengths: Tensor | None = None, grad: bool = False) -> Tensor:
        """Class scores of raw clips: (N, K), unnormalised. Arguments and errors as in :meth:`features`."""
        return self._averaged(lambda network: network, joints, lengths, grad)

    def features(self, joints: Tensor, lengths: Tensor | None = None, grad: bool = False) -> Tensor:
        """Features of raw clips, which the head turns into scores.

        Args:
            joints: (N, M, T, V, C) joints in the model's layout, metres; any M and T. A joint with a coordinate that
                is NaN, or with zeros alone, is missing.
            lengths: (N,) real frames of each clip, from 1 to T, where shorter ones are padded at the end; None where
                all have T.
            grad: keep the graph for gradients. Without it the network runs in its lean form and nothing is kept.

        Returns:
            (N, Df), not normalised.

        Raises:
            UserError: joints of another shape than the layout's, no frame, a clip with nobody in it, infinite
                coordinates, or lengths that do not fit; on a CPU, features that are not finite. Only the shape is
                looked at while a graph is traced.
        """
        return self._averaged(lambda network: network.features, joints, lengths, grad)

    @property
    def says_familiarity(self) -> bool:
        """Whether :meth:`judge` says how familiar clips look."""
        return self.familiarity is not None

    def judge(self, joints: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Class scores (N, K) of raw clips, and how familiar each looks (N,); None where the model does not say.

        Arguments and errors as in :meth:`features`, without gradients.
        """
        if self.familiarity is None:
            return self(joints, lengths), None

        def both(network: Any) -> Callable[[Tensor], Tensor]:
            def run(x: Tensor) -> Tensor:
                features = network.features(x)
                return torch.cat([features, network.head(features)], dim=-1)

            return run

        features, scores = self._averaged(both, joints, lengths, False).split(
            [self.encoder.feature_width, len(self.class_names)], dim=-1
        )
        return scores, self.familiarity(features, scores)

    def _averaged(
        self, part: Callable[[Any], Callable[[Tensor], Tensor]], joints: Tensor, lengths: Tensor | None, grad: bool
    ) -> Tensor:
        """What a part of the network says of raw clips, averaged over their views."""
        check_clips(joints, lengths, self.layout)
        if grad or torch.compiler.is_compiling():
            return self.preprocess.averaged(part(self.encoder), joints, lengths)
        with torch.no_grad():
            if self.check is not None:
                joints, lengths = self.check(joints, lengths)
            found = self.preprocess.averaged(part(self._lean_encoder()), joints, lengths)
            if found.device.type == "cpu":  # a GPU would wait; there, whoever fetches the scores finds out
                check_finite(found)
            return found

    def _lean_encoder(self) -> nn.Module:
        """The encoder with its constants folded, made anew where its tensors are other ones or have changed."""
        tensors = [*self.encoder.parameters(), *self.encoder.buffers()]
        state = [(each.data_ptr(), 0 if each.is_inference() else each._version) for each in tensors]
        if self._lean is None or self._lean[0] != state:
            self._lean = state, lean_form(self.encoder, self.preprocess.options.window)
        return self._lean[1]

    def open_scores(self, joints: Tensor, lengths: Tensor | None, fitted: Tensor, grad: bool = False) -> Tensor:
        """Scores of raw clips for classes given by text, trained or not.

        Args:
            joints: (N, M, T, V, C), as in :meth:`features`.
            lengths: (N,) or None, as in :meth:`features`.
            fitted: the n classes: ``vocabulary.fit(["wave", "throw a ball"])``.
            grad: as in :meth:`features`.

        Returns:
            (N, n); softmax gives probabilities among these classes.

        Raises:
            UserError: the model has no vocabulary, or as :meth:`features`.
        """
        head = require_vocabulary(self.vocabulary, "this model").head
        features = self.features(joints, lengths, grad)
        with torch.set_grad_enabled(grad and torch.is_grad_enabled()):
            return head.scores(features, fitted)
