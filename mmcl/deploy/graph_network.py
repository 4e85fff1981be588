"""The network of a bundle in the form that graphs are made of: raw joints in, probabilities out.

The network is the encoder's form for use only (``encoders/lean.py``), whose constants are folded. Bodies that are there
are packed, so that an empty one costs nothing; its feature is a constant of the graph.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmcl.encoders.base import lean_form
from mmcl.encoders.lean import LeanBodies
from mmcl.models.model import Model

OUTPUTS = {
    "probabilities": "(clips, classes), in the order of class_names, each row sums to 1",
    "scores": "(clips, classes): the same before softmax",
    "embedding": (
        "(clips, E): what the text head makes of each clip. For the head 'projection' it is the unit-length embedding "
        "in the space of texts: its dot product with a class's text (a row of 'classes' in vocabulary.safetensors, "
        "named in vocabulary.names, or another unit-length text embedding; less 'text_head.origin' of the same file "
        "and brought to unit length again), divided by the head's temperature, is the class's open-vocabulary score; "
        "softmax over the classes asked for gives probabilities. For the head 'vae' it is what a clip means: its dot "
        "product with a class's weights, plus the class's bias, both as vocabulary.fit gives them, is the score "
        "('text_head.kept_classifier' has them, the bias last, for the classes that were withheld from training)"
    ),
    "familiarity": (
        "(clips,): how much each clip looks like the training clips of the class that it is answered to be, at most 1: "
        "below 'threshold' under 'rejection' it is none of the classes"
    ),
}


class Graph(nn.Module):
    """A model as one function of raw joints (N, M, T, V, C), for any N, M, T.

    Joints that are NaN count as missing. Of a clip with nobody in it nothing is said: its scores are all zero, so that
    its probabilities are equal.

    Args:
        model: of which everything is copied.

    Attributes:
        outputs: names of what comes out, keys of :data:`OUTPUTS`.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.preprocess, self.text_head, self.familiarity = model.preprocess, model.text_head, model.familiarity
        self.encoder = lean_form(model.encoder, model.preprocess.options.window)
        if isinstance(self.encoder, LeanBodies):
            self.encoder.packed = True
        lacking = {"embedding": self.text_head is None, "familiarity": self.familiarity is None}
        self.outputs = [name for name in OUTPUTS if not lacking.get(name, False)]
        self.eval()

    def forward(self, joints: Tensor) -> tuple[Tensor, ...]:
        """(N, M, T, V, C) -> what :attr:`outputs` names."""
        N, _, T, V, C = joints.shape
        # Empty bodies that fill up, whatever their number is: preprocessing cuts off what is too many.
        joints = torch.cat([joints, joints.new_zeros(N, self.preprocess.persons, T, V, C)], dim=1)
        views = [self.preprocess.masked(joints, view=view) for view in range(self.preprocess.options.views)]
        features = [self.encoder.features(x) for x, _ in views]  # type: ignore[operator]
        scores = _mean([self.encoder.head(each) for each in features])  # type: ignore[operator]
        somebody = views[0][1].flatten(1).any(dim=1, keepdim=True)
        scores = torch.where(somebody, scores, 0.0)
        found = [scores.softmax(dim=-1), scores]
        if self.text_head is not None:
            found.append(self.text_head.embed(_mean(features)))
        if self.familiarity is not None:
            found.append(torch.where(somebody[:, 0], self.familiarity(_mean(features), scores), -1.0))
        return tuple(found)


def _mean(views: list[Tensor]) -> Tensor:
    """Of what was said of each view; no operation for a single one."""
    return views[0] if len(views) == 1 else torch.stack(views).mean(dim=0)


class Eager(Graph):
    """The model as it is, with a graph's outputs: what a graph is compared with shall not share its folded form."""

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        self.encoder = model.encoder
