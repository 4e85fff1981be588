"""The demo runs from generated recordings to its summary table, and its numbers are those of its reports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

STEPS = ("prepare demo", "check", "build-tower tiny-clip", "train.py", "evaluate", "export", "zero-shot", "predict")
SMALL = ["--takes", "1", "--epochs", "1", "--data.batch_size=12", "--encoder.width=8", "--encoder.depth=3"]


@pytest.mark.parametrize("words", [pytest.param(["--epochs", "2"], marks=pytest.mark.slow, id="as it ships"), SMALL])
def test_demo_from_nothing_to_the_summary_table(tmp_path: Path, words: list[str]) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "mmcl", "demo", "--out", str(tmp_path / "demo"), "--subjects", "2", *words]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=500, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(step in done.stdout for step in STEPS)
    table = done.stdout.split("\n\n")[-2] + done.stdout.split("\n\n")[-1]
    report = json.loads((tmp_path / "demo" / "run" / "report-test" / "report.json").read_text())
    transfer = json.loads((tmp_path / "demo" / "zero-shot" / "report.json").read_text())
    assert f"{report['top1']:.1%} of {report['n']} clips" in table
    assert f"{transfer['top1']:.1%} of {transfer['n']} clips" in table
    assert "synthetic" in table and "random" in table and "chance 8.3%" in table
    bundle = tmp_path / "demo" / "bundle"
    assert {path.name for path in bundle.iterdir()} == {"README.md", "config.json", "model.onnx", "model.safetensors"}
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]
