"""Rows of ``mmcl bench frontier``, and which of them no other one beats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mmcl.benchmarks.timing import Timing

PRECISIONS = ("fp32", "int8")
BASELINE = "published"


@dataclass(frozen=True)
class Point:
    """One row: what a group of reports is worth, and what it costs.

    Attributes:
        name: of the group.
        values: accuracy of each seed.
        low, high: 95 % interval of their mean.
        networks: how many answer together; 1 but for ensembles.
        parameters: of all of them.
        macs: multiply-accumulates of a clip, of all of them.
        agreement: share of known clips for which the int8 graph names the network's class; the lowest of the members.
        times: precision -> time of a clip, and that of :data:`BASELINE`.
    """

    name: str
    values: list[float]
    low: float
    high: float
    networks: int
    parameters: int
    macs: int
    agreement: float
    times: dict[str, Timing]

    @property
    def value(self) -> float:
        """Mean accuracy."""
        return float(np.mean(self.values))


def on_frontier(points: Sequence[Point]) -> list[bool]:
    """Which points no other one beats: none is at least as right and faster, or more right and as fast, in int8."""

    def beats(one: Point, other: Point) -> bool:
        no_worse = one.value >= other.value and one.times["int8"].seconds <= other.times["int8"].seconds
        return no_worse and (one.value, one.times["int8"].seconds) != (other.value, other.times["int8"].seconds)

    return [not any(beats(other, point) for other in points) for point in points]
