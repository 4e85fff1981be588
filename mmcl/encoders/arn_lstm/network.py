"""ARN-LSTM: streams of relations, where they meet, and what follows.

At the published widths a joint stream of 15 joints with attention has 3,449,811 parameters for 11 classes without LSTM.
The fusion of trained streams is this network, too, with several streams: copy the weights of each into it, and freeze
them or not.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from mmcl.encoders.arn_lstm.objects import (
    Windows,
    arrange,
    central_window,
    find_joints,
    joint_identity,
    sliding_windows,
)
from mmcl.encoders.arn_lstm.options import RELEASED_DEVIATION, ARNLSTMOptions
from mmcl.encoders.arn_lstm.relations import Stream, stream_of
from mmcl.encoders.arn_lstm.tail import AveragedClassifiers, Tail, tail_of
from mmcl.encoders.base import Encoder
from mmcl.encoders.bodies import each_is_computed
from mmcl.skeletons.layout import Layout


class ARNLSTM(Encoder):
    """Relation networks over windows of a clip, and LSTMs over what they find.

    Frames of zeros at the end of a clip are padding. Without LSTM, it sees T frames in the middle of the clip.

    Args:
        layout: joints and their parts.
        classes: K.
        options: see :class:`ARNLSTMOptions`.

    Attributes:
        streams: by name.
        tails: what follows the pooled relations of all streams; or of each, if they meet behind it.
        firsts: a tail of one dense layer for each stream, if they meet there.
    """

    options_type: ClassVar[type] = ARNLSTMOptions
    tiny = MappingProxyType(
        {"frames": 8, "step": 4, "lstm_width": 6, "relation_widths": [8, 6], "dense_widths": [6], "dropout": 0.0}
    )
    options: ARNLSTMOptions
    identity: Tensor | None
    chosen: Tensor | None

    def __init__(self, layout: Layout, classes: int, options: ARNLSTMOptions | None = None) -> None:
        options = options or ARNLSTMOptions()
        super().__init__(layout, classes, options)
        joints = find_joints(layout, options.joints)
        self.register_buffer("chosen", torch.tensor(joints) if options.joints else None, persistent=False)
        named = joint_identity(layout, joints, options.persons, options.released) if options.identity else None
        self.register_buffer("identity", named, persistent=False)
        streams: dict[str, Stream] = {name: stream_of(name, len(joints), options) for name in options.streams}
        widths = [stream.pooled_width for stream in streams.values()]
        inputs = {"pooled": [sum(widths)], "dense": [len(widths) * options.dense_widths[0]], "average": widths}
        tails = [tail_of(width, options) for width in inputs[options.fusion]]
        firsts = [tail_of(width, options, first=True) for width in widths if options.fusion == "dense"]
        self.streams, self.firsts, self.tails = nn.ModuleDict(streams), nn.ModuleList(firsts), nn.ModuleList(tails)
        heads = 1 if options.lstms else len(tails)  # each has a classifier where their probabilities are averaged
        self.feature_width = tails[0].width * heads
        classifiers = [nn.Linear(tails[0].width, classes) for _ in range(heads)]
        self.classifier: nn.Module = classifiers[0] if heads == 1 else AveragedClassifiers(classifiers)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw what a truncated normal distribution fills as published, zero its biases, and freeze what is frozen."""
        streams, firsts, tails = self.parts()
        dense = [tail.dense for tail in tails]
        drawn: list[nn.Module] = [*(stream.relation for stream in streams.values()), *firsts, *dense, self.classifier]
        for layer in (layer for part in drawn for layer in part.modules() if isinstance(layer, nn.Linear)):
            deviation = self.options.deviation or (
                RELEASED_DEVIATION if self.options.released else (2.0 / layer.in_features) ** 0.5
            )
            nn.init.trunc_normal_(layer.weight, 0.0, deviation, -2.0 * deviation, 2.0 * deviation)
            nn.init.zeros_(layer.bias)
        if self.options.freeze:
            for part in (*streams.values(), *firsts, *(dense if self.options.fusion == "average" else [])):
                part.requires_grad_(False)

    def parts(self) -> tuple[dict[str, Stream], list[Tail], list[Tail]]:
        """Streams by name, the tails of one dense layer in front of where they meet, the tails behind."""
        return cast("Any", (dict(self.streams.items()), list(self.firsts), list(self.tails)))

    def cut(self, x: Tensor) -> Windows:
        """(N, M, frames, V, C) -> the windows that it sees, of the joints that it uses."""
        if self.chosen is not None:
            x = x.index_select(3, self.chosen)
        options = self.options
        if not options.lstms:
            return central_window(x, options.frames)
        return sliding_windows(x, options.frames, options.step, options.windows, options.released)

    def relate(self, windows: Windows) -> list[Tensor]:
        """Pooled relations of each stream, (N, L, W)."""
        return [
            self.pool(stream, arrange(name, windows, self.identity), windows.real)
            for name, stream in self.parts()[0].items()
        ]

    def pool(self, stream: Stream, objects: Tensor, real: Tensor) -> Tensor:
        """(N, L, n, D) objects -> (N, L, W).

        All windows that clips lack are alike, so that the first of them stands for all.
        """
        shape = objects.shape[:2]
        objects, real = objects.flatten(0, 1), real.flatten()
        if shape[1] == 1 or each_is_computed():
            return stream(objects).unflatten(0, shape)
        order = (~real).long().argsort(stable=True)
        count = int(real.sum())
        rows = order[: count + 1]  # the real ones and one other, if there is one
        places = torch.where(real, real.cumsum(dim=0) - 1, min(count, len(rows) - 1))
        return stream(objects[rows])[places].unflatten(0, shape)

    def join(self, pooled: list[Tensor], real: Tensor) -> Tensor:
        """Pooled relations of each stream, (N, L, W), and which windows are there, (N, L) -> features (N, D)."""
        _, firsts, tails = self.parts()
        if self.options.fusion == "average":
            found = [tail(x, real) for tail, x in zip(tails, pooled, strict=True)]
            return torch.stack(found).mean(dim=0) if self.options.lstms else torch.cat(found, dim=-1)
        if firsts:
            pooled = [tail.first(x) for tail, x in zip(firsts, pooled, strict=True)]
        return tails[0](torch.cat(pooled, dim=-1), real)

    def features(self, x: Tensor) -> Tensor:
        """(N, M, frames, V, C) -> (N, D), the state of the last LSTM behind the last window, or dense layers' output.

        Raises:
            UserError: another number of persons, joints or channels than the encoder was built for.
        """
        self.check(x)
        windows = self.cut(x)
        return self.join(self.relate(windows), windows.real)

    def head(self, features: Tensor) -> Tensor:
        """(N, D) -> (N, K) scores; where probabilities are averaged, logarithms of the average."""
        return self.classifier(features)

    def outputs(self, x: Tensor) -> dict[str, Tensor]:
        """Features and scores, and for every window, zeros where a clip lacks it.

        ``pooled`` (N, L, W) are the relations of all streams side by side, ``dense`` (N, L, D') what the first dense
        layers make of them, and ``windows`` (N, L) says which windows are there.
        """
        self.check(x)
        windows = self.cut(x)
        pooled = self.relate(windows)
        features = self.join(pooled, windows.real)
        whole, (_, firsts, tails) = torch.cat(pooled, dim=-1), self.parts()
        inputs = [whole] if self.options.fusion == "pooled" else pooled
        dense = torch.cat([tail.first(x) for tail, x in zip(firsts or tails, inputs, strict=True)], dim=-1)
        there = windows.real[..., None]
        return {
            "features": features, "scores": self.head(features), "pooled": whole * there, "dense": dense * there,
            "windows": windows.real,
        }  # fmt: skip

    def depth(self) -> list[list[nn.Module | nn.Parameter]]:
        """The relation networks' layers, pooling, the dense layers, the LSTMs."""
        streams, firsts, tails = self.parts()
        relations = [list(stream.relation.layers) for stream in streams.values()]
        groups: list[list[nn.Module]] = [list(layers) for layers in zip(*relations, strict=True)]
        groups += [[stream.pool for stream in streams.values()], list(firsts)]
        groups += [list(layers) for layers in zip(*(tail.dense for tail in tails), strict=True)]
        groups += [list(layers) for layers in zip(*(tail.lstms for tail in tails), strict=True)]
        levels: list[list[nn.Module | nn.Parameter]] = [list(group) for group in groups]
        return [level for level, group in zip(levels, groups, strict=True) if any(map(_has_parameters, group))]

    def example(self, frames: int, clips: int = 1) -> Tensor:
        """Ones of the shape this encoder takes, (clips, M, frames, V, C): zeros would be padding."""
        return super().example(frames, clips) + 1.0


def _has_parameters(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None
