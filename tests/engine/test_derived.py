"""Values that follow from the clips: taken where nobody gives one, told, saved, and never derived a second time."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from forked import train_forked

from mmcl.common.errors import UserError
from mmcl.data.apply_protocol import split
from mmcl.data.protocols import load_protocol
from mmcl.data.store import open_store
from mmcl.engine.configuring import configure, configure_contrast
from mmcl.engine.derived import FEWEST_EPOCHS, MOST_EPOCHS, STEPS, Facts, derive
from mmcl.engine.parsing import parse, read_run_config
from mmcl.models.folder import find_model
from mmcl.studies.run import Run
from mmcl.train import main as train


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


def test_where_out_cannot_be_used_is_said_before_the_run_without_labels(words, tmp_path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("of somebody")
    with pytest.raises(UserError, match="is no run folder"):
        train([*words, f"--out={tmp_path / 'run'}", "--stars=true"])
    assert not (tmp_path / "run-stars").exists()


def test_stars_is_a_run_without_labels_and_one_that_starts_from_it(words, tmp_path, capsys) -> None:
    tiny = ["--schedule.epochs=1", "--schedule.warmup_epochs=0", "--encoder.width=8", "--encoder.members=2",
            "--data.shots=1", "--engine.trackers=[]", f"--out={tmp_path / 'run'}", "--stars=true"]  # fmt: skip
    assert train([*words, *tiny]) == 0
    stars, run = tmp_path / "run-stars", tmp_path / "run"
    advice = [line for line in capsys.readouterr().out.splitlines() if line.startswith("done:")]
    assert advice == [
        f"done: {stars} (next: mmcl probe --checkpoint {stars}, mmcl train … --start.checkpoint={stars} --out …)",
        f"done: {run} (next: mmcl evaluate --checkpoint {run}, mmcl export --run {run} --out …)",
    ]
    first, last = (find_model(tmp_path / name) for name in ("run-stars", "run"))
    assert first.description.provenance["untrained_classifier"] and first.description.encoder.name == "tcn"
    begun = last.description.provenance["started_from"]
    assert begun["checkpoint"] == str(tmp_path / "run-stars") and begun["classifier"].startswith("new")
    assert last.description.preprocess["streams"] == ["joint", "bone", "joint_motion", "bone_motion"]
    random = configure([*words, *tiny[:-2]]).encoder
    assert (random.width, random.members) == (8, 2) and last.load().preprocess.channels == 12
    with pytest.raises(UserError, match="add --resume=true"):
        train([*words, *tiny])
    assert train([*words, *tiny, "--resume=true"]) == 0  # both are complete: nothing to do
    again = (*words, *tiny, "--resume=true")
    Run("a", 0, None, tmp_path / "run", again).check()  # of a study that is given once more
    with pytest.raises(UserError, match="schedule.epochs was 1 and is now 2"):
        Run("a", 0, None, tmp_path / "run", (*again, "--schedule.epochs=2")).check()


def test_stars_goes_through_both_runs_on_two_processes(words, tmp_path) -> None:
    tiny = ["--schedule.epochs=1", "--schedule.warmup_epochs=0", "--encoder.width=8", "--encoder.members=1",
            "--data.workers=0", "--engine.trackers=[]", f"--out={tmp_path / 'run'}"]  # fmt: skip
    for facts in train_forked(tmp_path / "ranks", [*words, *tiny, "--stars=true"], begin=train):
        assert facts["status"] == 0 and facts["wrapper"] == "DistributedDataParallel"
    assert all((tmp_path / name / "summary.json").is_file() for name in ("run-stars", "run"))
    assert find_model(tmp_path / "run").description.provenance["started_from"]["checkpoint"] == f"{tmp_path}/run-stars"


def test_the_run_without_labels_has_a_task_of_its_own(words) -> None:
    out = ["--out=run", "--stars=true"]
    first, own = configure_contrast([*words, *out, "--task.label_smoothing=0.05", "--task.layer_decay", "0.9"])
    assert (first.task_name, first.out) == ("neighbour_contrast", "run-stars")
    assert own.task.label_smoothing == 0.05 and not own.stars and not own.start.checkpoint
