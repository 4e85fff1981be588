"""How SA-DVAE's weights grow within a cycle, by one of two schedules that the released code has."""

from __future__ import annotations

from typing import NamedTuple

RAMP = 0.1 / 3000 * 1700  # slope of the released ramp over a cycle
START = 1000 / 1700  # share of a cycle after which the skeleton's divergence counts
CROSSING = 0.8  # share of a cycle after which reconstructions are crossed
FREE_CYCLES = 2  # of the released ramp, at the beginning, in which text divergence and critic do not count


class Weights(NamedTuple):
    """Weights of a batch.

    Attributes:
        skeleton: of the divergences of meaning and manner.
        text: of the divergence of texts, and of the critic's part.
        crossing: of crossed reconstructions, 0 or 1.
    """

    skeleton: float
    text: float
    crossing: float


def ramp(batch: int, batches: int, cycle: int) -> Weights:
    """The released default: linear ramps late in each cycle, up to 0.0233 and 0.0113.

    Args:
        batch: from 0, within the cycle.
        batches: of a cycle.
        cycle: from 0.
    """
    turn = int(CROSSING * batches)
    skeleton = max(RAMP * (batch - START * batches) / batches, 0.0)
    text = max(RAMP * (batch - turn) / batches, 0.0) if cycle >= FREE_CYCLES else 0.0
    return Weights(skeleton, text, float(batch > turn))


def annealing(batch: int, batches: int, skeleton: float, text: float) -> Weights:
    """The paper's cyclic annealing, the released code's other schedule: 0 for a third of a cycle, then linear.

    Args:
        batch: from 0, within the cycle.
        batches: of a cycle.
        skeleton: weight of the skeleton's divergences at the end of a cycle.
        text: of the text's divergence and of the critic's part there.
    """
    grown = 1.5 * (batch / batches - 1 / 3) if batch > int(batches / 3) else 0.0
    return Weights(grown * skeleton, grown * text, float(batch > int(CROSSING * batches)))
