"""Taking turns: order, medians and ratios under a clock that the variants themselves move."""

from __future__ import annotations

import gc

import pytest
import torch

from mmcl.benchmarks import timing
from mmcl.benchmarks.timing import compare


class Clock:
    """Moves only when a variant says so."""

    def __init__(self, monkeypatch) -> None:
        self.now, self.calls = 0.0, []
        monkeypatch.setattr(timing.time, "perf_counter", lambda: self.now)

    def variant(self, name, seconds):
        times = iter(seconds)

        def call():
            self.calls.append(name)
            self.now += next(times)

        return call


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def test_ratios_are_of_the_same_round_so_that_a_slow_spell_hits_both(clock):
    # The machine is ten times slower in the second round and a hundred times in the third.
    plain = clock.variant("plain", [9, 4, 40, 400])
    fast = clock.variant("fast", [9, 2, 10, 200])
    found = compare({"plain": plain, "fast": fast}, 0.0, least=3, warm=1)
    assert list(found) == ["plain", "fast"]
    assert found["fast"].ratio == 2.0 and found["plain"].ratio == 1.0
    assert (found["fast"].ratio_low, found["fast"].ratio_high) == (2.0, 3.0)
    assert (found["plain"].seconds, found["fast"].seconds, found["fast"].rounds) == (40, 10, 3)
    assert clock.calls[2:] == ["plain", "fast", "fast", "plain", "plain", "fast"]


def test_stops_when_the_time_is_up_but_not_before_the_least_rounds(clock):
    found = compare({"one": clock.variant("one", [1.0] * 100)}, 7.5)
    assert found["one"].rounds == 8
    found = compare({"one": clock.variant("one", [5.0] * 100)}, 1.0)
    assert found["one"].rounds == timing.LEAST


def test_waits_for_the_device_before_and_after_each_call(clock):
    compare(
        {"one": clock.variant("one", [1.0] * 9)}, 0.0, least=2, warm=1, synchronise=lambda: clock.calls.append("wait")
    )
    assert clock.calls == ["one", *["wait", "one", "wait"] * 2]


def test_threads_and_the_collector_are_as_before_afterwards_even_after_an_error():
    before, seen = torch.get_num_threads(), []

    def look():
        seen.append((torch.get_num_threads(), gc.isenabled()))

    found = compare({"one": look}, 0.0, threads=2, least=1, warm=1)
    assert found["one"].threads == 2 and seen == [(2, True), (2, False)]
    assert gc.isenabled() and torch.get_num_threads() == before

    def fail():
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        compare({"one": fail}, 0.0, threads=2)
    assert gc.isenabled() and torch.get_num_threads() == before
