"""Shapley values in batches and by a plain loop are timed, and are the same."""

from __future__ import annotations

import json

import pytest

from mmcl.bench import main
from mmcl.benchmarks import explain
from mmcl.common.errors import UserError


def test_both_ways_give_the_same_shares_of_the_same_orders(tmp_path, capsys, monkeypatch):
    measure = explain.measure
    monkeypatch.setattr(explain, "measure", lambda *numbers: measure(*numbers, depth=3))
    file = tmp_path / "x.json"
    words = f"explain --permutations 8 --loop 3 --background 2 --window 8 --width 8 --json {file}"
    assert main(words.split()) == 0
    out, facts = capsys.readouterr().out, json.loads(file.read_text())
    assert (
        facts["loop"] == 4
        and facts["difference"] < 1e-4
        and facts["ratio"] == pytest.approx(facts["loop_seconds"] / facts["seconds"])
    )
    assert "calculated from 4 orders" in out and out.count("\n| ") == 4
    assert "not the same shares" in explain.table(facts | {"ratio": None})


@pytest.mark.parametrize("option", ["--loop", "--window", "--width"])
def test_nothing_to_measure_is_refused(option):
    with pytest.raises(UserError, match="must be at least 1"):
        main(["explain", option, "0"])
