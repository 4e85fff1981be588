"""Times of alternatives, taken in turns so that a busy machine hits all of them alike."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median, quantiles

import torch

WARM = 2  # calls of each variant before the rounds
LEAST, MOST = 5, 10_000  # rounds


@dataclass(frozen=True)
class Timing:
    """What one variant took.

    Attributes:
        seconds: median time of a call.
        low: lower quartile of the same.
        high: upper quartile.
        ratio: how many times faster than the first variant: the median over rounds of first / this.
        ratio_low: lower quartile of the same.
        ratio_high: upper quartile.
        rounds: calls that counted.
        threads: of torch, during the calls.
    """

    seconds: float
    low: float
    high: float
    ratio: float
    ratio_low: float
    ratio_high: float
    rounds: int
    threads: int


def compare(
    variants: Mapping[str, Callable[[], object]],
    seconds: float = 5.0,
    *,
    threads: int | None = None,
    least: int = LEAST,
    warm: int = WARM,
    synchronise: Callable[[], object] | None = None,
) -> dict[str, Timing]:
    """Call each variant once a round, round after round, to and fro, until the time is up.

    Only what happened in the same round is compared: a ratio is the median of the rounds' ratios. The garbage collector
    is off meanwhile.

    Args:
        variants: what to call, by name; the first is the baseline. A call returns when its work is done, or
            ``synchronise`` waits for it.
        seconds: time for all calls that count; a call once begun is finished.
        threads: of torch; by default as many as it uses already. What a variant does outside torch is its own matter.
        least: rounds at the very least, however long they take.
        warm: calls of each variant that do not count: memory is allocated, kernels are chosen.
        synchronise: called before the clock starts and before it stops, such as ``torch.cuda.synchronize``.

    Returns:
        A timing for each variant, in the same order.
    """
    wait = synchronise or _nothing
    before, collecting = torch.get_num_threads(), gc.isenabled()
    torch.set_num_threads(threads or before)
    try:
        for call in variants.values():
            for _ in range(warm):
                call()
        gc.collect()
        gc.disable()
        rounds = _rounds(list(variants.values()), seconds, max(1, least), wait)
        used = torch.get_num_threads()
    finally:
        torch.set_num_threads(before)
        if collecting:
            gc.enable()
    first = [times[0] for times in rounds]
    return {name: _timing([times[i] for times in rounds], first, used) for i, name in enumerate(variants)}


def _rounds(
    calls: list[Callable[[], object]], seconds: float, least: int, wait: Callable[[], object]
) -> list[list[float]]:
    """Seconds of every call in every round; every other round goes backwards, so that no variant always comes first."""
    rounds: list[list[float]] = []
    end = time.perf_counter() + seconds
    while len(rounds) < least or (time.perf_counter() < end and len(rounds) < MOST):
        order = range(len(calls)) if len(rounds) % 2 == 0 else reversed(range(len(calls)))
        times = [0.0] * len(calls)
        for index in order:
            wait()
            began = time.perf_counter()
            calls[index]()
            wait()
            times[index] = time.perf_counter() - began
        rounds.append(times)
    return rounds


def _timing(times: list[float], first: list[float], threads: int) -> Timing:
    ratios = [a / b for a, b in zip(first, times, strict=True)]
    return Timing(*_middle(times), *_middle(ratios), rounds=len(times), threads=threads)


def _middle(values: list[float]) -> tuple[float, float, float]:
    """Median, lower and upper quartile."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, _, high = quantiles(values, n=4, method="inclusive")
    return median(values), low, high


def _nothing() -> None:
    """A processor's calls are done when they return."""
