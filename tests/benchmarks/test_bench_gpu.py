"""``mmcl bench gpu`` where there is none: its parts by the same code, what they compare, and parts that go wrong."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import psutil
import pytest
import torch

from mmcl.bench import main
from mmcl.benchmarks.gpu import launches
from mmcl.benchmarks.gpu import run as gpu
from mmcl.benchmarks.gpu import training as gpu_training
from mmcl.benchmarks.gpu.launches import reason
from mmcl.benchmarks.gpu.part import Part, Place, Skipped, outcome, perform
from mmcl.benchmarks.gpu.towers import build_llm
from mmcl.common.errors import UserError
from mmcl.towers.llm_load import load_llm


def wrong(place, seconds):
    raise UserError("the driver is too old")


def broken(place, seconds):
    raise ValueError("out of range")


def absent(place, seconds):
    raise Skipped("pip install it")


def endless(place, seconds):
    yield {"what": "early", "found": "before the time was over"}
    print("still at it", flush=True)
    time.sleep(60)


def crash(place, seconds):
    yield {"what": "early", "found": "before the crash"}
    print("CUDA error: device-side assert", flush=True)
    import os

    os._exit(7)


def far(place, seconds):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    (place.folder / "child").write_text(str(child.pid))
    time.sleep(60)


def fine(place, seconds):
    return [{"what": "one", "found": f"{seconds:.1f} s on {place.device}", "number": 1}]


@pytest.mark.parametrize(
    ("measure", "status", "why"),
    [
        (wrong, "failed", "the driver is too old"),
        (absent, "skipped", "pip install it"),
        (broken, "failed", "ValueError: out of range"),
        (fine, "done", ""),
    ],
)
def test_what_a_part_raises_is_a_line_of_the_table(tmp_path, measure, status, why) -> None:
    found = outcome(Part("part", "tries", 50, measure), Place("cpu", True, tmp_path), 0.0)
    assert (found["status"], found["why"]) == (status, why)
    part = {"part": "part", "about": "tries", "seconds": 2.0, **found}
    page = gpu.table({"machine": gpu.machine("torch"), "device": "cpu", "tiny": True, "parts": [part]})
    assert f"| **part** | {status}, 2 s | {why or 'tries'} |" in page
    assert ("| | one | 0.0 s on cpu |" in page) == (status == "done")


@pytest.mark.parametrize(
    ("measure", "limit", "status", "why"),
    [
        (fine, 50, "done", ""),
        (endless, 6, "too long", "ended after 6 s: still at it"),  # a process that begins takes its time
        (crash, 50, "failed", "ended with status 7: CUDA error: device-side assert"),
    ],
)
def test_a_part_takes_nobody_with_it(tmp_path, measure, limit, status, why) -> None:
    found = perform(Part("part", "tries", limit, measure), Place("cpu", True, tmp_path), 50)
    assert (found["status"], found["why"]) == (status, why)
    assert [line["what"] for line in found["lines"]] == ["one" if status == "done" else "early"]  # none is lost


def test_what_a_part_started_ends_with_it_in_whatever_session(tmp_path) -> None:
    assert perform(Part("part", "starts one", 50, far), Place("cpu", True, tmp_path), 8.0)["status"] == "too long"
    pid = int((tmp_path / "child").read_text())
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_what_a_launch_says_is_heard_while_it_runs(monkeypatch, capfd, tmp_path) -> None:
    """A part may be ended before its launch is over: then its last line is all there is to go by."""
    script = tmp_path / "launcher.py"
    script.write_text(
        "import sys\nprint('building', flush=True)\nprint('RuntimeError: no memory', file=sys.stderr)\nsys.exit(3)"
    )
    monkeypatch.setattr(launches, "LAUNCHER", [sys.executable, str(script)])
    with pytest.raises(UserError, match="fsdp2_llm.yaml failed: RuntimeError: no memory"):
        launches.launch("fsdp2_llm", ["--seed=1"])
    assert capfd.readouterr().out.splitlines() == ["building", "RuntimeError: no memory"]


def test_without_a_gpu_one_line_says_so(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="no GPU here that PyTorch can use: `mmcl bench gpu --device cpu --tiny`"):
        main(["gpu"])


def test_parts_that_have_no_time_left_are_named(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setitem(gpu.PARTS, "graph", Part("graph", "tries", 50, fine))
    file = tmp_path / "facts.json"
    assert main(["gpu", "--device", "cpu", "--tiny", "--parts", "graph", "--limit", "0.5", "--json", str(file)]) == 0
    facts = json.loads(file.read_text())
    assert facts["parts"][0]["why"] == "the 0 s of all parts were over" and "skipped" in capsys.readouterr().out


def test_what_one_part_found_outlives_the_next(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(gpu.PARTS, "graph", Part("graph", "tries", 50, fine))
    monkeypatch.setitem(gpu.PARTS, "fsdp", Part("fsdp", "is interrupted", 50, fine))
    real, file = gpu.perform, tmp_path / "facts.json"

    def interrupted(part, place, left):
        if part.name == "fsdp":
            raise KeyboardInterrupt
        return real(part, place, left)

    monkeypatch.setattr(gpu, "perform", interrupted)
    with pytest.raises(KeyboardInterrupt):
        main(["gpu", "--device", "cpu", "--tiny", "--parts", "graph", "fsdp", "--json", str(file)])
    assert [part["lines"][0]["number"] for part in json.loads(file.read_text())["parts"]] == [1]


def test_tensors_of_two_runs_are_compared_bit_by_bit() -> None:
    one = {"a": torch.ones(3), "b": torch.zeros(2)}
    assert gpu_training.compared(one, {"a": torch.ones(3), "b": torch.zeros(2)})["equal"]
    other = gpu_training.compared(one, {"a": torch.tensor([1.0, 1.0, 1.5]), "b": torch.zeros(2)})
    assert other["found"] == "1 of 2 tensors differ, a most: by 5.0e-01" and other["differing"] == {"a": 0.5}


@pytest.mark.slow
def test_towers_of_any_size_load_like_others(tmp_path) -> None:
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    build_llm(tmp_path / "llm", sizes | {"num_key_value_heads": 1, "head_dim": 16}, sizes)
    _, model = load_llm(str(tmp_path / "llm"), "bf16")
    weights = {name: parameter for name, parameter in model.named_parameters() if "language" in name}
    assert {each.dtype for each in weights.values()} == {torch.bfloat16}
    assert {name.split("layers.")[1].split(".")[0] for name in weights if "layers." in name} == {"0"}
    projection = next(each for name, each in weights.items() if name.endswith("gate_proj.weight"))
    assert projection.shape == (48, 32)


def test_resuming_is_bit_exact_on_a_processor(demo_store, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(gpu_training, "demo_store", lambda place: demo_store)
    lines = gpu_training.measure_resume(Place("cpu", True, tmp_path), 0.0)
    assert [line["equal"] for line in lines] == [True, True] and "stopped after step 4" in lines[1]["what"]
    assert len(gpu_training.losses_of(tmp_path / "resume-stopped")) == 6 and gpu_training.speed_of(
        tmp_path / "resume-again") > 0  # fmt: skip


@pytest.mark.slow
def test_everything_in_one_go(tmp_path, capsys) -> None:
    file = tmp_path / "gpu.json"
    assert main(["gpu", "--device", "cpu", "--tiny", "--json", str(file)]) == 1  # fp16 fails without a GPU
    found = {part["part"]: part for part in json.loads(file.read_text())["parts"]}
    assert found.keys() == gpu.PARTS.keys() and "needs a GPU" in found["fp16"]["why"]
    ways = [line["what"].split(";")[0] for line in found["colearn"]["lines"]]
    assert ways == ["skeleton", "cached", "prefix", "live"]
    said = {name: f"{part['status']} {part['why']}" for name, part in found.items()}
    assert {said[name] for name in ("encoder", "resume", "graph", "colearn", "fsdp")} == {"done "}, said
    out = capsys.readouterr().out
    assert "all " in out and "bit for bit" in out and "fp32 graph, 1 clip(s)" in out


def test_of_a_failed_launch_the_line_is_told_that_says_why() -> None:
    said = (
        "Traceback (most recent call last):\n[rank0]: PackageNotFoundError: No package metadata was found for peft\n"
        "torch.distributed.elastic.multiprocessing.errors.ChildFailedError: \n========\n"
    )
    assert reason(said) == "[rank0]: PackageNotFoundError: No package metadata was found for peft"
    assert reason("torch.distributed.elastic.multiprocessing.errors.ChildFailedError: \n").endswith(
        "ChildFailedError: "
    )
    assert reason("killed\n\n") == "killed" and reason("") == "without a word"
