"""A complete run is believed only if its clips and what it started from are those that are named now."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from mmcl.common.errors import UserError
from mmcl.engine import finished
from mmcl.engine.configuring import configure
from mmcl.engine.finished import check_complete
from mmcl.train import main as train


@pytest.fixture(autouse=True)
def nothing_remembered() -> None:
    """As in a process of its own: within one, what was looked at is not looked at again."""
    finished.KNOWN.clear()
    finished._weights.cache_clear()


@pytest.fixture
def protocol(tmp_path: Path) -> Path:
    return by_subjects(tmp_path / "p.yaml", [1, 2], [3, 4])


def by_subjects(file: Path, train_on: list[int], test_on: list[int]) -> Path:
    rule = {"dataset": "demo", "train": {"subject": train_on}, "test": {"subject": test_on}}
    file.write_text(yaml.safe_dump({"p": rule}))
    return file


def words(store: Path, protocol: Path, out: Path, *more: str) -> list[str]:
    return [
        "--config=own_joint", f"--data.path={store}", f"--data.protocol={protocol}:p", "--data.batch_size=8",
        "--data.workers=0", "--preprocess.window=16", "--encoder.width=8", "--encoder.depth=3", "--schedule.epochs=1",
        "--schedule.warmup_epochs=0", "--engine.trackers=[]", f"--out={out}", "--resume=true", *more,
    ]  # fmt: skip


def test_clips_and_the_model_to_begin_with_have_to_be_the_same(demo_store, protocol, tmp_path) -> None:
    first = words(demo_store, protocol, tmp_path / "first")
    second = words(demo_store, protocol, tmp_path / "second", f"--start.checkpoint={tmp_path / 'first'}")
    check_complete(configure(first))  # there is none yet
    assert train(first) == 0 and train(second) == 0
    check_complete(configure(first))
    check_complete(configure(second))

    by_subjects(protocol, [1, 3], [2, 4])
    finished.KNOWN.clear()
    with pytest.raises(UserError, match=r"first was trained by .*p.yaml:p when that gave other"):
        check_complete(configure(first))
    by_subjects(protocol, [1, 2], [3, 4])
    finished.KNOWN.clear()

    file = tmp_path / "first" / "checkpoints" / "last" / "learned.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    finished._weights.cache_clear()
    with pytest.raises(UserError, match=r"second started from .*first when that was another model"):
        check_complete(configure(second))

    model = tmp_path / "first" / "model.json"
    facts = json.loads(model.read_text())
    facts["record"]["store"] = "0" * 64
    model.write_text(json.dumps(facts))
    with pytest.raises(UserError, match=r"first was trained on other clips than those in"):
        check_complete(configure(first))


def test_a_store_that_is_gone_keeps_no_table_from_being_made(demo_store, protocol, tmp_path) -> None:
    assert train(words(demo_store, protocol, tmp_path / "run")) == 0
    check_complete(configure(words(tmp_path / "gone", protocol, tmp_path / "run")))
