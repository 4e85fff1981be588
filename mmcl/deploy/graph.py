"""The network of a bundle in the form that graphs are made of: raw joints in, probabilities out.

Everything constant is folded (``encoders/lean.py`` has done that). What is left is written in the operations that ONNX
Runtime has fast kernels for: 1x1 convolutions with their bias, batched products without a transposition of either
side, and no convolution whose output is cut apart afterwards. Bodies that are there are packed, so that an empty one
costs nothing; its feature is a constant of the graph.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmcl.encoders.base import lean_form
from mmcl.encoders.bodies import present_bodies
from mmcl.encoders.ctrgcn.lean_units import LeanSpatial, LeanTemporal, LeanUnit
from mmcl.encoders.graph import SUBSETS
from mmcl.encoders.lean import Folded, LeanBodies
from mmcl.models.model import Model

OUTPUTS = {
    "probabilities": "(clips, classes), in the order of class_names, each row sums to 1",
    "scores": "(clips, classes): the same before softmax",
    "embedding": (
        "(clips, E): what the text head makes of each clip. For the head 'projection' it is the unit-length embedding "
        "in the space of texts: its dot product with a class's text (a row of 'classes' in vocabulary.safetensors, "
        "named in vocabulary.names, or another unit-length text embedding; less 'text_head.origin' of the same file "
        "and brought to unit length again), divided by the head's temperature, is the class's open-vocabulary score; "
        "softmax over the classes asked for gives probabilities"
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
        self.preprocess, self.text_head = model.preprocess, model.text_head
        lean = lean_form(model.encoder, model.preprocess.options.window)
        self.encoder = Packed(lean, model.preprocess.options.window) if isinstance(lean, LeanBodies) else lean
        self.outputs = [name for name in OUTPUTS if name != "embedding" or self.text_head is not None]
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
        found = (scores.softmax(dim=-1), scores)
        return found if self.text_head is None else (*found, self.text_head.embed(_mean(features)))


def _mean(views: list[Tensor]) -> Tensor:
    """Of what was said of each view; no operation for a single one."""
    return views[0] if len(views) == 1 else torch.stack(views).mean(dim=0)


class Eager(Graph):
    """The model as it is, with a graph's outputs: what a graph is compared with shall not share its folded form."""

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        self.encoder = model.encoder


class Packed(Folded):
    """A lean network that computes the bodies that are there, all at once.

    Units of CTR-GCN take the form of this file; other parts of a network stay as they are.

    Args:
        lean: the network, whose units are changed in place.
        frames: T that will come; no other works, since the feature of an empty body depends on it.
    """

    empty: Tensor

    def __init__(self, lean: LeanBodies, frames: int) -> None:
        super().__init__()
        self.lean = lean
        self.keep(empty=lean.empty_features(frames))
        lean.units = nn.ModuleList(
            _Unit(unit) if isinstance(unit, LeanUnit) and isinstance(unit.spatial, LeanSpatial) else unit
            for unit in lean.units
        )

    def features(self, x: Tensor) -> Tensor:
        """(N, M, T, V, C) -> (N, D)."""
        N = x.shape[0]
        places = present_bodies(x).flatten().nonzero()[:, 0]
        found = self.empty.repeat(N, 1).index_put((places,), self.lean.trunk(self.lean.normalise(x)[places]))
        return found.unflatten(0, (N, self.lean.persons)).mean(dim=1)

    def head(self, features: Tensor) -> Tensor:
        """(N, D) -> (N, K)."""
        return self.lean.head(features)


