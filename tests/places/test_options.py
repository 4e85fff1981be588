"""Options of places, and what a job does on the machine that was chosen for it."""

from __future__ import annotations

import argparse
import builtins
import fcntl
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from made_verbs import job_in, make_verbs, own_environment, starts, wait_for

from mmcl.common.errors import UserError
from mmcl.places.job import Job, Step
from mmcl.places.local import Local
from mmcl.places.options import add_place_options, open_place
from mmcl.places.performing import perform
from mmcl.places.worker import Task, command_of, last_lines, launched, told


def chosen(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_place_options(parser, "run")
    return parser.parse_args(words)


def test_the_default_is_this_machine_one_at_a_time_and_what_was_killed_stays_so() -> None:
    with open_place(chosen()) as place:
        assert isinstance(place, Local) and (place.at_once, place.retries) == (1, 0)
    with open_place(chosen("--jobs", "3", "--retries", "2")) as place:
        assert (place.at_once, place.retries) == (3, 2)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--gpus", "1"], "go with --on ray or --on slurm"),
        (["--slurm", "partition=gpu"], "goes with --on slurm"),
        (["--on", "slurm", "--gpus", "0.5"], "Slurm gives whole GPUs"),
    ],
)
def test_options_that_do_not_go_together(words, complaint) -> None:
    with pytest.raises(UserError, match=complaint), open_place(chosen(*words)):
        pass


@pytest.mark.parametrize("share", ["0.00001", "1.5", "-1", "many", "nan"])
def test_gpus_are_whole_or_shares_that_ray_can_count(share, capsys) -> None:
    with pytest.raises(SystemExit):
        chosen("--on", "ray", "--gpus", share)
    assert "give a whole number, or a share below 1" in capsys.readouterr().err
    assert chosen("--gpus", "0.3333").gpus == 0.3333


@pytest.mark.parametrize(("place", "package"), [("ray", "ray"), ("slurm", "submitit")])
def test_a_missing_package_is_named_with_its_remedy(place, package, monkeypatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: object, **more: object) -> object:
        if name == package:
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=rf"not installed here: run `pip install \"mmcl\[{place}\]\"`"):
        open_place(chosen("--on", place)).__enter__()


def test_a_step_whose_proof_is_there_is_not_done_again_nor_those_before_it(tmp_path) -> None:
    steps = tuple(Step((name,), tmp_path / name) for name in ("one", "two"))
    job = Job("a", tmp_path / "log", (*steps, Step(("three",))))
    assert job.commands == [["one"], ["two"], ["three"]]
    (tmp_path / "two").touch()
    assert job.commands == [["three"]]
    (tmp_path / "one").touch()
    assert job.commands == [["three"]]  # without a proof, it is asked each time


def test_a_training_on_several_gpus_is_a_process_for_each() -> None:
    assert command_of(["train", "--seed=1"], 1)[1:] == ["-m", "mmcl", "train", "--seed=1"]
    several = command_of(["train", "--seed=1"], 2)
    assert "--nproc-per-node=2" in several and several[-3:] == ["-m", "mmcl.train", "--seed=1"]
    assert command_of(["evaluate"], 2)[1:] == ["-m", "mmcl", "evaluate"]


def test_a_killed_process_begins_again_as_often_as_the_place_says(tmp_path, capfd, monkeypatch) -> None:
    place, folder = Local(retries=1), tmp_path / "a"
    place.environment = own_environment(make_verbs(tmp_path))
    monkeypatch.chdir(tmp_path)  # python -m looks there first

    def kill_twice() -> None:
        for number in (1, 2):
            wait_for(lambda number=number: starts(folder) == number)
            made[-1].process.kill()

    made, begin = [], place.begin
    place.begin = lambda job: made.append(begin(job)) or made[-1]
    thread = threading.Thread(target=kill_twice)
    thread.start()
    outcome = perform([job_in(folder)], place)
    thread.join()
    assert outcome.failed["a"].startswith("killed by SIGKILL: at work") and starts(folder) == 2
    assert capfd.readouterr().err.count("it begins again where it was") == 1


def test_a_job_that_begins_again_waits_until_its_log_is_free(tmp_path) -> None:
    """Loader workers of a killed training hold it for some seconds."""
    job, place = Job("a", tmp_path / "log", ()), Local(retries=1)
    with pytest.raises(UserError, match="another process is at this"), locked(job.log):
        place.begin(job)
    with locked(job.log) as worker:
        threading.Timer(0.5, worker.kill).start()
        assert place.begin(job).failure() is None


@contextmanager
def locked(log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """While a process that was started with the log as its output is there."""
    with log.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stdout=file) as worker:
            file.close()
            try:
                yield worker
            finally:
                worker.kill()


REPORT = """[rank0]: x
error: no store at data/gone
E1128 04:00:00.1 77 torch/distributed/elastic/multiprocessing/api.py:1000] failed (exitcode: {status}) local_rank: 0
Traceback (most recent call last):
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
============================================================
mmcl.train FAILED
Failures:
<NO_OTHER_FAILURES>
Root Cause (first observed failure):
[0]:
exitcode  : {status} (pid: 78)
============================================================"""


def test_of_several_processes_the_first_that_failed_says_why() -> None:
    lines = REPORT.format(status=2).splitlines()
    assert launched(lines) == 2 and told(lines)[-1] == "error: no store at data/gone"
    killed = [line for line in REPORT.format(status=-9).splitlines() if not line.startswith("error")]
    assert launched(killed) == -9 and told(killed)[-1] == "[rank0]: x"
    assert launched(["training: 5%"]) is None


def test_only_the_last_command_of_a_log_says_how_it_ended(tmp_path) -> None:
    (tmp_path / "log").write_text(f"$ mmcl train\n{REPORT.format(status=-9)}\n$ mmcl evaluate\nerror: no clips\n")
    assert last_lines(tmp_path / "log") == ["error: no clips"] and last_lines(tmp_path / "no") == ["its log is gone"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel of Linux ends the process")
def test_a_process_ends_with_the_worker_that_was_killed_and_another_waits_for_it(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder, variables = tmp_path / "a", make_verbs(tmp_path)
    job, script = job_in(folder), tmp_path / "worker.py"
    script.write_text(
        "from pathlib import Path; from mmcl.places.job import Job, Step; from mmcl.places.worker import Task\n"
        f"Task(Job('a', Path({str(job.log)!r}), (Step(({str(folder)!r},), Path({str(folder / 'done')!r})),)), "
        f"{variables!r})()\n"
    )
    root = str(Path(__file__).parents[2])
    with subprocess.Popen([sys.executable, str(script)], env=own_environment({"PYTHONPATH": root})) as worker:
        wait_for(lambda: starts(folder))
        worker.kill()
    threading.Timer(0.3, (folder / "go").touch).start()
    assert Task(job, variables)() is None  # its lock was free as soon as the first process had saved
    assert (folder / "saved").exists() and starts(folder) == 2


def test_an_interrupted_task_lets_its_process_save(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "a"
    job = job_in(folder)

    def interrupt() -> None:
        wait_for(lambda: starts(folder))
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        Task(job, make_verbs(tmp_path))()
    thread.join()
    assert (folder / "saved").exists() and not (folder / "done").exists()


def test_a_machine_without_the_folder_says_so(tmp_path, monkeypatch) -> None:
    there = tmp_path / "there"
    there.mkdir()
    monkeypatch.chdir(there)
    task = Task(job_in(tmp_path / "a"), {})
    monkeypatch.chdir(tmp_path)
    there.rmdir()
    failure = task()
    assert failure is not None and "must see the same folders" in failure.reason and not failure.ended_from_outside
