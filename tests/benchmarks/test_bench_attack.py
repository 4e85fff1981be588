"""What ``mmcl bench attack`` measures computes the same as the released formulation, on a tiny network."""

from __future__ import annotations

from mmcl.benchmarks.attack import EXACT, SLOW, measure, table


def test_all_steps_are_timed_and_the_sum_over_samples_is_the_released_one() -> None:
    facts = measure("ctrgcn", {"width": 8, "depth": 3}, classes=5, frames=12, samples=2, batch=2, seconds=0.2)
    assert [line["step"] for line in facts["lines"]] == ["I-FGSM", "TASAR", "TASAR, released", SLOW]
    assert 0 < facts["difference"] <= EXACT and facts["samples"] == 6
    page = table(facts)
    assert "TOO MUCH" not in page and page.count("\n") == 10
    assert "TOO MUCH" in table({**facts, "difference": 1.0})
