"""What trackers are told of a run, and that one that is resumed goes on under the names it had."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from running import arguments

from mmcl.engine.parsing import parse
from mmcl.engine.trackers import RECORD, begin_tracking, flat
from mmcl.train import train


class Told:
    """An accelerator that writes down what it is asked to start."""

    is_main_process = True

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any, Any]] = []

    def init_trackers(self, project: str, config: Any, init_kwargs: Any) -> None:
        self.calls.append((project, config, init_kwargs))

    def get_tracker(self, name: str) -> Any:
        return SimpleNamespace(tracker=SimpleNamespace(info=SimpleNamespace(run_id=f"{name}-made-this-up")))


def test_one_project_a_run_by_its_folder_and_settings_one_by_one(tmp_path: Path) -> None:
    words = ["--data.path=x", "--data.protocol=y", f"--out={tmp_path}", "--engine.trackers=[wandb, mlflow]"]
    config, told = parse([*words, "--data.validation={subject: [7]}"]), Told()
    begin_tracking(told, config)
    begin_tracking(told, replace(config, resume=True))
    (project, settings, first), (_, again, second) = told.calls
    assert project == "mmcl" and again is None  # MLflow refuses settings that change
    assert settings["encoder.width"] == 64 and settings["data.validation.subject"] == "[7]"
    assert all(type(value) in (str, int, float, bool) for value in settings.values())
    assert first["wandb"]["name"] == first["mlflow"]["run_name"] == str(tmp_path)
    assert first["wandb"]["id"] == second["wandb"]["id"] and second["wandb"]["resume"] == "allow"
    assert (first["mlflow"]["run_id"], second["mlflow"]["run_id"]) == (None, "mlflow-made-this-up")
    begin_tracking(told, replace(config, engine=replace(config.engine, trackers=[])))
    assert len(told.calls) == 2


def test_every_setting_is_there_once() -> None:
    settings = {"a": {"b": 1, "c": {}, "d": [1, {"e": None}]}, "f": None, "g": True}
    assert dict(flat(settings)) == {"a.b": 1, "a.c": "{}", "a.d": '[1, {"e": null}]', "f": "null", "g": True}


def test_tensorboard_files_hold_losses_and_settings(demo_store, tmp_path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    words = ["--schedule.epochs=1", "--engine.trackers=[tensorboard]"]
    assert train(parse(arguments(demo_store, tmp_path / "run", *words))) == 0
    (file,) = (tmp_path / "run" / "trackers" / "mmcl").glob("events*")
    found = events.EventAccumulator(str(file)).Reload()
    assert [event.step for event in found.Scalars("train/loss")] == [1, 2, 3]
    (settings,) = (tmp_path / "run" / "trackers").rglob("hparams.yml")
    assert yaml.safe_load(settings.read_text())["encoder.width"] == 8
    assert not (tmp_path / "run" / RECORD).exists()