class _Spatial(Folded):
    """A spatial unit: topology rows are [u, (subset, v)], so that the last product takes both sides as they lie."""

    relate: Tensor
    relate_bias: Tensor
    expand: Tensor
    graph: Tensor
    ones: Tensor
    value: Tensor
    value_bias: Tensor
    down: Tensor
    shift: Tensor

    def __init__(self, unit: LeanSpatial) -> None:
        super().__init__()
        self.joints, self.channels, self.relation, self.shortcut = (
            unit.joints, unit.channels, unit.relation, unit.shortcut,
        )  # fmt: skip
        rows, V = SUBSETS * unit.channels, unit.joints
        self.keep(
            relate=unit.relate_weight, relate_bias=unit.relate_bias, expand=unit.expand,
            graph=unit.constant[:, :1].unflatten(2, (V, V)).transpose(2, 3).flatten(2)[None],
            ones=torch.ones(1, SUBSETS, 1, V * V),  # what a bias is multiplied with
            value=unit.value_weight[:rows, :, None, None], value_bias=unit.value_bias[:rows, 0],
        )  # fmt: skip
        if unit.shortcut:
            self.keep(down=unit.value_weight[rows:, :, None, None], shift=(unit.value_bias[rows:] + unit.shift)[:, 0])
        else:
            self.keep(shift=unit.shift[:, :, None])

    def topology(self, x: Tensor) -> Tensor:
        """(B, C_in, V, T) -> (B, C_out, V, 3 V), row u being what joint u collects."""
        B, V = x.shape[0], self.joints
        related = torch.matmul(self.relate, x.mean(dim=3)) + self.relate_bias
        query, key = related.unflatten(1, (2, SUBSETS, self.relation)).unbind(1)
        relation = torch.sigmoid(query.unsqueeze(-1) - key.unsqueeze(-2)).flatten(3)
        rows = torch.cat([relation, *(row.expand(B, -1, -1, -1) for row in (self.graph, self.ones))], dim=2)
        topology = torch.matmul(self.expand, rows).unflatten(3, (V, V))
        return topology.permute(0, 2, 3, 1, 4).reshape(B, self.channels, V, SUBSETS * V)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, V, T) -> (B, C_out, V, T)."""
        values = F.conv2d(x, self.value, self.value_bias).reshape(-1, self.channels, SUBSETS * self.joints, x.shape[3])
        y = torch.matmul(self.topology(x), values)
        if self.shortcut:
            return torch.relu(F.conv2d(x, self.down, self.shift) + y)
        return torch.relu(y + self.shift + x)


class _Temporal(Folded):
    """A temporal unit, without the activation behind it."""

    inner: Tensor
    inner_bias: Tensor
    point: Tensor
    point_bias: Tensor
    near: Tensor
    near_bias: Tensor
    far: Tensor
    far_bias: Tensor
    peak: Tensor
    peak_bias: Tensor

    def __init__(self, unit: LeanTemporal) -> None:
        super().__init__()
        self.stride, self.branch = unit.stride, unit.branch
        rows, weight, bias = 3 * unit.branch, unit.reduce_weight[:, :, None, None], unit.reduce_bias[:, 0]
        self.keep(
            inner=weight[:rows], inner_bias=bias[:rows], point=weight[rows:], point_bias=bias[rows:],
            near=unit.scales_weight[0], near_bias=unit.scales_bias[0, :, 0],
            far=unit.scales_weight[1], far_bias=unit.scales_bias[1, :, 0],
            peak=unit.peak_scale[..., None], peak_bias=unit.peak_shift[:, 0, 0],
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, V, T) -> (B, C, V, ceil(T / stride))."""
        step = (1, self.stride)
        near, far, peak = torch.relu(F.conv2d(x, self.inner, self.inner_bias)).split(self.branch, dim=1)
        near = F.conv2d(near, self.near, self.near_bias, step, (0, 2))
        far = F.conv2d(far, self.far, self.far_bias, step, (0, 4), (1, 2))
        # As a convolution, whose scale and bias an integer graph computes in integers.
        peak = F.conv2d(F.max_pool2d(peak, (1, 3), step, (0, 1)), self.peak, self.peak_bias, groups=self.branch)
        return torch.cat([near, far, peak, F.conv2d(x, self.point, self.point_bias, step)], dim=1)


class _Unit(Folded):
    """A unit with its residual."""

    weight: Tensor
    bias: Tensor

    def __init__(self, unit: LeanUnit) -> None:
        super().__init__()
        assert isinstance(unit.spatial, LeanSpatial)
        self.spatial, self.temporal = _Spatial(unit.spatial), _Temporal(unit.temporal)
        self.identity, self.shortcut, self.stride = unit.identity, unit.shortcut, unit.temporal.stride
        if unit.shortcut:
            self.keep(weight=unit.weight[:, :, None, None], bias=unit.bias[:, 0])

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, V, T) -> (B, C_out, V, ceil(T / stride))."""
        y = self.temporal(self.spatial(x))
        if self.identity:
            y = y + x
        elif self.shortcut:
            y = F.conv2d(x, self.weight, self.bias, (1, self.stride)) + y
        return torch.relu(y)
