"""Runs of a study in processes: killed and resumed, stopped, failed, already at work, finished."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from mmcl.common.errors import UserError
from mmcl.engine.parsing import parse
from mmcl.ensemble import main as ensemble
from mmcl.evaluate import main as evaluate
from mmcl.evaluation.reporting.groups import read_groups
from mmcl.evaluation.reporting.outdated import is_outdated
from mmcl.models.record import tensors_digest
from mmcl.places.job import Job
from mmcl.places.local import Local
from mmcl.places.performing import perform
from mmcl.studies.reading import read_study
from mmcl.studies.statistics import compare_arms, read_reports
from mmcl.studies.table import write_table
from mmcl.study import main as study
from mmcl.train import train

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}


@dataclass(frozen=True)
class Quick(Job):
    """A job of verbs that take no time."""

    words: tuple[str, ...] = ()

    @property
    def commands(self) -> list[list[str]]:
        """One word each; ``done`` once the log says so."""
        done = self.log.is_file() and "mmcl 0" in self.log.read_text()
        return [] if done else [[word] for word in self.words]


def quick(out: Path, name: str, *words: str) -> Quick:
    return Quick(f"{name}/0", out / name / "0.log", (), words)


def test_a_failed_run_is_named_with_its_last_line_and_the_others_go_on(tmp_path, capfd) -> None:
    verbs = {"good": ["--version"], "bad": ["fly", "--version"], "last": ["--version"]}
    runs = [quick(tmp_path, name, *words) for name, words in verbs.items()]
    outcome = perform(runs, Local(2))
    assert not outcome.stopped and list(outcome.failed) == ["bad/0"]
    reason = outcome.failed["bad/0"]
    assert reason.startswith("exit status 2: error: unknown verb 'fly'") and str(runs[1].log) in reason
    assert "bad/0 failed: exit status 2" in capfd.readouterr().err
    assert not runs[0].commands and not runs[2].commands and "$ mmcl fly" in runs[1].log.read_text()
    written = runs[0].log.read_bytes()
    perform(runs[:1], Local())  # finished: nothing is started again
    assert runs[0].log.read_bytes() == written


def test_a_run_that_another_process_is_at_is_left_alone(tmp_path) -> None:
    runs = [quick(tmp_path, "mine", "--version"), quick(tmp_path, "theirs", "--version")]
    runs[1].log.parent.mkdir()
    with runs[1].log.open("ab") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        # A child that was started with the log outlives whoever locked it, and keeps the lock.
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stdout=log) as orphan:
            log.close()
            outcome = perform(runs, Local(2))
            assert list(outcome.failed) == ["theirs/0"] and "another process is at this" in outcome.failed["theirs/0"]
            orphan.communicate(b"\n")
    assert perform(runs, Local(2)).failed == {} and not runs[1].commands


@pytest.fixture(scope="module")
def settings(demo_store) -> dict[str, object]:
    """A small network on the demo store that takes some seconds to train."""
    return {
        "data.path": str(demo_store), "data.protocol": "demo/cross_subject", "data.batch_size": 4, "data.workers": 0,
        "preprocess.window": 16, "encoder.width": 8, "encoder.depth": 3, "schedule.epochs": 5,
        "schedule.warmup_epochs": 1, "augmentation.noise": 0.01, "engine.log_every": 1, "engine.checkpoint_steps": 1,
        "engine.trackers": [],
    }  # fmt: skip


def write(path: Path, settings: dict[str, object], arms: dict[str, dict[str, object]]) -> list[str]:
    path.write_text(yaml.safe_dump({"recipe": "own_joint", "set": settings, "arms": arms}, sort_keys=False))
    return ["--config", str(path), "--out", str(path.parent / "out")]


def begin(words: list[str]) -> subprocess.Popen[str]:
    """Start a study as the leader of a process group, as a shell does."""
    return subprocess.Popen(
        [sys.executable, "-m", "mmcl", "study", *words], env=ENVIRONMENT, start_new_session=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def wait_for_step(run: Path, step: int) -> None:
    """Until the run has got that far, or for a long time."""
    deadline, metrics = time.monotonic() + 200, run / "metrics.jsonl"
    while time.monotonic() < deadline:
        if metrics.is_file() and len(metrics.read_text().splitlines()) > step:
            return
        time.sleep(0.02)


@contextmanager
def ctrl_c_at(run: Path, step: int) -> Iterator[None]:
    """Interrupt this very process once a run has got so far."""

    def interrupt() -> None:
        wait_for_step(run, step)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    yield
    thread.join()


def test_killed_then_stopped_then_finished_as_if_nothing_had_happened(settings, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # another number of threads rounds otherwise
    words = write(tmp_path / "own.yaml", settings, {"joint": {}, "wrong": {"data.protocol": "no/such"}})
    out, run = tmp_path / "out", tmp_path / "out" / "joint" / "0"
    assert study([*words, "--dry-run"]) == 0 and not out.exists()
    assert "# joint/0: to do\nmmcl train --config own_joint" in capsys.readouterr().out
    process = begin(words)
    wait_for_step(run, 3)
    os.killpg(process.pid, signal.SIGKILL)  # the study and its training, without a word
    process.communicate(timeout=60)
    capsys.readouterr()
    with ctrl_c_at(run, 12):  # to the study alone: it must pass it on
        assert study(words) == 130
    assert "the same command goes on from here" in capsys.readouterr().out and not (run / "summary.json").exists()
    assert study(words) == 1
    said = capsys.readouterr()
    assert "1 of 2 runs finished" in said.out and "failed: wrong/0: exit status 2: error: no protocol" in said.err
    log = run.with_name("0.log").read_text()
    assert log.count("$ mmcl train") == 3 and log.count("resuming at step") == 2 and log.count("$ mmcl evaluate") == 1
    keys = [f"--{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in settings.items()]
    train(parse(["--config", "own_joint", *keys, f"--out={tmp_path / 'straight'}"]))
    learned = Path("checkpoints") / "last" / "learned.safetensors"
    expected, found = load_file(tmp_path / "straight" / learned), load_file(run / learned)
    assert all(tensor.equal(found[name]) for name, tensor in expected.items())
    check_the_table(out, run / "report-test")
    assert study([*words, "--only", "joint"]) == 0 and run.with_name("0.log").read_text() == log  # nothing left to do
    with pytest.raises(UserError, match="run joint/0: cannot resume.*encoder.width was 8 and is now 16"):
        study(write(tmp_path / "own.yaml", {**settings, "encoder.width": 16}, {"joint": {}}))


def test_a_look_at_a_run_on_its_way_is_no_judgement_of_it(settings, tmp_path, capsys) -> None:
    """`mmcl evaluate` of an interrupted run leaves a report where the study would put the last one."""
    words = write(tmp_path / "own.yaml", settings, {"joint": {}})
    run = read_study(words[1]).runs(tmp_path / "out")[0]
    with ctrl_c_at(run.folder, 3):
        assert study(words) == 130
    assert evaluate(["--checkpoint", str(run.folder)]) == 0
    early = tmp_path / "early" / "report-test"
    shutil.copytree(run.report, early)
    assert [command[0] for command in run.commands] == ["train", "evaluate"]
    read_groups([f"a={run.folder}", f"b={early}"])  # of what there is, it is a good report
    assert study(words) == 0 and not run.commands
    read_groups([f"a={run.folder}", f"b={early}"])  # elsewhere, one may be kept of any state
    assert json.loads((run.report / "report.json").read_text())["selection"] == "last epoch"

    shutil.rmtree(run.report)
    shutil.copytree(early, run.report)
    assert [command[0] for command in run.commands] == ["evaluate"]
    facts = json.loads((early / "report.json").read_text())
    for change in ({"selection": "last epoch"}, {"network": None}):  # each of the two gives it away
        (run.report / "report.json").write_text(json.dumps(facts | change))
        assert [command[0] for command in run.commands] == ["evaluate"]
        with pytest.raises(UserError, match=r"report-test is of an earlier state of .*run `mmcl evaluate"):
            read_groups([f"a={run.folder}", f"b={early}"])
        with pytest.raises(UserError, match="report-test is of an earlier state of"):
            ensemble([str(run.folder), str(early), "--out", str(tmp_path / "fused")])
    assert study(words) == 0 and not run.commands and "1 of 1 runs finished" in capsys.readouterr().out
    shutil.rmtree(run.folder / "checkpoints")
    assert not run.commands  # a table can be made without them


def test_a_report_of_a_run_in_double_precision_is_known_by_what_it_was_judged_in(tmp_path) -> None:
    last = tmp_path / "checkpoints" / "last"
    last.mkdir(parents=True)
    (tmp_path / "config.yaml").touch()
    weight = torch.randn(3, dtype=torch.float64)
    save_file({"encoder.weight": weight, "bank": weight.clone()}, last / "learned.safetensors")
    facts = {"checkpoint": "elsewhere/checkpoints/last", "network": tensors_digest({"weight": weight.float()})}
    assert not is_outdated(tmp_path / "report-test", facts)
    other = facts | {"network": tensors_digest({"weight": weight.half()})}
    assert is_outdated(tmp_path / "report-test", other)
    assert not is_outdated(tmp_path / "report-small", other | {"changed_by": "compress"})  # put here by somebody
    (tmp_path / "b" / "checkpoints").mkdir(parents=True)
    (tmp_path / "b" / "config.yaml").touch()
    assert not is_outdated(tmp_path / "report-b", other | {"checkpoint": str(tmp_path / "b" / "checkpoints" / "last")})


def test_arms_are_judged_by_other_evaluations_than_accuracy(settings, tmp_path) -> None:
    """The table holds the number that the evaluation goes by; another one judges the trained runs anew."""
    short = {**settings, "schedule.epochs": 1, "engine.checkpoint_steps": 0}
    content = {"recipe": "own_joint", "set": short, "arms": {"joint": {}, "narrow": {"encoder.width": 16}}}
    verbs = {"train": lambda words: train(parse(words)), "evaluate": evaluate}
    found = {}
    for name, options in (("knn", {"k": [3]}), ("groups", {"many": 1, "few": 1})):
        path = tmp_path / "own.yaml"
        path.write_text(yaml.safe_dump({**content, "judge": name, "judge_options": options}, sort_keys=False))
        study_ = read_study(str(path))
        runs = study_.runs(tmp_path / "out")
        assert [len(run.commands) for run in runs] == ([2, 2] if name == "knn" else [1, 1])  # trained once
        for run in runs:
            for verb, *words in run.commands:
                assert verbs[verb](words) == 0
        reports = read_reports(runs)
        rows = compare_arms(study_, reports)
        page = write_table(tmp_path / "out", study_, rows, reports, {})
        saved = json.loads((tmp_path / "out" / "study.json").read_text())
        facts = json.loads((runs[1].report / "report.json").read_text())
        assert (facts["evaluation"], saved["judgement"]["main"]) == (name, facts["main"])
        assert rows[1].value == pytest.approx(facts[facts["main"]])
        assert {"knn": "| knn top1 % |", "groups": "| top-1 % |"}[name] in page
        found[name] = facts["main"]
    assert found["knn"] == "knn_top1" and found["groups"] != "knn_top1"
    both = {"judge": ["groups", "knn"], "judge_options": {"groups": {"many": 1, "few": 1}, "knn": {"k": [3]}}}
    path.write_text(yaml.safe_dump({**content, **both}, sort_keys=False))
    study_ = read_study(str(path))
    runs = study_.runs(tmp_path / "out")
    assert not any(run.commands for run in runs)  # each of them has judged already
    reports = read_reports(runs)
    write_table(tmp_path / "out", study_, compare_arms(study_, reports), reports, {})
    knn = json.loads((runs[1].folder / runs[1].beside[0].report / "report.json").read_text())["knn_top1"]
    page = (tmp_path / "out" / "study.md").read_text()
    row = next(line for line in page.partition("## Matrix")[2].splitlines() if line.startswith("| narrow |"))
    assert f"{100 * knn:.1f}" in row and f"{100 * reports[runs[1]].value:.1f}" in row
    assert (tmp_path / "out" / "matrix.png").stat().st_size > 5000
    groups = read_groups([str(tmp_path / "out")])  # by the first judge, whatever its report is called
    assert groups["narrow"][0].path == runs[1].report


def check_the_table(out: Path, report: Path) -> None:
    saved = json.loads((out / "study.json").read_text())
    assert saved["rows"][0]["value"] == pytest.approx(json.loads((report / "report.json").read_text())["top1"])
    assert saved["judgement"]["protocol"] == "demo/cross_subject" and "wrong/0" in saved["unfinished"]
    assert "- wrong: no finished run yet." in (out / "study.md").read_text()
