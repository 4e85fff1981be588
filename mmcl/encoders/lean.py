"""Forms for use only: an encoder's function in evaluation, with everything constant worked out beforehand.

Constants are folded unit by unit (``ctrgcn/lean_units.py``, ``hyperformer/lean.py``). A body that is all zeros is not
computed: its feature depends on nothing but the number of frames. On a CPU a few bodies go through at a time, or a few
a thread, so that what they need stays in the cache. Tensors are (B, C, V, T).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmcl.common.threads import side_by_side
from mmcl.encoders.bodies import present_bodies


def scale_and_shift(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """A batch norm in evaluation as y = scale * x + shift, by channel."""
    assert isinstance(norm, nn.modules.batchnorm._BatchNorm)
    assert norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    return scale, norm.bias - scale * norm.running_mean


def folded(conv: nn.Module, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """Weight (C_out, C_in, 1, kernel) and bias (C_out,) of a convolution followed by y = scale * x + shift."""
    assert isinstance(conv, nn.Conv2d) and conv.bias is not None
    return conv.weight * scale.view(-1, 1, 1, 1), conv.bias * scale + shift


def channels_outside(x: Tensor) -> bool:
    """Whether bodies go through eagerly whose numbers lie in memory channel by channel, as those of one body do.

    Then fewer, larger products with less copying are open: all bodies' joints and frames are columns of one matrix.
    """
    if torch.compiler.is_compiling():  # a tracer may not know the number of bodies
        return False
    return x.shape[0] == 1 or x.transpose(0, 1).is_contiguous()


def mix(weight: Tensor, bias: Tensor, x: Tensor) -> Tensor:
    """A 1x1 convolution as one product: (C_out, C_in, 1, 1), (C_out,), (C_in, B, V, T) -> (C_out, B, V, T)."""
    return torch.addmm(bias[:, None], weight.flatten(1), x.flatten(1)).view(-1, *x.shape[1:])


class Folded(nn.Module):
    """A module whose tensors are constants: buffers, so that they move and are saved, but nothing to train."""

    def keep(self, **tensors: Tensor) -> None:
        """Register constants under their names."""
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor.detach().clone().contiguous())


def normalised(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """(N, M, T, V, C) -> (N * M, C, V, T), what the trunk takes; numbers of the first batch norm."""
    return (x * scale + shift).permute(0, 1, 4, 3, 2).flatten(0, 1).contiguous()


class LeanBodies(Folded):
    """The function of a :class:`~mmcl.encoders.body_encoder.BodyEncoder` in evaluation, for use only.

    Args:
        persons: M of the encoder.
        joints: V.
        data_bn: the batch norm over (person, joint, coordinate) of its input; it and the classifier are copied.
        units: folded; one after the other they are the trunk, (B, C, V, T) -> (B, D, V, T').
        classifier: from features to scores.
        frames: T that will come, for which the feature of an empty body is worked out at once; others work, too.
        columns: joints x frames that go through the trunk together on a CPU where the units are quick with channels
            outside; zero for one body at a time.

    Attributes:
        few_at_a_time: whether bodies go through the trunk in small groups on a CPU, see ``columns``.
        packed: whether a tracer, too, sees the bodies alone that are there. Only clips of the frames that were given
            work then, and the tracer must take a number of rows that depends on the data, as ``torch.export`` does.
    """

    few_at_a_time, packed = True, False
    scale: Tensor
    shift: Tensor
    empty: Tensor
    weight: Tensor
    bias: Tensor

    def __init__(
        self, persons: int, joints: int, data_bn: nn.BatchNorm1d, units: Iterable[nn.Module], classifier: nn.Linear,
        frames: int | None = None, columns: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.units, self.columns = nn.ModuleList(units), columns
        self.persons, self.joints = persons, joints
        self.channels = data_bn.num_features // (persons * joints)
        self.feature_width, self.classes = classifier.in_features, classifier.out_features
        scale, shift = (part.view(persons, 1, joints, self.channels) for part in scale_and_shift(data_bn))
        self.keep(scale=scale, shift=shift, weight=classifier.weight, bias=classifier.bias)
        self.register_buffer("empty", torch.zeros(0, 0), persistent=False)
        self.empty_frames = 0
        self.eval()
        if frames is not None:
            self.empty_features(frames)

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self.empty_frames = 0  # other constants make another feature of an empty body

    def normalise(self, x: Tensor) -> Tensor:
        """(N, M, T, V, C) -> (N * M, C, V, T)."""
        return normalised(x, self.scale, self.shift)

    def trunk(self, bodies: Tensor) -> Tensor:
        """(B, C, V, T) -> (B, D), the mean over frames and joints."""
        for unit in self.units:
            bodies = unit(bodies)
        return bodies.mean(dim=(2, 3))

    def a_few_each(self, bodies: Tensor) -> list[Tensor]:
        """(B, C, V, T) as it goes through the units on a CPU: at most as many bodies at a time as ``columns`` says.

        Groups are of one size, and every thread has as many of them, so that none waits for another one's last group.
        """
        together = max(1, self.columns // bodies[0, 0].numel())
        threads = torch.get_num_threads()
        groups = -(-len(bodies) // (together * threads)) * threads
        parts = bodies.tensor_split(min(groups, len(bodies)))
        return [part.transpose(0, 1).contiguous().transpose(0, 1) for part in parts]

    def empty_features(self, frames: int) -> Tensor:
        """(M, D): the feature of an empty body in each slot, which is kept for the number of frames last asked for.

        It is computed without autocast, since it is kept for calls with and without.
        """
        if (
            self.empty_frames != frames
            or self.empty.device != self.scale.device
            or self.empty.dtype != self.scale.dtype
        ):
            with torch.autocast(self.scale.device.type, enabled=False):
                zeros = self.scale.new_zeros(1, self.persons, frames, self.joints, self.channels)
                self.empty, self.empty_frames = self.trunk(self.normalise(zeros)), frames
        return self.empty

    def features(self, x: Tensor) -> Tensor:
        """(N, M, T, V, C) -> (N, D)."""
        N, M = x.shape[:2]
        bodies, traced = self.normalise(x), torch.compiler.is_compiling()
        if traced and not self.packed:  # a number of rows that depends on the data would break the graph
            return self.trunk(bodies).unflatten(0, (N, M)).mean(dim=1)
        rows = present_bodies(x).flatten().nonzero()[:, 0]
        if traced:
            found = self.empty.repeat(N, 1).index_put((rows,), self.trunk(bodies[rows]))
            return found.unflatten(0, (N, M)).mean(dim=1)
        found = self.empty_features(x.shape[2]).repeat(N, 1)
        if not len(rows):
            return found.unflatten(0, (N, M)).mean(dim=1)
        bodies = bodies[rows]
        parts = self.a_few_each(bodies) if self.few_at_a_time and x.device.type == "cpu" else [bodies]
        found[rows] = torch.cat(side_by_side(self.trunk, parts)).to(found.dtype)
        return found.unflatten(0, (N, M)).mean(dim=1)

    def head(self, features: Tensor) -> Tensor:
        """(N, D) -> (N, K) unnormalised scores."""
        return F.linear(features, self.weight, self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, M, T, V, C) -> (N, K) unnormalised scores."""
        return self.head(self.features(x))
