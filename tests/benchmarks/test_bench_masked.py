"""Four steps of masked motion prediction are timed on the same clips, and shares are taken the right way round."""

from __future__ import annotations

import json

import pytest

from mmcl.bench import main
from mmcl.benchmarks import masked
from mmcl.common.errors import UserError


def test_prints_a_share_of_each_step(tmp_path, capsys, monkeypatch):
    measure = masked.measure
    monkeypatch.setattr(masked, "measure", lambda *numbers: measure(*numbers, seconds=0.0, frames=16))
    file = tmp_path / "x.json"
    assert main(f"masked --width 16 --depth 1 --decoder 1 --batch 2 --json {file}".split()) == 0
    out, facts = capsys.readouterr().out, json.loads(file.read_text())
    assert (facts["tokens"], facts["kept"]) == (100, 10)
    names = ["nothing masked", "90% masked", "of it, the encoder alone", "supervised"]
    assert [one["step"] for one in facts["lines"]] == names
    assert out.count("\n| ") == 6 and "| nothing masked | " in out and facts["lines"][0]["ratio"] == 1.0
    rows = masked.table(facts | {"lines": [dict(one, ratio=4.0, ratio_low=2.0, ratio_high=5.0, seconds=0.5)
                                           for one in facts["lines"]]})  # fmt: skip
    assert "| 500 | **0.25** (0.20-0.50) | 1.00 |" in rows


def test_a_batch_of_nothing_is_refused():
    with pytest.raises(UserError, match="--batch is 0"):
        main(["masked", "--batch", "0"])
