"""STTFormer (Qiu, Hou, Ren, An: "Spatio-Temporal Tuples Transformer", 2022) as CHARON (ICPR 2024) changed it.

CHARON lets attention end in a softmax, gives all tuples one position code in front of the layers, and adds what the
persons of a clip say. At the default options the network has 1,531,180 parameters for 60 classes, as the published one.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils import fusion

from mmcl.encoders.base import Encoder
from mmcl.encoders.bodies import Bodies, each_is_computed, present_bodies
from mmcl.encoders.sttformer.layers import SLOPE, TupleLayer, conv_norm, position_code, to_tuples
from mmcl.encoders.sttformer.options import STTFormerOptions
from mmcl.encoders.tokens import whole_groups
from mmcl.skeletons.layout import Layout


class STTFormer(Encoder):
    """A transformer whose tokens are the joints of a few consecutive frames.

    What training with masked tuples needs is :meth:`bodies`, :meth:`embed`, :meth:`encode` and :meth:`combine`.

    Args:
        layout: joints; its edges are not used.
        classes: K.
        options: see :class:`STTFormerOptions`.
    """

    options_type: ClassVar[type] = STTFormerOptions
    tiny = MappingProxyType({"width": 8, "layers": [[8, 4], [8, 4]], "heads": 2, "persons": 2})
    fused = MappingProxyType({"*.query_key": 2})
    positions: Tensor

    def __init__(self, layout: Layout, classes: int, options: STTFormerOptions | None = None) -> None:
        options = options or STTFormerOptions()
        super().__init__(layout, classes, options)
        tokens = options.tuple_frames * layout.joint_count
        self.feature_width = options.layers[-1][0]
        self.input_map = nn.Sequential(*conv_norm(options.channels, options.width), nn.LeakyReLU(SLOPE))
        self.register_buffer("positions", position_code(tokens, options.width), persistent=False)
        self.layers = tuple_layers(options, options.width, options.layers, tokens)
        self.absent = nn.Parameter(torch.zeros(self.feature_width))
        self.dropout = nn.Dropout(options.dropout) if options.dropout else nn.Identity()
        self.classifier = nn.Linear(self.feature_width, classes)
        nn.init.xavier_normal_(self.classifier.weight)
        nn.init.zeros_(self.classifier.bias)

    def bodies(self, x: Tensor) -> Bodies:
        """(N, M, T, V, C) -> the bodies to compute: those that are there.

        A graph that is traced for use computes all: a number of rows that depends on data would break it. At least one
        body is computed, so that batch norms have something to measure.
        """
        self.check(x)
        present = present_bodies(x)
        if self.options.released:
            present = x.flatten(2).sum(dim=2) > 0
            present[:, 0] = True
        if each_is_computed() and not self.training:
            return Bodies(present, None)
        computed = present.flatten()
        computed = torch.cat([computed[:1] | ~computed.any(), computed[1:]])
        return Bodies(present, computed.nonzero().squeeze(1))

    def embed(self, bodies: Tensor) -> Tensor:
        """(B, T, V, C) -> (B, W, T', V'): input map and position code, T' tuples of V' = frames * V tokens."""
        tuples = to_tuples(whole_groups(bodies, self.options.tuple_frames), self.options.tuple_frames)
        return self.input_map(tuples) + self.positions

    def encode(self, tuples: Tensor) -> Tensor:
        """(B, W, T'', V') -> (B, D, T'', V'): any tuples of bodies, in their order, through all layers."""
        for layer in self.layers:
            tuples = layer(tuples)
        return tuples

    def combine(self, found: Tensor, bodies: Bodies) -> Tensor:
        """(B, D) of the computed bodies -> (N, D): the sum over persons, a learned vector for each that is absent."""
        absent = self.absent.to(found.dtype)
        return torch.where(bodies.present[:, :, None], bodies.spread(found), absent).sum(dim=1)

    def features(self, x: Tensor) -> Tensor:
        """(N, M, T, V, C) -> (N, D): the mean over tuples and tokens, then the sum over persons.

        Raises:
            UserError: another number of persons, joints or channels than the encoder was built for.
        """
        bodies = self.bodies(x)
        return self.combine(self.pool(self.encode(self.embed(bodies.pick(x)))), bodies)

    def pool(self, encoded: Tensor) -> Tensor:
        """(B, D, T'', V') -> (B, D)."""
        return self.dropout(encoded.mean(dim=(2, 3)))

    def outputs(self, x: Tensor) -> dict[str, Tensor]:
        """Features, scores, and "tokens" (N, M, T', V', D) behind the last layer; those of absent persons are 0.

        V' runs over the frames of a tuple and, faster, over joints.
        """
        bodies = self.bodies(x)
        encoded = self.encode(self.embed(bodies.pick(x)))
        features = self.combine(self.pool(encoded), bodies)
        tokens = bodies.spread(encoded.permute(0, 2, 3, 1))
        return {"features": features, "scores": self.head(features), "tokens": tokens}

    def head(self, features: Tensor) -> Tensor:
        """(N, D) -> (N, K) unnormalised scores."""
        return self.classifier(features)

    def depth(self) -> list[list[nn.Module | nn.Parameter]]:
        """The input map, each layer, the vector of absent persons."""
        layers: list[list[nn.Module | nn.Parameter]] = [[layer] for layer in self.layers]
        return [[self.input_map], *layers, [self.absent]]

    def lean(self, frames: int | None = None) -> nn.Module:
        """The same function for use only: every batch norm is part of the convolution before it."""
        lean = super().lean(frames)
        conv, norm, relu = lean.input_map  # type: ignore[misc]
        lean.input_map = nn.Sequential(fusion.fuse_conv_bn_eval(conv, norm), relu)
        for layer in lean.layers:  # type: ignore[union-attr]
            layer.fold()
        return lean.requires_grad_(False)


def tuple_layers(
    options: STTFormerOptions, width: int, layers: tuple[tuple[int, int], ...], tokens: int
) -> nn.ModuleList:
    """Layers of an encoder, or of its decoder, one behind the other.

    Args:
        options: give heads and kernel.
        width: channels that come in.
        layers: (channels out, channels of a query) of each.
        tokens: V'.
    """
    made = []
    for out, query in layers:
        made.append(TupleLayer(width, out, query, options.heads, options.kernel, tokens))
        width = out
    return nn.ModuleList(made)
