"""``mmcl bench step`` takes real steps of the arms that it is given."""

from __future__ import annotations

import json

import pytest

from mmcl.bench import main
from mmcl.common.errors import UserError

SMALL = [
    "--data.batch_size=8", "--data.workers=0", "--preprocess.window=16", "--augmentation.crop_floor=16",
    "--encoder.name=ctrgcn", "--encoder.width=8", "--encoder.depth=3", "--task.memory=2", "--task.interval=2",
    "--data.protocol=demo/stream_3x4", "--task.name=continual",
]  # fmt: skip


def test_arms_are_measured_after_the_stages_that_are_over(demo_store, tmp_path, capsys) -> None:
    words = [f"--data.path={demo_store}", *SMALL, "--after", "2", "--seconds", "0.01", "--json", str(tmp_path / "x")]
    arms = ["--arm", "one pass", "--arm", "as released", "task.released=true"]
    assert main(["step", *arms, *words]) == 0
    facts = json.loads((tmp_path / "x").read_text())
    first, second = facts["lines"]
    assert (first["arm"], second["arm"]) == ("one pass", "as released") and first["ratio"] == 1
    assert min(first["rounds"], second["rounds"]) >= 3 and first["what"].startswith("continual, ctrgcn, 8 clips")
    assert "| as released |" in capsys.readouterr().out


def test_wrong_words_are_refused(demo_store) -> None:
    words = [f"--data.path={demo_store}", *SMALL, "--seconds", "0.01"]
    with pytest.raises(UserError, match="not 'released'"):
        main(["step", "--arm", "plain", "released", *words])
    with pytest.raises(UserError, match="a name that no other arm has"):
        main(["step", "--arm", "plain", "--arm", "plain", *words])
    with pytest.raises(UserError, match="none is left after 9"):
        main(["step", "--arm", "plain", "--after", "9", *words])
