"""STEP-CATFormer: CTR-GCN, then attention between halves of the body and over time, with heads that meet texts.

Long, Hiroki, Furukawa, Ide, "STEP-CATFormer: Spatial-Temporal Effective Body-Part Cross Attention Transformer for
Skeleton-based Action Recognition", BMVC 2023, parameter for parameter as in the official ``model/ctrgcn.py``
(``Model_lst_4part``): 417,977,435 for 60 classes, 25 joints and 2 persons, of which ten square matrices over whole
frames hold 98 %.

Four part modules (``parts.py``) follow the trunk, two and two; behind each two stands a temporal module
(``temporal.py``), which also sees what the trunk found at four depths. Their sum goes, frame by frame, through a last
network, and its mean is the feature. The trunk has a classifier of its own, and heads for texts that describe the whole
body and four parts of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from mmcl.common.errors import UserError
from mmcl.common.precision import exact_product
from mmcl.encoders.bodies import EMPTY_BODIES
from mmcl.encoders.body_encoder import BodyEncoder
from mmcl.encoders.ctrgcn.network import STAGES, CTRGCNOptions, plan_units
from mmcl.encoders.ctrgcn.temporal import BRANCHES
from mmcl.encoders.ctrgcn.units import Unit
from mmcl.encoders.graph import SUBSETS, spatial_graph
from mmcl.encoders.step_catformer.lean import LeanStepCATFormer
from mmcl.encoders.step_catformer.refinement import Refinement
from mmcl.encoders.step_catformer.sets import TEXT_PARTS, bone_matrix, text_parts
from mmcl.skeletons.layout import Layout

TEMPERATURE = 0.07  # of texts and features, to begin with


@dataclass(frozen=True)
class StepCATFormerOptions:
    """Options of :class:`StepCATFormer`; the defaults are the published network, with joints in their order.

    Attributes:
        width: channels of the trunk's first stage, a multiple of 8; behind the trunk, D is 4 times that.
        depth: units of the trunk, as for CTR-GCN.
        heads: of every attention; it divides D / 4.
        text_width: of the space where texts are met; 512 is that of CLIP ViT-B/32.
        bone_power: k of I - A^k, which the input is multiplied with: 1 takes each joint's parent from it. 0 leaves the
            input as it is, where the formula would make it all zeros. The released joint models have 8, which leaves
            NTU's joints as 0 does, and the bone model has 1.
        persons: M, bodies in every clip (absent ones are zeros).
        channels: C, coordinates of a joint.
        dropout: on the feature and on the trunk's, before the classifiers.
        adaptive: learn the trunk's adjacency, as published.
        released: leave joints in the order in which the part modules join their sets, as the released code does, which
            takes them for the layout's order in the next module; and have the released lists of joints for texts and
            the released root of NTU's bones.
        empty_bodies: "once" computes the empty bodies of a batch once a slot, "each" one by one, as published.
    """

    width: int = 64
    depth: int = 10
    heads: int = 8
    text_width: int = 512
    bone_power: int = 0
    persons: int = 2
    channels: int = 3
    dropout: float = 0.0
    adaptive: bool = True
    released: bool = False
    empty_bodies: str = "once"

    def __post_init__(self) -> None:
        for name, least in {"heads": 1, "text_width": 1, "persons": 1, "channels": 1, "bone_power": 0}.items():
            if getattr(self, name) < least:
                raise UserError(f"step_catformer.{name} must be at least {least}, not {getattr(self, name)}")
        if self.width < 8 or self.width % 8 or self.width % self.heads:
            raise UserError(
                f"step_catformer.width must be a multiple of 8 and of its heads ({self.heads}), not {self.width}"
            )
        if self.depth < STAGES:
            raise UserError(f"step_catformer.depth must be at least {STAGES}, one unit a stage, not {self.depth}")
        if not 0.0 <= self.dropout < 1.0:
            raise UserError(f"step_catformer.dropout must lie in [0, 1), not {self.dropout}")
        if self.empty_bodies not in EMPTY_BODIES:
            choices = " or ".join(EMPTY_BODIES)
            raise UserError(f"step_catformer.empty_bodies must be {choices}, not {self.empty_bodies!r}")

    @property
    def trunk(self) -> CTRGCNOptions:
        """Of the CTR-GCN inside."""
        return CTRGCNOptions(self.width, self.depth, self.persons, self.channels, adaptive=self.adaptive)


class StepCATFormer(BodyEncoder):
    """STEP-CATFormer over any layout that has arms and legs. Absent bodies are treated as CTR-GCN treats them.

    Args:
        layout: joints, bones and parts.
        classes: K.
        options: see :class:`StepCATFormerOptions`.

    Raises:
        UserError: the layout's parts name no arms or no legs.
    """

    options_type: ClassVar[type] = StepCATFormerOptions
    tiny = MappingProxyType({"width": 8, "depth": 3, "heads": 2, "text_width": 8})
    fused = MappingProxyType({"units.*.relate": 2 * SUBSETS, "units.*.reduce": BRANCHES})
    head_parts: ClassVar[tuple[str, ...]] = ("dropout", "classifier", "trunk_classifier")
    beside_parts: ClassVar[tuple[str, ...]] = ("text_heads", "text_scales", "trunk_classifier")
    described_parts: ClassVar[tuple[str, ...]] = TEXT_PARTS
    bones: Tensor

    def __init__(self, layout: Layout, classes: int, options: StepCATFormerOptions | None = None) -> None:
        options = options or StepCATFormerOptions()
        super().__init__(layout, classes, options)
        D = 4 * options.width
        graph, plan = spatial_graph(layout), plan_units(options.trunk)
        self.units = nn.ModuleList(
            Unit(c_in, c_out, stride, graph, options.adaptive, first=number == 0)
            for number, (c_in, c_out, stride) in enumerate(plan)
        )
        widths = [c_out for _, c_out, _ in plan]
        self.token_units = [*(widths.index(options.width * 2**stage) for stage in range(STAGES)), len(plan) - 1]
        self.to_tokens = nn.ModuleList(
            nn.Sequential(nn.Conv2d(widths[unit], D, 1, (1, stride)), nn.BatchNorm2d(D))
            for unit, stride in zip(self.token_units, (4, 2, 1, 1), strict=True)
        )
        self.mix_tokens = nn.Conv2d(D, D, 1)
        self.refinement = Refinement(layout, D, options.heads, options.released)
        self.text_heads = nn.ModuleList(nn.Linear(D, options.text_width) for _ in range(1 + len(TEXT_PARTS)))
        self.text_scales = nn.Parameter(torch.full((1 + len(TEXT_PARTS),), 1 / TEMPERATURE).log())
        self.trunk_classifier = nn.Linear(D, classes)
        self.reset_heads()
        self.add_classifier(D)
        bones = bone_matrix(layout, options.bone_power, options.released)
        self.register_buffer("bones", bones if options.bone_power else torch.eye(len(bones)), persistent=False)
        self.described = text_parts(layout, options.released, bones=options.bone_power == 1)

    def reset_heads(self) -> None:
        """Published initialisation of what classifies the trunk and of the whole body's text head."""
        nn.init.normal_(self.trunk_classifier.weight, 0.0, (2.0 / self.classes) ** 0.5)
        whole = cast("nn.Linear", self.text_heads[0])
        nn.init.kaiming_normal_(whole.weight, mode="fan_out")
        nn.init.zeros_(whole.bias)

    def normalise(self, x: Tensor) -> Tensor:
        """(N, M, T, V, C) -> (N * M, C, V, T), what the trunk takes: bones of the input, if asked for, and normed."""
        return super().normalise(exact_product(self.bones, x) if self.options.bone_power else x)

    def see(self, bodies: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, V, T) -> what CTR-GCN finds: joints (B, D, V, T') and tokens of four depths (B, D, T', 4)."""
        tokens: dict[int, Tensor] = {}
        for number, unit in enumerate(self.units):
            bodies = unit(bodies)
            for depth, place in enumerate(self.token_units):
                if place == number:
                    tokens[depth] = self.to_tokens[depth](bodies).mean(dim=2)
        return bodies, self.mix_tokens(torch.stack([tokens[depth] for depth in range(len(tokens))], dim=3))

    def trunk(self, bodies: Tensor) -> Tensor:
        """(B, C, V, T) -> (B, D, V, T'): the whole network on bodies, of which the mean is the feature."""
        return self.refinement(*self.see(bodies))

    def features(self, x: Tensor) -> Tensor:
        """(N, M, T, V, C) -> (N, D): the mean over frames and joints, then over persons."""
        features = super().features(x)
        if self.training:  # processes that train together wait for a gradient of every parameter
            unused = [*self.text_heads.parameters(), self.text_scales, *self.trunk_classifier.parameters()]
            features = features + 0.0 * sum(parameter.sum() for parameter in unused)
        return features

    def outputs(self, x: Tensor) -> dict[str, Tensor]:
        """Everything that the losses of the paper need.

        ``features`` (N, D), ``scores`` (N, K) and ``tokens`` (N, M, T', V, D) as of any encoder; ``trunk_scores``
        (N, K) of CTR-GCN alone; ``parts`` (N, 4, D), what CTR-GCN finds in the joints of head, hand, hip and foot;
        ``text_features`` (N, 5, E), where texts of the whole body and of these parts are met; ``text_scales`` (5,), the
        logarithm of what the cosine of each is multiplied with. Task ``part_texts`` trains with them.
        """

        def both(bodies: Tensor) -> Tensor:
            joints, tokens = self.see(bodies)
            return torch.stack([self.refinement(joints, tokens), joints], dim=1)

        tokens, trunk = self.each_body(both, x).unbind(2)  # (N, M, D, V, T')
        features = tokens.mean(dim=(3, 4)).mean(dim=1)
        parts = [trunk[:, :, :, list(joints)].mean(dim=(3, 4)).mean(dim=1) for joints in self.described.values()]
        whole = trunk.mean(dim=(3, 4)).mean(dim=1)
        heads = zip(self.text_heads, (whole, *parts), strict=True)
        return {
            "features": features, "scores": self.head(features), "tokens": tokens.permute(0, 1, 4, 3, 2),
            "trunk_scores": self.trunk_classifier(self.dropout(whole)), "parts": torch.stack(parts, dim=1),
            "text_features": torch.stack([head(feature) for head, feature in heads], dim=1),
            "text_scales": self.text_scales,
        }  # fmt: skip

    def depth(self) -> list[list[nn.Module | nn.Parameter]]:
        """The input's batch norm, the trunk unit by unit, what stands behind it, text heads."""
        units: list[list[nn.Module | nn.Parameter]] = [[unit] for unit in self.units]
        for place, tokens in zip(self.token_units, self.to_tokens, strict=True):
            units[place].append(tokens)
        units[-1].append(self.mix_tokens)
        return [[self.data_bn], *units, *self.refinement.depth(), [self.text_heads, self.text_scales]]

    def lean(self, frames: int | None = None) -> LeanStepCATFormer:
        """The same function for use only, without the heads of trunk and texts: see ``lean.py``."""
        tokens = (self.token_units, self.to_tokens, self.mix_tokens)
        bones = self.bones if self.options.bone_power else None
        return LeanStepCATFormer(self, tokens, self.refinement, bones, frames).requires_grad_(False)
