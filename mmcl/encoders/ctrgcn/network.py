"""CTR-GCN: Channel-wise Topology Refinement Graph Convolution (Chen et al., ICCV 2021), parameter for parameter.

Spatial units are in ``spatial.py``, temporal units in ``temporal.py``, both together in ``units.py``; this file stacks
them. Their causal forms are in ``causal.py``, and the network step by step is in ``continual.py``. At the default
options the network has 1,462,092 parameters for 120 classes, 25 joints and 2 persons, as the published one.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from mmcl.common.errors import UserError
from mmcl.encoders.bodies import EMPTY_BODIES
from mmcl.encoders.body_encoder import BodyEncoder
from mmcl.encoders.ctrgcn.causal import HOLD, CausalUnit, recent_mean, seen_after, whole_steps, with_presence
from mmcl.encoders.ctrgcn.continual import ContinualCTRGCN
from mmcl.encoders.ctrgcn.lean_units import COLUMNS, LeanSpatial, LeanUnit
from mmcl.encoders.ctrgcn.temporal import BRANCHES
from mmcl.encoders.ctrgcn.units import Unit
from mmcl.encoders.graph import SUBSETS, spatial_graph
from mmcl.encoders.lean import LeanBodies
from mmcl.skeletons.layout import Layout

STAGES = 3  # widths W, 2W, 4W; the first unit of the second and third halves the frames


@dataclass(frozen=True)
class CTRGCNOptions:
    """Options of :class:`CTRGCN`; the defaults are the published network.

    Attributes:
        width: channels of the first stage, a multiple of 8; the stages have width, 2 width, 4 width.
        depth: units in all, at least 3. The three stages share them evenly, earlier stages first: 10 is 4 + 3 + 3 as
            published, 6 is 2 + 2 + 2, 4 is 2 + 1 + 1.
        persons: M, bodies in every clip (absent ones are zeros).
        channels: C, coordinates of a joint.
        dropout: on the feature, before the classifier.
        adaptive: learn the adjacency, as published; otherwise it stays the skeleton's.
        empty_bodies: "once" computes the empty bodies of a batch once a slot, "each" one by one, as published; see
            ``bodies.py``. Only batch-norm statistics in training depend on it.
        causal: no answer depends on a frame that comes after it (``causal.py``), so that the network can also run
            frame by frame, each for a small part of what a clip costs (``continual.py``).
        memory: frames that means over time look back on where the network is causal, a multiple of 16: those that
            refine a topology, and that of the answer.
    """

    width: int = 64
    depth: int = 10
    persons: int = 2
    channels: int = 3
    dropout: float = 0.0
    adaptive: bool = True
    empty_bodies: str = "once"
    causal: bool = False
    memory: int = 64

    def __post_init__(self) -> None:
        if self.width < 8 or self.width % 8:
            raise UserError(f"ctrgcn.width must be a multiple of 8, not {self.width}")
        if self.depth < STAGES:
            raise UserError(f"ctrgcn.depth must be at least {STAGES}, one unit a stage, not {self.depth}")
        if self.persons < 1 or self.channels < 1:
            raise UserError(f"ctrgcn needs persons and channels >= 1, not {self.persons} and {self.channels}")
        if not 0.0 <= self.dropout < 1.0:
            raise UserError(f"ctrgcn.dropout must lie in [0, 1), not {self.dropout}")
        if self.empty_bodies not in EMPTY_BODIES:
            choices = " or ".join(EMPTY_BODIES)
            raise UserError(f"ctrgcn.empty_bodies must be {choices}, not {self.empty_bodies!r}")
        if self.memory < HOLD or self.memory % HOLD:
            raise UserError(f"ctrgcn.memory must be a multiple of {HOLD} frames, not {self.memory}")


def plan_units(options: CTRGCNOptions) -> list[tuple[int, int, int]]:
    """(C_in, C_out, stride along time) of each unit, by the rule of ``CTRGCNOptions.depth``."""
    units = []
    channels = options.channels
    for stage in range(STAGES):
        count = options.depth // STAGES + (stage < options.depth % STAGES)
        for position in range(count):
            width = options.width * 2**stage
            units.append((channels, width, 2 if stage and not position else 1))
            channels = width
    return units


class CTRGCN(BodyEncoder):
    """CTR-GCN over any layout. Its feature is MMCL's F_g.

    Args:
        layout: joints and edges.
        classes: K.
        options: see :class:`CTRGCNOptions`.
    """

    options_type: ClassVar[type] = CTRGCNOptions
    tiny = MappingProxyType({"width": 8, "depth": 3})
    fused = MappingProxyType({"*.relate": 2 * SUBSETS, "*.reduce": BRANCHES})

    def __init__(self, layout: Layout, classes: int, options: CTRGCNOptions | None = None) -> None:
        options = options or CTRGCNOptions()
        super().__init__(layout, classes, options)
        graph, kind = spatial_graph(layout), CausalUnit if options.causal else Unit
        self.units = nn.ModuleList(
            kind(c_in, c_out, stride, graph, options.adaptive, first=number == 0)
            for number, (c_in, c_out, stride) in enumerate(plan_units(options))
        )
        rate = 1
        for unit in self.units:
            if isinstance(unit, CausalUnit):
                rate = unit.look_back(rate, options.memory)
        self.add_classifier(options.width * 2 ** (STAGES - 1))

    def normalise(self, x: Tensor) -> Tensor:
        """(N, M, T, V, C) -> (N * M, C, V, T); a causal network gets two channels more, see ``with_presence``."""
        bodies = super().normalise(x)
        return with_presence(bodies, x) if self.options.causal else bodies

    def trunk(self, bodies: Tensor) -> Tensor:
        """(B, C, V, T) -> (B, D, V, T'); of a causal network with two channels more, as :meth:`normalise`."""
        if not self.options.causal:
            return super().trunk(bodies)
        bodies, seen, lasting = whole_steps(bodies)
        for unit in cast("list[Unit]", self.units):
            stride = unit.temporal.stride
            bodies, seen, lasting = unit(bodies, seen), seen_after(seen, stride), seen_after(lasting, stride)
        return torch.cat([bodies, torch.cat([seen, lasting], dim=1).expand(-1, -1, bodies.shape[2], -1)], dim=1)

    def features(self, x: Tensor) -> Tensor:
        """(N, M, T, V, C) -> (N, D): the mean over frames (the last ones, if causal) and joints, then over persons.

        Raises:
            UserError: another number of persons, joints or channels than the encoder was built for.
        """
        if not self.options.causal:
            return super().features(x)
        memory = self.options.memory
        return self.each_body(lambda bodies: recent_mean(self.trunk(bodies), memory), x).mean(dim=1)

    def outputs(self, x: Tensor) -> dict[str, Tensor]:
        """``tokens`` (N, M, T', V, D) before any mean, and of them ``features`` (N, D) and ``scores`` (N, K)."""
        if not self.options.causal:
            return super().outputs(x)
        found = self.each_body(self.trunk, x)
        features = recent_mean(found.flatten(0, 1), self.options.memory).unflatten(0, found.shape[:2]).mean(dim=1)
        return {"features": features, "scores": self.head(features), "tokens": found[:, :, :-2].permute(0, 1, 4, 3, 2)}

    def continual(self) -> ContinualCTRGCN | None:
        """The same function step by step, if the network is causal: see ``continual.py``."""
        return ContinualCTRGCN(self) if self.options.causal else None

    def lean(self, frames: int | None = None) -> nn.Module:
        """The same function for use only, with all constants folded and empty bodies free: see ``lean.py``.

        Of a causal network it is a plain copy: what is folded there is the form that goes step by step.
        """
        if self.options.causal:
            return super().lean(frames)
        units = [
            LeanUnit(LeanSpatial(unit.spatial), unit.temporal, unit.residual) for unit in cast("list[Unit]", self.units)
        ]
        return LeanBodies(
            self.options.persons, self.layout.joint_count, self.data_bn, units, self.classifier, frames, COLUMNS
        )
