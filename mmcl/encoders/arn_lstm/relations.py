"""Relations: a perceptron over pairs of objects, all pairs at once, and the pooling of what it finds.

The published code runs the perceptron once for each pair. Here the first layer, which is linear, is applied to each
object in either place of a pair before pairs are made, so that pairs cost one addition; all other layers see all pairs
as rows of one matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, permutations, product
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmcl.encoders.arn_lstm.options import OF_JOINTS, ARNLSTMOptions

IDENTITY = 2  # numbers that say which joint an object is

Pairs = list[tuple[int, int]]
ROWS = {"cpu": 1024}  # pairs that go through at once where no gradient is needed: what they need stays in the cache
MOST_ROWS = 1 << 18  # on other devices


def pair_groups(stream: str, persons: int, count: int) -> list[Pairs]:
    """Pairs of a stream, in groups that are pooled separately.

    Args:
        stream: see :class:`~mmcl.encoders.arn_lstm.options.ARNLSTMOptions`.
        persons: M.
        count: objects; of each person in streams of joints of one person.
    """
    if stream not in OF_JOINTS:
        return [list(combinations(range(count), 2))]
    people = [range(person * count, (person + 1) * count) for person in range(persons)]
    within = [list(combinations(person, 2)) for person in people]
    together = [pair for pairs in within for pair in pairs]
    across = [pair for one, other in permutations(people, 2) for pair in product(one, other)]
    once = [pair for one, other in combinations(people, 2) for pair in product(one, other)]
    return {
        "inter": [across], "inter_once": [once], "inter_intra": [across + together], "intra": within,
        "intra_together": [together],
    }[stream]  # fmt: skip


def released_mixture(groups: list[Pairs]) -> list[Pairs]:
    """Pairs as the released fusion in front of an LSTM has them.

    It hands over joints person by person, but the network takes them in the order in which its pairs first name them:
    in inter joint 0 of the first person, all joints of the second, then the other joints of the first.
    """
    named = dict.fromkeys(joint for group in groups for pair in group for joint in pair)
    taken = {joint: place for place, joint in enumerate(named)}
    return [[(taken[i], taken[j]) for i, j in group] for group in groups]


class RelationMLP(nn.Module):
    """g: the relation of two objects.

    Args:
        width: D of an object.
        widths: of the layers, each followed by a ReLU.
        pairs: whether it sees two objects, or one.
        points: points in space that an object holds, first in it; for distances and motion.
        channels: C, coordinates of a point.
        distances: also sees the distance of the two objects in each point.
        shift: also sees the distance of each point of the first object to the one ``shift`` later in the second; 0
            leaves that out.
    """

    def __init__(
        self, width: int, widths: Sequence[int], pairs: bool = True, points: int = 0, channels: int = 3,
        distances: bool = False, shift: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.width, self.points, self.channels, self.distances, self.shift = width, points, channels, distances, shift
        seen = (2 * width if pairs else width) + points * distances + (points - shift if shift else 0)
        self.relation_width = widths[-1]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip((seen, *widths), widths, strict=False))

    def forward(self, objects: Tensor, first: Tensor | None, second: Tensor | None) -> Tensor:
        """(B, n, D) objects and (P,) indices of the objects of each pair -> (B, P, W), or (B, n, W) without pairs."""
        layer = cast("nn.Linear", self.layers[0])
        if first is None or second is None:
            x = layer(objects)
        else:
            D, weight = self.width, layer.weight
            x = F.linear(objects, weight[:, :D], layer.bias).index_select(1, first)
            x = x + F.linear(objects, weight[:, D : 2 * D]).index_select(1, second)
            if layer.in_features > 2 * D:
                gaps = self.gaps(objects.index_select(1, first), objects.index_select(1, second))
                x = x + F.linear(gaps, weight[:, 2 * D :])
        for following in list(self.layers)[1:]:
            x = following(torch.relu_(x))
        return torch.relu_(x)

    def gaps(self, first: Tensor, second: Tensor) -> Tensor:
        """Distances of pairs of objects (B, P, D) and (B, P, D), then motion: (B, P, points + points - shift)."""
        size = self.points * self.channels
        one, other = (part[..., :size].unflatten(-1, (self.points, self.channels)) for part in (first, second))
        found = [torch.linalg.vector_norm(one - other, dim=-1)] if self.distances else []
        if self.shift:
            found.append(torch.linalg.vector_norm(one[..., : -self.shift, :] - other[..., self.shift :, :], dim=-1))
        return torch.cat(found, dim=-1)


class AttentionPooling(nn.Module):
    """A mean weighted by softmax(tanh(R W1) W2), without biases.

    Args:
        width: of a relation.
        hidden: p, columns of W1.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.project = nn.Linear(width, hidden, bias=False)
        self.score = nn.Linear(hidden, 1, bias=False)
        nn.init.normal_(self.project.weight, 0.0, 0.05)  # released
        nn.init.normal_(self.score.weight, 0.0, 0.05)

    def weights(self, relations: Tensor) -> Tensor:
        """(B, P, W) -> (B, P, 1), which sum to 1 over relations."""
        return self.score(torch.tanh(self.project(relations))).softmax(dim=1)

    def forward(self, relations: Tensor) -> Tensor:
        """(B, P, W) -> (B, W)."""
        return (self.weights(relations) * relations).sum(dim=1)


