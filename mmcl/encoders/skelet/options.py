"""Options of the SkeleT-GCN encoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mmcl.common.errors import UserError

BRANCHES = 6  # of a temporal unit: each needs a channel


@dataclass(frozen=True)
class SkeletOptions:
    """Options of :class:`~mmcl.encoders.skelet.network.Skelet`; the defaults are the released ``skelet_stgcn++``.

    ``skelet_dgstgcn`` is gcn "dggcn", tcn "dgmstcn", subsets 8.

    Attributes:
        width: channels of the first block.
        groups: of channels, in each block; there are as many blocks as entries. A group has its own map of joints, its
            own graph and its own convolution.
        widen: blocks, counted from 1, that double the channels.
        halve: blocks that halve the frames.
        pool: blocks that go to the next level of the layout's pools. The layout needs as many levels; none keeps all
            joints throughout.
        gcn: "unit_gcn" learns one graph a subset, "dggcn" adds two that depend on the clip, "unit_ctrgcn" refines it
            for every channel.
        tcn: "mstcn" has six branches, "dgmstcn" the same and a token for the whole body, "ctr_mstcn" (MSTCN in the
            released code) the four of CTR-GCN.
        subsets: graphs of each group.
        subset_wise: with "dggcn", a strength for each subset in place of one for all.
        graphs: with "unit_gcn", what is learned of the layout's graph: "learned" from it on, "fixed" to it, it plus a
            learned "offset", or times a learned "importance" of every edge.
        conv_pos: with "unit_gcn", the convolution comes before the graphs ("pre") or behind them ("post").
        split_way: where a block has groups, channels are parted ("split"), or a convolution comes first, whose
            channels are parted ("conv+split") or all go to every group ("conv+repeat").
        mapping: of joints to a level: "learned" from the layout's pools on, "fixed" to them, the pools plus a learned
            "offset", or times a learned "importance".
        equal_levels: what a block does that keeps its joints: weigh them by a learned "importance", "map" them from
            the identity on, or "none".
        input_norm: the batch norm on coordinates, one statistic a "joint", or one a joint of each "person" slot; only
            the first takes any number of persons.
        instance_pooling: fuse the persons of a clip before the first block, so that its cost does not grow with them.
        positions: with instance pooling, what is added to points: "none", a learned number a "joint", or a learned
            vector a joint ("channel").
        drop_path: with instance pooling, share of clips whose points lose their shortcut in training.
        persons: M, bodies in every clip (absent ones are zeros).
        channels: C, coordinates of a joint, a score among them if there is one.
        dropout: on the feature, before the classifier.
        released: count absent persons as the released code does: their bodies of zeros enter batch statistics, means
            and maxima, and instance pooling drops the shortcut of a whole batch.
    """

    width: int = 64
    groups: tuple[int, ...] = (1, 1, 1, 1, 2, 2, 2, 4, 4, 4)
    widen: tuple[int, ...] = (5, 8)
    halve: tuple[int, ...] = (5, 8)
    pool: tuple[int, ...] = (5, 8)
    gcn: Literal["unit_gcn", "dggcn", "unit_ctrgcn"] = "unit_gcn"
    tcn: Literal["mstcn", "dgmstcn", "ctr_mstcn"] = "mstcn"
    subsets: int = 3
    subset_wise: bool = False
    graphs: Literal["learned", "fixed", "offset", "importance"] = "learned"
    conv_pos: Literal["pre", "post"] = "pre"
    split_way: Literal["split", "conv+split", "conv+repeat"] = "split"
    mapping: Literal["learned", "fixed", "offset", "importance"] = "learned"
    equal_levels: Literal["importance", "map", "none"] = "importance"
    input_norm: Literal["joint", "person"] = "joint"
    instance_pooling: bool = False
    positions: Literal["none", "joint", "channel"] = "none"
    drop_path: float = 0.1
    persons: int = 2
    channels: int = 3
    dropout: float = 0.0
    released: bool = False

    def __post_init__(self) -> None:
        for name in ("subsets", "persons", "channels"):
            if getattr(self, name) < 1:
                raise UserError(f"skelet.{name} must be at least 1, not {getattr(self, name)}")
        if self.width < BRANCHES:
            raise UserError(f"skelet.width must be at least {BRANCHES}, a channel a branch in time, not {self.width}")
        if not self.groups or min(self.groups) < 1:
            raise UserError(f"skelet.groups must be positive numbers, one a block, not {self.groups}")
        for name in ("widen", "halve", "pool"):
            blocks = getattr(self, name)
            if list(blocks) != sorted(set(blocks)) or not all(2 <= block <= len(self.groups) for block in blocks):
                last = len(self.groups)
                raise UserError(f"skelet.{name} must be blocks from 2 to {last} in rising order, not {blocks}")
        for name in ("drop_path", "dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise UserError(f"skelet.{name} must lie in [0, 1), not {getattr(self, name)}")
        self._check_choices()
        self._check_groups()

    def _check_choices(self) -> None:
        choices = {
            "gcn": ("unit_gcn", "dggcn", "unit_ctrgcn"), "tcn": ("mstcn", "dgmstcn", "ctr_mstcn"),
            "mapping": ("learned", "fixed", "offset", "importance"), "equal_levels": ("importance", "map", "none"),
            "input_norm": ("joint", "person"), "positions": ("none", "joint", "channel"),
            "graphs": ("learned", "fixed", "offset", "importance"), "conv_pos": ("pre", "post"),
            "split_way": ("split", "conv+split", "conv+repeat"),
        }  # fmt: skip
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise UserError(f"skelet.{name} must be one of {', '.join(known)}, not {getattr(self, name)!r}")
        if self.gcn != "unit_gcn" and (self.graphs, self.conv_pos) != ("learned", "pre"):
            raise UserError(f"skelet.graphs and skelet.conv_pos are of gcn unit_gcn: {self.gcn} has no form of them")

    def _check_groups(self) -> None:
        """Channels of every block must fall into its groups, those of a dggcn's group into its subsets."""
        for block, (channels_in, channels_out, groups) in enumerate(self.channel_plan(), start=1):
            first = block == 1 and not self.instance_pooling
            parted = channels_in % groups == 0 and not (first and groups > 1)
            if channels_out % groups or not (parted if self.split_way == "split" else channels_in >= groups):
                raise UserError(
                    f"skelet: block {block} cannot part {channels_in} and {channels_out} channels into {groups} groups"
                )
            if self.gcn == "dggcn" and channels_out // groups < self.subsets:
                raise UserError(
                    f"skelet: block {block} has {channels_out // groups} channels a group, fewer than "
                    f"{self.subsets} subsets: raise width, or lower subsets"
                )

    def channel_plan(self) -> list[tuple[int, int, int]]:
        """(C_in, C_out, groups) of each block."""
        plan, channels = [], self.width if self.instance_pooling else self.channels
        for block, groups in enumerate(self.groups, start=1):
            out = self.width * 2 ** sum(widened <= block for widened in self.widen)
            plan.append((channels, out, groups))
            channels = out
        return plan
