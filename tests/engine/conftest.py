"""Fixtures of the engine: a short run that was stopped, and copies of it to be damaged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from forked import reset_accelerate
from short_runs import run

from mmcl.engine.loop import Loop


@pytest.fixture
def fresh() -> None:
    """The state of Accelerate as a new process has it."""
    reset_accelerate()


@pytest.fixture(scope="module")
def stopped(demo_store, tmp_path_factory) -> Path:
    """A run that was asked to stop after its fourth step."""
    out = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loop, "_asked_to_stop", lambda loop, _: loop.position.steps == 4)
        assert run(demo_store, out) == 130
    return out


@pytest.fixture
def copy(stopped, tmp_path) -> Path:
    shutil.copytree(stopped, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def older(copy) -> Path:
    """The run as an earlier mmcl left it: no checkpoint holds digests of its files."""
    for file in copy.glob("checkpoints/*/position.json"):
        position = json.loads(file.read_text())
        assert position.pop("files").keys() == {path.name for path in file.parent.iterdir()} - {"position.json"}
        file.write_text(json.dumps(position))
    return copy
