"""Options of the edge-importance graph network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from mmcl.common.errors import UserError

InputName = Literal["joint", "velocity", "bone", "acceleration"]
Activation = Literal["relu", "relu6", "silu", "hardswish"]
Attention = Literal["joint", "joint_time", "part", "channel", "frame"]
TemporalKind = Literal["basic", "shuffle", "separable", "bottleneck", "sandglass", "mobile"]
HOPS = 3  # released: the adjacency is normalised over joints up to this far apart


@dataclass(frozen=True)
class EdgeGCNOptions:
    """Options of :class:`~mmcl.encoders.edge_gcn.network.EdgeGCN`; the defaults are the student for NTU RGB+D.

    Widths of blocks are multiples of 16, as the search that found the network has them.

    Attributes:
        inputs: what is made of joints, each read by a branch of its own. ``joint``: places, also relative to the
            centre; ``velocity``: differences to the next frame and the one after; ``bone``: vectors from parents, and
            their angles to the axes; ``acceleration``: differences of smoothed velocity.
        smooth: smooth velocity before it is differentiated (Butterworth of order 8, forwards and backwards).
        activation: of all layers.
        attention: what the layer at the end of a block weighs.
        temporal: kind of the temporal layers in the blocks of the branches; those behind are ``basic``.
        width: channels of the first layers.
        expand: channels inside ``separable`` and ``mobile`` layers, in channels around them; 0 leaves out a layer.
        reduce: channels around ``bottleneck``, ``sandglass`` and ``shuffle`` layers, and around the attention of parts
            and of joints and frames, in channels inside them.
        input_blocks: in each branch.
        input_depth: temporal layers of each of them.
        input_stride: along time, of the first of them.
        input_scale: channels of each block in channels of what is in front, at least 32.
        input_window: frames of their temporal convolutions.
        input_distance: hops that their spatial convolutions reach.
        main_blocks: behind the branches.
        main_depth: temporal layers of each of them.
        main_stride: along time, of the first of them.
        main_scale: channels of each block but the last in channels of what is in front, up to ``main_width``.
        main_width: see there.
        main_window: frames of their temporal convolutions.
        main_distance: hops that their spatial convolutions reach.
        last_width: D, channels of the last block.
        dropout: on the feature, before the classifier.
        persons: M, bodies in every clip (absent ones are zeros).
        channels: C, coordinates of a joint.
        released: compute what the released code computes where it departs from its sources: the temporal layers of a
            block behind the branches replace each other, so that only one, without stride, is left if there are
            several; the gate of a ``mobile`` layer replaces what it should scale; joints are relative to joint 1.
    """

    inputs: tuple[InputName, ...] = ("joint", "velocity", "bone", "acceleration")
    smooth: bool = True
    activation: Activation = "relu"
    attention: Attention = "joint"
    temporal: TemporalKind = "shuffle"
    width: int = 128
    expand: float = 1.0
    reduce: float = 1.0
    input_blocks: int = 1
    input_depth: int = 2
    input_stride: int = 2
    input_scale: float = 1.0
    input_window: int = 5
    input_distance: int = 1
    main_blocks: int = 2
    main_depth: int = 1
    main_stride: int = 1
    main_scale: float = 1.0
    main_width: int = 128
    main_window: int = 5
    main_distance: int = 2
    last_width: int = 48
    dropout: float = 0.2
    persons: int = 2
    channels: int = 3
    released: bool = False

    def __post_init__(self) -> None:
        self._check_names()
        for name in ("width", "main_width", "last_width", "input_depth", "input_stride", "main_blocks", "main_depth",
                     "main_stride", "persons", "channels"):  # fmt: skip
            if getattr(self, name) < 1:
                raise UserError(f"edge_gcn.{name} must be at least 1, not {getattr(self, name)}")
        for name in ("input_window", "main_window"):
            if getattr(self, name) < 1 or getattr(self, name) % 2 == 0:
                raise UserError(f"edge_gcn.{name} must be an odd number of frames, not {getattr(self, name)}")
        for name in ("input_distance", "main_distance"):
            if not 0 <= getattr(self, name) <= HOPS:
                raise UserError(f"edge_gcn.{name} must be 0 to {HOPS} hops, not {getattr(self, name)}")
        for name in ("input_scale", "main_scale"):
            if not 0.0 < getattr(self, name) < float("inf"):
                raise UserError(f"edge_gcn.{name} must be above 0, not {getattr(self, name)}")
        if self.input_blocks < 0:
            raise UserError(f"edge_gcn.input_blocks must be 0 or more, not {self.input_blocks}")
        if not 0.0 <= self.expand < float("inf") or not 1.0 <= self.reduce < float("inf"):
            raise UserError(f"edge_gcn.expand must be at least 0, reduce at least 1: {self.expand} and {self.reduce}")
        if not 0.0 <= self.dropout < 1.0:
            raise UserError(f"edge_gcn.dropout must lie in [0, 1), not {self.dropout}")
        self._check_reduced()

    def _check_reduced(self) -> None:
        """Whether something is left of every layer that is reduced."""
        inputs = input_widths(self) if self.temporal in ("bottleneck", "sandglass", "shuffle") else []
        every = [*input_widths(self), *main_widths(self)] if self.attention in ("part", "joint_time") else []
        least = min((*inputs, *every), default=self.reduce)
        if least < self.reduce:
            raise UserError(f"edge_gcn.reduce is {self.reduce:g}: nothing is left of a layer of {least} channels")

    def _check_names(self) -> None:
        for name, value, kind in (("activation", self.activation, Activation), ("attention", self.attention, Attention),
                                  ("temporal", self.temporal, TemporalKind),
                                  *(("inputs", one, InputName) for one in self.inputs)):  # fmt: skip
            if value not in get_args(kind):
                raise UserError(f"edge_gcn.{name} must be of {', '.join(get_args(kind))}, not {value!r}")
        if not self.inputs or len(set(self.inputs)) < len(self.inputs):
            raise UserError(f"edge_gcn.inputs must name at least one input, each once, not {list(self.inputs)}")


def rounded(width: float) -> int:
    """The multiple of 16 nearest to a width."""
    return int(round(width / 16)) * 16


def input_widths(options: EdgeGCNOptions) -> list[int]:
    """Channels of the blocks of a branch."""
    widths, last = [], options.width
    for _ in range(options.input_blocks):
        last = max(rounded(last * options.input_scale), 32)
        widths.append(last)
    return widths


def main_widths(options: EdgeGCNOptions) -> list[int]:
    """Channels of the blocks behind the branches."""
    last = (input_widths(options) or [options.width])[-1] * len(options.inputs)
    widths = []
    for _ in range(options.main_blocks - 1):
        last = max(16, min(rounded(last * options.main_scale), options.main_width))
        widths.append(last)
    return [*widths, options.last_width]
