"""What is asked of a compression."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mmcl.common.errors import UserError

SHARES = ("ratio", "energy")
BUDGETS = ("parameters", "macs", "milliseconds")
POLICIES = ("rank", *SHARES, *BUDGETS, "merge")
BASES = ("svd", "outputs", "random")


@dataclass(frozen=True)
class LowRankOptions:
    """Options of :class:`mmcl.surgery.low_rank.surgery.LowRank`.

    The paper's own choice of ranks is not published; these are the usual ones.

    Attributes:
        policy: how the rank of a layer is found. "rank": the same number for all. "ratio": a share of what the rank of
            its matrix could be, rounded down. "energy": the smallest that keeps this share of the energy of its
            directions. "parameters", "macs": those ranks that lose the least energy, in sum over layers, with which the
            whole network has no more parameters, or multiply-accumulates a clip. "milliseconds": the same for
            multiply-accumulates, as many as the time of one clip through ONNX Runtime on this machine allows, for which
            several graphs are made and timed. "merge": no factors; factored layers get their weight in one again, and
            ``amount`` is not looked at.
        amount: the number that the policy speaks of. Of parameters and macs, a number up to 1 is a share of what the
            network has now.
        basis: the directions that are kept, and whose energy policies speak of. "svd": the leading singular vectors of
            each matrix; no clips are needed. "outputs": the principal components of what each layer puts out on
            training clips, which are therefore needed (Zhang et al., "Accelerating Very Deep Convolutional Networks",
            TPAMI 2016, without its means). "random": the control, as many random directions; ranks are those of
            "outputs" where clips are given, and those of "svd" where not.
        include: patterns (``units.*.attention.*``) of layers to factor; none means all.
        exclude: patterns of layers that are left as they are.
        head: also the layers of the head, whose size is the number of classes.
        apart: cut a layer that several projections share (the encoder says which do) into these, with factors of their
            own for each.
        temporal: also convolutions with kernels of more than one tap.
        skip: leave a layer as it is where its factors would hold no fewer numbers than it holds now.
        balanced: give each factor the square root of the singular values; otherwise the first has them all.
        seed: of the random basis, and of the order in which clips are looked at.
        batch_size: clips that are looked at at once.
    """

    policy: str = "ratio"
    amount: float = 0.5
    basis: str = "svd"
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    head: bool = False
    apart: bool = True
    temporal: bool = False
    skip: bool = True
    balanced: bool = True
    seed: int = 0
    batch_size: int = 64

    def __post_init__(self) -> None:
        for name, choices in (("policy", POLICIES), ("basis", BASES)):
            if getattr(self, name) not in choices:
                raise UserError(f"low_rank.{name} must be {', '.join(choices)}, not {getattr(self, name)!r:.40}")
        if not (math.isfinite(self.amount) and self.amount > 0):
            raise UserError(f"low_rank.amount must be more than 0, not {self.amount}")
        if self.policy in SHARES and self.amount > 1:
            raise UserError(f"low_rank.amount is a share of 1 for the policy '{self.policy}', not {self.amount:g}")
        if self.policy == "rank" and self.amount != int(self.amount):
            raise UserError(f"low_rank.amount must be a whole number for the policy 'rank', not {self.amount:g}")
        if self.batch_size < 2:
            raise UserError(f"low_rank.batch_size must be at least 2, not {self.batch_size}")
