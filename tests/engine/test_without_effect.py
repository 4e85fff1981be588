"""Settings that could have no effect on what is trained, or that a step is too small for, are refused in a line."""

from __future__ import annotations

from pathlib import Path

import pytest
from engine.running import arguments
from engine.test_start import FOREIGN, make_source

from mmcl.common.errors import UserError
from mmcl.engine.configuring import configure, configure_contrast
from mmcl.engine.parsing import parse
from mmcl.train import train

CONTRAST = ["--task.name=neighbour_contrast", "--task.queue=8"]


def test_texts_cannot_be_shuffled_where_none_is_read(demo_store: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="data.shuffle_texts: task supervised as it is set up reads no text"):
        train(parse(arguments(demo_store, tmp_path / "run", "--data.shuffle_texts=true")))
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_a_classifier_cannot_be_trained_alone_by_a_task_that_trains_none(demo_store: Path, tmp_path: Path) -> None:
    source = make_source(tmp_path / "source", FOREIGN)
    words = [*CONTRAST, f"--start.checkpoint={source}", "--start.train=head"]
    plain = [word for word in arguments(demo_store, tmp_path / "run", *words) if not word.startswith("--encoder")]
    with pytest.raises(UserError, match="start.train=head trains the classifier alone, and task neighbour_contrast"):
        train(configure(plain))


def test_one_clip_has_no_other_to_be_told_from(demo_store: Path, tmp_path: Path) -> None:
    words = [*CONTRAST, "--data.batch_size=4", "--engine.accumulation=4"]
    with pytest.raises(UserError, match=r"batch_size 4 must be at least twice engine.accumulation \(4\)"):
        train(parse(arguments(demo_store, tmp_path / "run", *words)))


def test_teachers_are_those_of_the_second_run(demo_store: Path, tmp_path: Path) -> None:
    words = arguments(demo_store, tmp_path / "run", "--stars=true", "--distil.teacher=a", "--distil.weight", "0.5")
    first, second = configure_contrast(words)
    assert first.task_name == "neighbour_contrast" and not first.distil.teachers
    assert second.distil.teachers and second.distil.weight == 0.5
