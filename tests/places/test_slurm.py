"""Jobs through submitit: as processes of this machine, and through programs that stand in for Slurm."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest
from fake_slurm import make_slurm
from made_verbs import job_in, make_verbs, starts, wait_for

from mmcl.common.errors import UserError
from mmcl.places.on_slurm import TIMEOUTS, OnSlurm, _reason
from mmcl.places.performing import Outcome, perform

pytestmark = pytest.mark.skipif(find_spec("submitit") is None, reason='no submitit: pip install "mmcl[slurm]"')


def place_of(tmp_path: Path, retries: int = 0, **options: str) -> OnSlurm:
    place = OnSlurm(None, retries, cpus=2, gpus=0, options=options)
    place.poll = 0.05
    place.variables |= make_verbs(tmp_path)
    return place


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not where mmcl's sources lie: `python -m` would find them first."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The stand-in, on PATH; what it still runs is killed."""
    folder = make_slurm(tmp_path / "slurm")
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    yield folder
    for file in folder.glob("*.pid"):
        kill_group(file)


def kill_group(file: Path) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(int(file.read_text()), signal.SIGKILL)


def while_performing(act: Callable[[], None], folder: Path, place: OnSlurm) -> Outcome:
    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    try:
        return perform([job_in(folder)], place)
    finally:
        thread.join()


def test_jobs_on_this_machine_are_done_and_ctrl_c_lets_them_save(tmp_path) -> None:
    place, folder = place_of(tmp_path, cluster="local"), tmp_path / "a"

    def interrupt() -> None:
        wait_for(lambda: starts(folder))
        os.kill(os.getpid(), signal.SIGINT)

    outcome = while_performing(interrupt, folder, place)
    assert outcome.stopped and not outcome.failed and not outcome.going_on
    wait_for((folder / "saved").exists)
    (folder / "go").touch()
    assert perform([job_in(folder)], place) == Outcome() and (folder / "done").exists()


def test_a_job_of_slurm_goes_on_alone_is_taken_up_again_and_begins_anew_where_its_node_failed(tmp_path, slurm) -> None:
    place, folder = place_of(tmp_path, retries=1, partition="long", reservation="ours"), tmp_path / "a"

    def interrupt() -> None:
        wait_for(lambda: starts(folder))
        os.kill(os.getpid(), signal.SIGINT)

    outcome = while_performing(interrupt, folder, place)
    assert outcome.stopped and outcome.going_on == {"a": "101"} and "`scancel 101` ends them" in outcome.farewell
    script = (slurm / "101.sh").read_text()
    for line in ("partition=long", "reservation=ours", "time=1440", "cpus-per-task=2", "job-name=mmcl-a"):
        assert f"#SBATCH --{line}\n" in script

    def fail_then_let_go() -> None:
        wait_for(lambda: (folder / "0.slurm" / "101_submitted.pkl").exists())
        kill_group(slurm / "101.pid")  # the batch script, submitit and our process, as where a node is lost
        wait_for(lambda: starts(folder) == 2)
        (folder / "go").touch()

    assert while_performing(fail_then_let_go, folder, place) == Outcome()
    assert starts(folder) == 2 and (slurm / "next").read_text().strip() == "102" and (folder / "done").exists()


def test_a_job_whose_time_is_up_saves_and_asks_to_be_queued_again(tmp_path) -> None:
    place, folder = place_of(tmp_path, cluster="local"), tmp_path / "a"

    def time_is_up() -> None:
        wait_for(lambda: starts(folder))
        (submitit,) = psutil.Process(int(made[0].submitted.job_id)).children()
        submitit.send_signal(signal.SIGUSR2)  # as Slurm does before the end
        wait_for(lambda: starts(folder) == 2)  # submitit's controller begins it again, as Slurm does
        (folder / "go").touch()

    made = []
    begin = place.begin
    place.begin = lambda job: made.append(begin(job)) or made[-1]
    assert while_performing(time_is_up, folder, place) == Outcome()
    assert (folder / "saved").exists() and (folder / "done").exists()


def test_a_job_may_run_out_of_time_as_often_as_the_docs_say_and_the_last_error_is_its_reason(tmp_path) -> None:
    from submitit.core.utils import DelayedSubmission

    folder, place = tmp_path / "a", place_of(tmp_path, cluster="local")
    handle = place.begin(job_in(folder))
    assert DelayedSubmission.load(handle.submitted.paths.submitted_pickle)._timeout_countdown == TIMEOUTS
    (folder / "go").touch()
    wait_for(lambda: not handle.working())
    rule = "-" * 22
    said = f"Job (task=0) failed:\n{rule}\nTraceback:\nUncompletedJobError: timed-out\n{rule}\nlogs at:\n  - /x/0.err"
    assert _reason(ValueError(said)) == "UncompletedJobError: timed-out" and _reason(ValueError("short")) == "short"


def test_a_waiting_job_is_not_submitted_again_where_slurm_keeps_no_accounts(tmp_path, slurm) -> None:
    place, folder = place_of(tmp_path), tmp_path / "a"
    (slurm / "next").write_text("200")  # submitit remembers how jobs of other tests ended, by their numbers
    (slurm / "sacct").write_text("#!/bin/bash\n")  # knows nothing, as without accounting
    (slurm / "squeue").write_text(f'#!/bin/bash\ntest -e {slurm}/"$3.pid" && echo "$3 waits"\n')
    (slurm / "squeue").chmod(0o755)
    first, second = place.begin(job_in(folder)), place.begin(job_in(folder))
    assert first.submitted.job_id == second.submitted.job_id == "201"
    (folder / "go").touch()
    wait_for(lambda: not second.working())
    assert second.failure() is None


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"cluster": "moon"}, "it is slurm, or local"),
        ({"time": "1-00:00:00", "cluster": "local"}, "give whole minutes"),
        ({}, "no sbatch and srun here"),
    ],
)
def test_mistakes(options, complaint, monkeypatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match=complaint):
        OnSlurm(None, 0, 1, 0, options)
