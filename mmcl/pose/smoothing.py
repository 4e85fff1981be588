"""The One-Euro filter: still joints are held still, quick ones are followed at once.

G. Casiez, N. Roussel, D. Vogel, 1 Euro Filter: A Simple Speed-based Low-pass Filter for Noisy Input in Interactive
Systems (CHI 2012). Each coordinate has a first-order low-pass filter whose cutoff frequency grows with its speed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mmcl.common.errors import UserError


@dataclass(frozen=True)
class OneEuro:
    """The filter's parameters.

    Attributes:
        cutoff: Hz, of what does not move. Lower: less jitter.
        speed: Hz more for each unit a second (metre, or half of the picture's height). Higher: less delay.
        derivative: Hz, cutoff of the speed itself.
    """

    cutoff: float = 1.5
    speed: float = 2.0
    derivative: float = 1.0

    def __post_init__(self) -> None:
        finite = np.isfinite([self.cutoff, self.speed, self.derivative]).all()
        if not (finite and self.cutoff > 0 and self.speed >= 0 and self.derivative > 0):
            raise UserError(
                f"smoothing by {self.cutoff:g},{self.speed:g}: give a cutoff above 0 and a speed of 0 or more"
            )

    def __call__(self, values: np.ndarray, seconds: np.ndarray) -> np.ndarray:
        """Filter along time.

        Args:
            values: (T, …), NaN where missing; after a gap, a coordinate starts anew.
            seconds: (T,) increasing.
        """
        smooth = np.array(values, dtype=np.float64)
        last, rate = np.full(smooth.shape[1:], np.nan), np.zeros(smooth.shape[1:])
        for frame in range(len(smooth)):
            now = smooth[frame].copy()
            if frame:
                step = max(float(seconds[frame] - seconds[frame - 1]), 1e-6)
                known = np.isfinite(last)
                share = smoothing_factor(step, self.derivative)
                change = np.where(known, (now - np.nan_to_num(last)) / step, 0.0)
                rate = np.where(known, share * change + (1 - share) * rate, 0.0)
                follow = smoothing_factor(step, self.cutoff + self.speed * np.abs(rate))
                smooth[frame] = np.where(known, follow * now + (1 - follow) * np.nan_to_num(last), now)
                rate = np.where(np.isfinite(now), rate, 0.0)
            last = smooth[frame]
        return smooth


def smoothing_factor(step: float, cutoff: float | np.ndarray) -> np.ndarray:
    """Share of the new value in a first-order low-pass filter: 1 / (1 + tau / step), tau = 1 / (2 pi cutoff)."""
    return np.asarray(1 / (1 + 1 / (2 * np.pi * np.asarray(cutoff) * step)))


def parse_smoothing(text: str) -> OneEuro:
    """``1.5,2`` -> cutoff and speed.

    Raises:
        UserError: not two numbers.
    """
    try:
        cutoff, speed = (float(part) for part in text.split(","))
    except ValueError as error:
        raise UserError(f"--smooth {text:.40}: give cutoff and speed, two numbers with a comma between them") from error
    return OneEuro(cutoff, speed)
