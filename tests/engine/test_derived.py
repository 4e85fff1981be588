"""Values that follow from the clips: taken where nobody gives one, told, saved, and never derived a second time."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from mmcl.common.errors import UserError
from mmcl.data.protocols import load_protocol
from mmcl.data.splitting import split
from mmcl.data.store import open_store
from mmcl.engine.derived import FEWEST_EPOCHS, MOST_EPOCHS, STEPS, Facts, derive
from mmcl.engine.parsing import parse, read_run_config
from mmcl.engine.start import configure


@pytest.fixture
def words(demo_store: Path) -> list[str]:
    return ["--config", "own", f"--data.path={demo_store}", "--data.protocol=demo/cross_subject"]


def test_what_is_open_follows_from_the_clips_and_is_saved(words, demo_store, tmp_path) -> None:
    config, store = configure(words), open_store(demo_store)
    train = split(store, load_protocol("demo/cross_subject")).train
    expected = derive(Facts(len(train), int(sorted(store.frames[train])[len(train) // 2]), 1.0))
    assert (config.data.batch_size, config.encoder.members) == (4, 5) and len(train) < 32
    assert config.schedule.epochs == expected["schedule.epochs"].value == round(STEPS * 4 / len(train))
    assert config.encoder.persons == 1 + (store.bodies[train] > 1).any() and config.preprocess.window == 32
    assert f"schedule.epochs {config.schedule.epochs} (" in "\n".join(config.derived) and len(config.derived) == 5
    (tmp_path / "config.yaml").write_text(config.text)
    saved = yaml.safe_load(config.text)
    assert saved["encoder"]["members"] == 5 and saved["data"]["batch_size"] == 4
    (tmp_path / "config.yaml").write_text(config.text.replace(str(demo_store), "gone"))
    assert read_run_config(tmp_path).schedule == config.schedule  # the clips are not looked at again


def test_what_is_given_stands(words) -> None:
    given = configure([*words, "--schedule.epochs=7", "--encoder.members=2"])
    assert (given.schedule.epochs, given.encoder.members, given.data.batch_size) == (7, 2, 4)
    assert not any(line.startswith(("schedule", "encoder.members")) for line in given.derived)
    other = configure([*words, "--encoder.name=ctrgcn", "--encoder.width=8"])  # it has no members
    assert other.encoder_name == "ctrgcn" and other.data.batch_size == 4
    plain = configure([*words, "--derive=false"])
    assert plain.derived == () and plain.encoder.members == 1 and plain.data.batch_size == 64
    assert parse(words).derived == ()  # a command line that is only read
    with pytest.raises(UserError, match="gone"):
        configure(["--config", "own", "--data.path=gone"])


@pytest.mark.parametrize("clips", [3, 16, 31, 32, 127, 128, 300, 1000, 40_000])
def test_steps_are_about_as_many_whatever_the_size(clips) -> None:
    found = {key: value for key, (value, _) in derive(Facts(clips, 200, 0.01)).items()}
    batch, epochs = found["data.batch_size"], found["schedule.epochs"]
    assert 2 <= batch <= clips and FEWEST_EPOCHS <= epochs <= MOST_EPOCHS
    if FEWEST_EPOCHS < epochs < MOST_EPOCHS:
        assert epochs * clips / batch == pytest.approx(STEPS, rel=0.02)
    assert found["preprocess.window"] == 64 and found["encoder.persons"] == 1
