"""Arithmetic of `mmcl bench scale`: against published parameter counts and the ring's closed forms."""

from __future__ import annotations

import pytest

from mmcl.benchmarks.scale_table import calculate, table
from mmcl.benchmarks.traffic import ring_bytes


def simulated_ring(kind: str, put_in: float, processes: int) -> float:
    """Bytes that one process passes on, chunk by chunk: a chunk goes round once, or twice for an all-reduce."""
    if kind == "all-gather":
        return sum(put_in for _ in range(processes - 1))
    rounds = {"reduce-scatter": 1, "all-reduce": 2}[kind]
    return sum(put_in / processes for _ in range(rounds * (processes - 1)))


@pytest.mark.parametrize("processes", [1, 2, 8, 64])
@pytest.mark.parametrize("kind", ["all-reduce", "all-gather", "reduce-scatter"])
def test_ring_traffic_is_that_of_its_rounds(kind, processes) -> None:
    assert ring_bytes(kind, 1000.0, processes) == pytest.approx(simulated_ring(kind, 1000.0, processes))


def test_eight_and_sixty_four_gpus() -> None:
    facts = calculate((8, 64))
    assert facts["sizes"]["encoder"] == 4 * 1_462_092  # the published network, 120 classes
    assert facts["sizes"]["lora"] == 4 * 28 * 8 * (3072 + 1792 + 1792 + 3072)
    eight, many = facts["gpus"]
    trained = facts["sizes"]["encoder"] + facts["sizes"]["lora"]
    assert eight["gradients"] == pytest.approx(1.75 * trained)
    assert eight["contrastive"] == 2 * 7 * 64 * 2 * 512 * 4 and eight["contrastive_all_reduced"] == 3 * 7 * 64 * 4096
    assert many["logits"] == 8 * eight["logits"] and many["logits_naive"] == 64 * eight["logits_naive"]


def test_the_table_says_what_was_measured_and_what_was_not() -> None:
    here = {
        "processor": "x", "instructions": "AVX2", "processors": 2, "load": 0.0, "waiting": "PASSIVE",
        "versions": {"torch": "2"},
    }  # fmt: skip
    exchanged = {
        "start": [{"operation": "broadcast", "calls": 0.5, "bytes": 500.0, "ring_bytes": 250.0}],
        "gradients": [{"operation": "all-reduce", "calls": 1.0, "bytes": 2000.0, "ring_bytes": 2000.0}],
    }
    run = {
        "processes": 2, "steps": 4, "batch": 8, "exchanged": exchanged, "loss_bytes": 1e6, "loss_bytes_naive": 3e6,
        "seconds": 1.0, "memory_mib": 700.0,
    }  # fmt: skip
    text = table({"machine": here, "measured": [run], "calculated": calculate((8,))})
    measured, calculated = text.split("CALCULATED")
    assert "x (AVX2), 2 processors" in measured and "OMP_WAIT_POLICY=PASSIVE" in measured
    assert "MEASURED" in measured and "2.00 kB put in" in measured and "once: 2.0 kB" in measured
    assert "not measured" in calculated and "x8 GPUs" in calculated and "no speed claim" in measured
