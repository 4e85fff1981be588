"""The demo runs from generated recordings to its summary table, and its numbers are those of its reports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from forked_verbs import call_verb

from mmcl import demo

STEPS = ("prepare demo", "check", "build-tower tiny-clip", "train.py", "evaluate", "export", "zero-shot", "predict")


def judged(folder: Path, printed: str) -> None:
    """What the demo leaves and prints is what its own reports say."""
    assert all(step in printed for step in STEPS)
    table = printed.split("\n\n")[-2] + printed.split("\n\n")[-1]
    report = json.loads((folder / "demo" / "run" / "report-test" / "report.json").read_text())
    transfer = json.loads((folder / "demo" / "zero-shot" / "report.json").read_text())
    assert f"{report['top1']:.1%} of {report['n']} clips" in table
    assert f"{transfer['top1']:.1%} of {transfer['n']} clips" in table
    assert "synthetic" in table and "random" in table and "chance 8.3%" in table
    bundle = folder / "demo" / "bundle"
    assert {path.name for path in bundle.iterdir()} == {"README.md", "config.json", "model.onnx", "model.safetensors"}
    assert [path.name for path in folder.iterdir()] == ["demo"]


@pytest.mark.slow
def test_demo_as_it_ships(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "mmcl", "demo", "--out", "demo", "--subjects", "2", "--epochs", "2"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=500, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    judged(tmp_path, done.stdout)


def test_demo_from_nothing_to_the_summary_table(tmp_path: Path, monkeypatch, capfd) -> None:
    """Every verb runs in a process of its own that need not import everything again; the training is launched."""
    launch = subprocess.run

    def run(command: list[str], **words: Any) -> Any:
        if command[2] != "mmcl":
            return launch(command, **words)
        done = call_verb(*command[3:])
        print(done.stdout, done.stderr)
        return done

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo.subprocess, "run", run)
    small = ["--subjects", "2", "--takes", "1", "--epochs", "1", "--data.batch_size=12"]
    assert demo.main(["--out", str(tmp_path / "demo"), *small, "--encoder.width=8", "--encoder.depth=3"]) == 0
    judged(tmp_path, capfd.readouterr().out)