class MeanPooling(nn.Module):
    """The plain mean of relations."""

    def forward(self, relations: Tensor) -> Tensor:
        """(B, P, W) -> (B, W)."""
        return relations.mean(dim=1)


class Stream(nn.Module):
    """From the objects of a window to its pooled relations.

    Args:
        relation: see :class:`RelationMLP`.
        pool: one pooling for all groups.
        groups: pairs, pooled group by group and concatenated; None where every object is seen alone.

    Attributes:
        pooled_width: of what comes out.
    """

    first: Tensor | None
    second: Tensor | None

    def __init__(self, relation: RelationMLP, pool: nn.Module, groups: list[Pairs] | None) -> None:
        super().__init__()
        self.relation, self.pool = relation, pool
        self.sizes = None if groups is None else [len(group) for group in groups]
        pairs = None if groups is None else torch.tensor([pair for group in groups for pair in group])
        self.register_buffer("first", None if pairs is None else pairs[:, 0].clone(), persistent=False)
        self.register_buffer("second", None if pairs is None else pairs[:, 1].clone(), persistent=False)
        self.pooled_width = relation.relation_width * len(self.sizes or [0])

    def forward(self, objects: Tensor) -> Tensor:
        """(B, n, D) -> (B, groups * W)."""
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return self.pooled(objects)
        pairs = sum(self.sizes) if self.sizes else objects.shape[1]
        windows = max(1, ROWS.get(objects.device.type, MOST_ROWS) // pairs)
        return torch.cat([self.pooled(part) for part in objects.split(windows)])

    def pooled(self, objects: Tensor) -> Tensor:
        """The same, all at once."""
        relations = self.relation(objects, self.first, self.second)
        if self.sizes is None:
            return self.pool(relations)
        return torch.cat([self.pool(group) for group in relations.split(self.sizes, dim=1)], dim=-1)


def stream_of(name: str, joints: int, options: ARNLSTMOptions) -> Stream:
    """The relation network and pooling of one stream."""
    bodies = name in OF_JOINTS
    points = {"joint": options.frames * options.persons, "temporal": joints * options.persons}.get(name, options.frames)
    relation = RelationMLP(
        points * options.channels + IDENTITY * (bodies and options.identity), options.relation_widths,
        options.relations, points, options.channels, bodies and options.distances, int(bodies and options.motion),
    )  # fmt: skip
    groups = pair_groups(name, options.persons, options.frames if name == "temporal" else joints)
    if options.released and options.lstms and len(options.streams) > 1:
        groups = released_mixture(groups)
    width = options.relation_widths[-1]
    pool: nn.Module = MeanPooling()
    if options.pooling == "attention" and not (bodies and options.released):
        pool = AttentionPooling(width, options.attention_width or width)
    return Stream(relation, pool, groups if options.relations else None)
