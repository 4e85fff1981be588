"""What a run writes, which learning rates it uses, which options it takes; and that it learns."""

from __future__ import annotations

import json
import math
import platform
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from running import arguments, records, train, weights

from mmcl.common.errors import UserError
from mmcl.deploy.export import export_run
from mmcl.engine.parsing import parse, read_run_config
from mmcl.engine.recipes import recipe_names
from mmcl.engine.run_folder import check_shared
from mmcl.models.folder import find_model
from mmcl.tasks.stages import ScheduleOptions, schedule_factor
from mmcl.tasks.supervised import Supervised
from mmcl.train import train as run_training


def test_a_run_leaves_what_the_contract_says(demo_store, tmp_path) -> None:
    out = tmp_path / "run"
    options = [
        "--engine.precision=bf16", "--engine.accumulation=2", "--engine.clip_norm=0.5",
        "--engine.trackers=[tensorboard]",
        "--data.validation={subject: [1]}", "--data.batch_size=4", "--data.workers=1", "--schedule.name=cosine",
        "--optimiser.name=adamw", "--optimiser.rate=0.01", "--augmentation.scale=0.1", "--augmentation.shear=0.1",
        "--augmentation.flip=0.5", "--preprocess.streams=[bone]", "--data.layout=kinect_v1_20",
    ]  # fmt: skip
    output = train(*arguments(demo_store, out, *options))
    assert "12 train / 12 validation clips (test is not touched)" in output
    flags = Path("/proc/cpuinfo").read_text() if platform.machine() == "x86_64" and sys.platform == "linux" else None
    assert flags is None or ("no bf16 arithmetic" in output) == ("avx512bw" not in flags)
    lines = records(out)
    assert [line["step"] for line in lines] == list(range(1, 10))
    wanted = {"loss", "loss_classes", "accuracy", "seconds", "clips_per_second", "data_wait_share", "peak_memory_mib"}
    for line in lines:
        assert wanted | {"gradient_norm/encoder", "rate/encoder"} <= line.keys()
        assert 0 <= line["data_wait_share"] <= 1 and line["peak_memory_mib"] > 50 and math.isfinite(line["loss"])
        assert line["seconds"] * line["clips_per_second"] == pytest.approx(4)
    factor = schedule_factor(ScheduleOptions(name="cosine", epochs=3, warmup_epochs=1, milestones=[2]), 3)
    assert [line["rate/encoder"] for line in lines] == pytest.approx([0.01 * factor(step) for step in range(9)])
    validation = records(out, "validation")
    assert [line["epoch"] for line in validation] == [1, 2, 3]
    summary = json.loads((out / "summary.json").read_text())
    assert summary["validation"]["best"] == max(line["top1"] for line in validation)
    assert (
        summary["selection"] == "last epoch" and summary["steps"] == 9 and summary["protocol"] == "demo/cross_subject"
    )
    assert list((out / "trackers").glob("**/events*")) or list(out.glob("**/events*"))
    assert weights(out, "best").keys() == weights(out).keys()
    (out / "summary.json").unlink()  # killed after the last checkpoint
    train("--config", str(out / "config.yaml"), "--resume=true")
    assert json.loads((out / "summary.json").read_text())["validation"] == summary["validation"]
    assert summary["validation"]["last"] == validation[-1]["top1"]
    # config.yaml is enough, with the data, to run it again
    again, config = tmp_path / "again", yaml.safe_load((out / "config.yaml").read_text())
    assert config["encoder"]["width"] == 8 and config["augmentation"]["flip"] == 0.5
    train("--config", str(out / "config.yaml"), "--out", str(again))
    assert [line["loss"] for line in records(again)] == [line["loss"] for line in lines]
    assert read_run_config(again).preprocess.streams == ("bone",)


def test_it_learns(demo_store, tmp_path) -> None:
    """The loss of a small network on 24 clips falls far below ln(12) = 2.48, where guessing stays."""
    options = [
        "--schedule.epochs=20", "--schedule.milestones=[]", "--encoder.width=16", "--augmentation.rotation=0",
        "--augmentation.crop_min=1", "--optimiser.rate=0.05", "--engine.log_every=3",
    ]  # fmt: skip
    train(*arguments(demo_store, tmp_path / "run", *options))
    assert records(tmp_path / "run")[-1]["loss"] < 1.0


