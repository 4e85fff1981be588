"""Options of places, and what a job does on the machine that was chosen for it."""

from __future__ import annotations

import argparse
import builtins
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from made_verbs import job_in, make_verbs, own_environment, starts, wait_for

from mmcl.common.errors import UserError
from mmcl.places.job import Job, Step
from mmcl.places.local import Local
from mmcl.places.options import add_place_options, open_place
from mmcl.places.performing import perform
from mmcl.places.worker import Task, command_of


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