def test_a_task_is_told_how_far_the_run_is_and_need_not_score(demo_store, tmp_path, monkeypatch) -> None:
    told, plain = [], Supervised.forward

    def forward(self: Supervised, batch: dict[str, Any]) -> dict[str, Any]:
        told.append((batch["epoch"], batch["progress"]))
        return {key: value for key, value in plain(self, batch).items() if key != "scores"}

    monkeypatch.setattr(Supervised, "forward", forward)
    words = ["--engine.accumulation=2", "--schedule.epochs=2", "--data.batch_size=8"]
    assert run_training(parse(arguments(demo_store, tmp_path / "run", *words))) == 0
    assert told == [(step // 3, step / 6) for step in range(6) for _ in range(2)]
    assert all("accuracy" not in line and line["loss"] > 0 for line in records(tmp_path / "run"))


def test_a_run_that_diverges_stops_and_keeps_what_it_had(demo_store, tmp_path) -> None:
    out, words = tmp_path / "run", ["--optimiser.rate=1e20", "--engine.checkpoint_steps=1", "--engine.log_every=100"]
    last = train(*arguments(demo_store, out, *words, "--schedule.warmup_epochs=0"), status=2).splitlines()[-1]
    assert last.startswith("error: the loss is ") and "at step 2:" in last and "optimiser.rate" in last
    assert [line["loss"] is None for line in records(out)] == [False, True]
    assert json.loads((out / "checkpoints" / "last" / "position.json").read_text())["step"] == 1
    assert all(tensor.isfinite().all() for tensor in weights(out).values()) and not (out / "summary.json").exists()


def test_what_can_be_refused_is_refused_before_caches_are_filled(demo_store, tower_folder, tmp_path) -> None:
    words = ["--task.name=colearn", "--task.refinement.weight=0", f"--task.clip.model={tower_folder('tiny-clip')}"]
    before = set(demo_store.rglob("features/*"))
    output = train(*arguments(demo_store, tmp_path / "run", *words, "--data.batch_size=4096"), status=2)
    assert "4096" in output.splitlines()[-1] and set(demo_store.rglob("features/*")) == before
    assert not (tmp_path / "run").exists()


def test_machines_that_do_not_share_the_run_folder_are_named(tmp_path) -> None:
    with pytest.raises(UserError, match="all machines of a run must share its --out"):
        check_shared(tmp_path / "elsewhere", seconds=0.3)
    (tmp_path / "config.yaml").touch()
    check_shared(tmp_path, seconds=0)


def test_precision_that_the_machine_lacks_is_named(demo_store, tmp_path) -> None:
    output = train(*arguments(demo_store, tmp_path / "run", "--engine.precision=fp16"), status=2)
    assert output.splitlines()[-1].startswith("error: engine.precision=fp16")
    output = train(*arguments(demo_store, tmp_path / "run", "--engine.trackers=[nosuch]"), status=2)
    assert output.splitlines()[-1].startswith("error:") and "nosuch" in output.splitlines()[-1]
    assert not (tmp_path / "run").exists()


def test_step_schedule_follows_its_definition() -> None:
    factor = schedule_factor(ScheduleOptions(epochs=110, warmup_epochs=5, milestones=[90, 100]), 10)
    assert factor(0) < 0.03 and factor(24) == pytest.approx(25 / 51) and factor(50) == 1.0
    assert [factor(10 * epoch) for epoch in (89, 90, 99, 100, 109)] == pytest.approx([1, 0.1, 0.1, 0.01, 0.01])
    ramp = [factor(step) for step in range(51)]
    assert ramp == sorted(ramp)


# Recipes that change another one.
ADDED_TO = {"own_stars": "own"} | dict.fromkeys(
    (f"utd_mhad_{end}" for end in ("colearn", "open", "long_tail", "causal", "distil")), "utd_mhad_joint"
)


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_parses_and_round_trips(name, tmp_path) -> None:
    base = ["--config", ADDED_TO[name]] if name in ADDED_TO else []
    config = parse([*base, "--config", name, "--start.checkpoint=", "--out", str(tmp_path)])  # one's own is not here
    (tmp_path / "config.yaml").write_text(config.text)
    again = read_run_config(tmp_path)
    assert (again.encoder, again.task, again.data, again.schedule) == (
        config.encoder, config.task, config.data, config.schedule
    )  # fmt: skip


def test_a_run_without_a_checkpoint_and_a_damaged_one_are_named(demo_store, tmp_path) -> None:
    out = tmp_path / "run"
    train(*arguments(demo_store, out, "--schedule.epochs=1"))
    found = find_model(out)
    found.load()
    assert found.description.provenance["selection"] == "last epoch"
    learned = out / "checkpoints" / "last" / "learned.safetensors"
    learned.write_bytes(learned.read_bytes()[:1000])
    with pytest.raises(UserError, match="is damaged"):
        found.load()
    learned.unlink()
    for attempt in (lambda: find_model(out), lambda: export_run(out, tmp_path / "bundle")):
        with pytest.raises(UserError, match="no checkpoint at"):
            attempt()
    assert not (tmp_path / "bundle").exists()
