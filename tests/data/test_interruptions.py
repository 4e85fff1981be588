"""Interruptions: what is done is kept, what is half-written is not believed, nothing is left running."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import recordings

from mmcl.common.errors import UserError
from mmcl.data.preparation import build, parts
from mmcl.data.preparation.build import prepare
from mmcl.data.readers.utd_mhad import UTDMHAD
from mmcl.data.store import open_store

SCRIPT = Path(__file__).resolve().parents[2] / "mmcl" / "prepare.py"


@pytest.fixture
def takes(tmp_path: Path) -> Path:
    """Five made-up takes."""
    for subject in range(1, 6):
        recordings.write_take(tmp_path / "takes", 1, subject)
    return tmp_path / "takes"


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted((folder / "clips").iterdir())}


def damage(takes: Path, name: str) -> bytes:
    """Cut a skeleton file off; returns what it held."""
    file = takes / "Skeleton" / f"{name}_skeleton.mat"
    good = file.read_bytes()
    file.write_bytes(good[:500])
    return good


def test_an_orphaned_worker_ends_itself() -> None:
    """Nobody is left to kill a worker whose parent was killed: the kernel's alarm does, lock or no lock."""
    code = "from mmcl.data.preparation import worker; import ctypes; worker._arm(0.3); ctypes.PyDLL(None).sleep(100)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == -signal.SIGALRM


def test_strict_makes_a_bad_clip_an_error_and_keeps_what_is_done(
    takes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "GROUP_CLIPS", 1)
    good = damage(takes, "a1_s3_t1")
    with pytest.raises(UserError, match="a1_s3_t1: .*--strict"):
        prepare(UTDMHAD(takes), tmp_path / "out", workers=1, strict=True, progress=False)
    assert not (tmp_path / "out").exists()
    (takes / "Skeleton" / "a1_s3_t1_skeleton.mat").write_bytes(good)
    summary = prepare(UTDMHAD(takes), tmp_path / "out", workers=1, strict=True, progress=False)
    assert len(summary.store) == 5 and summary.processed == 3


@pytest.mark.parametrize("lost", ["nothing", "end of the part", "journal line"])
def test_what_a_crash_left_half_written_is_cut_off(
    takes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    monkeypatch.setattr(parts, "GROUP_CLIPS", 1)
    good = damage(takes, "a1_s4_t1")
    with pytest.raises(UserError, match="a1_s4_t1"):
        prepare(UTDMHAD(takes), tmp_path / "out", workers=1, strict=True, progress=False)
    (takes / "Skeleton" / "a1_s4_t1_skeleton.mat").write_bytes(good)
    part = tmp_path / "out.partial" / "clips" / "part-00000.arrow"
    journal = tmp_path / "out.partial" / "progress" / "journal.jsonl"
    assert len(journal.read_text().splitlines()) == 3
    if lost == "end of the part":  # the disk lost what the journal says is there
        os.truncate(part, part.stat().st_size - 10)
    else:  # half a group, for which there is no line; half a line
        part.write_bytes(part.read_bytes() + part.read_bytes()[-700:])
        journal.write_text(journal.read_text()[: -40 if lost == "journal line" else None] + '{"mark": "ab')
    straight = prepare(UTDMHAD(takes), tmp_path / "straight", workers=1, progress=False).store
    resumed = prepare(UTDMHAD(takes), tmp_path / "out", workers=1, progress=False)
    assert resumed.processed == (2 if lost == "nothing" else 3)
    assert content(resumed.store.path) == content(straight.path) and resumed.store.info == straight.info


def test_clips_after_a_changed_one_are_made_again(takes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "GROUP_CLIPS", 1)
    monkeypatch.setattr(parts, "PART_BYTES", 1)
    damage(takes, "a1_s5_t1")
    with pytest.raises(UserError, match="a1_s5_t1"):
        prepare(UTDMHAD(takes), tmp_path / "out", workers=1, strict=True, progress=False)
    recordings.write_skeleton(takes, "a1_s3_t1", recordings.person(33))
    summary = prepare(UTDMHAD(takes), tmp_path / "out", workers=1, progress=False)
    assert summary.processed == 3 and summary.store.frames.tolist() == [20, 20, 33, 20]
    assert [name for name, _ in summary.skipped] == ["a1_s5_t1"]


def test_another_spelling_of_the_source_goes_on(takes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "GROUP_CLIPS", 1)
    good = damage(takes, "a1_s4_t1")
    with pytest.raises(UserError, match="a1_s4_t1"):
        prepare(UTDMHAD(takes), tmp_path / "out", workers=1, strict=True, progress=False)
    (takes / "Skeleton" / "a1_s4_t1_skeleton.mat").write_bytes(good)
    monkeypatch.chdir(takes)
    assert prepare(UTDMHAD(Path("../takes")), tmp_path / "out", workers=1, progress=False).processed == 2
    assert prepare(UTDMHAD(Path()), tmp_path / "out", workers=1, progress=False).processed == 0


@pytest.mark.parametrize("kind", [recordings.HangingReader, recordings.CrashingReader])
def test_lost_clips_are_tried_again(
    takes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[recordings.HangingReader]
) -> None:
    """The third of five: with --strict, or with another time limit; by the same command it is not."""
    monkeypatch.setattr(parts, "GROUP_CLIPS", 1)
    reader, out = kind(takes), tmp_path / "out"
    reader.victim = "a1_s3_t1"

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(build, "finish", stop)
        prepare(reader, out, workers=1, timeout=1, progress=False)

    def lines() -> int:
        return len((tmp_path / "out.partial" / "progress" / "journal.jsonl").read_text().splitlines())

    with pytest.raises(UserError, match="a1_s3_t1: .*--strict"):  # tried again, and lost again
        prepare(reader, out, workers=1, timeout=1, strict=True, progress=False)
    assert lines() == 2
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(build, "finish", stop)
        prepare(reader, out, workers=1, timeout=1, progress=False)
    reader.victim = ""
    if kind is recordings.HangingReader:  # the same limit: as it was; another one: from the lost clip on
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(build, "_fill", stop)
            prepare(reader, out, workers=1, timeout=1, progress=False)
        assert lines() == 5
        assert prepare(reader, out, workers=1, timeout=30, progress=False).processed == 3
    else:
        assert prepare(reader, out, workers=1, timeout=1, strict=True, progress=False).processed == 3
    assert len(open_store(out)) == 5


def test_strict_sees_what_an_earlier_call_skipped(takes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    damage(takes, "a1_s2_t1")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(build, "finish", stop)
        prepare(UTDMHAD(takes), tmp_path / "out", workers=1, progress=False)
    with pytest.raises(UserError, match=r"out.partial: 1 clips were skipped, .*a1_s2_t1: .*--strict"):
        prepare(UTDMHAD(takes), tmp_path / "out", workers=1, strict=True, progress=False)
    assert prepare(UTDMHAD(takes), tmp_path / "out", workers=1, progress=False).processed == 0  # nothing was lost
    with pytest.raises(UserError, match=r"out: 1 clips were skipped, .*a1_s2_t1: .*--overwrite"):
        prepare(UTDMHAD(takes), tmp_path / "out", workers=1, strict=True, progress=False)


# Interruptions. A FIFO as the last skeleton file holds the preparation at a known place: nobody writes to it.


@pytest.fixture
def stuck(tmp_path: Path) -> Path:
    """A part of clips and four more, the last of which blocks whoever reads it in a process of :func:`launch`."""
    root = tmp_path / "takes"
    for trial in range(1, parts.GROUP_CLIPS + 4):
        recordings.write_skeleton(root, f"a1_s1_t{trial:03d}", recordings.person(4, seed=trial))
    os.mkfifo(root / "Skeleton" / "a9_s9_t9_skeleton.mat")
    return root


# Readers refuse a FIFO at once, so that a process that shall be stuck at one is told to open it before it reads.
STUCK = """
import mmcl.data.readers.utd_mhad as module
read = module.UTDMHAD.read
def stuck(self, source):
    if source.id == "a9_s9_t9":
        open({fifo!r}).read()
    return read(self, source)
module.UTDMHAD.read = stuck
"""


def launch(source: Path, out: Path) -> tuple[subprocess.Popen[str], list[psutil.Process]]:
    """Run the script as a file until its first group of clips is written; the process and all that it started."""
    command = [sys.executable, str(SCRIPT), "utd-mhad", "--source", str(source), "--out", str(out), "--workers", "2"]
    fifo, own = source / "Skeleton" / "a9_s9_t9_skeleton.mat", out.with_name("sitecustomize")
    own.mkdir(exist_ok=True)
    (own / "sitecustomize.py").write_text(STUCK.format(fifo=str(fifo)))
    paths = [str(own), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )  # fmt: skip
    journal = out.with_name(out.name + ".partial") / "progress" / "journal.jsonl"
    deadline = time.monotonic() + 60
    while not (journal.exists() and journal.read_text().endswith("\n")):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.02)
    return process, psutil.Process(process.pid).children(recursive=True)


def release(fifo: Path) -> None:
    """Let whoever waits for the FIFO find it empty."""
    with contextlib.suppress(OSError):  # nobody waits
        os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))


def test_kill_9_in_the_middle_then_the_same_command_goes_on(stuck: Path, tmp_path: Path) -> None:
    fifo = stuck / "Skeleton" / "a9_s9_t9_skeleton.mat"
    process, children = launch(stuck, tmp_path / "out")
    process.kill()
    process.wait()
    release(fifo)
    assert psutil.wait_procs(children, timeout=30)[1] == []  # no worker is left behind
    with pytest.raises(UserError, match="has not finished"):
        open_store(tmp_path / "out")
    fifo.unlink()
    recordings.write_skeleton(stuck, "a9_s9_t9", recordings.person(4))
    resumed = prepare(UTDMHAD(stuck), tmp_path / "out", workers=2, progress=False)
    assert resumed.processed == 4
    straight = prepare(UTDMHAD(stuck), tmp_path / "straight", workers=1, progress=False)
    assert resumed.store.fingerprint == straight.store.fingerprint and resumed.store.info == straight.store.info
    assert content(resumed.store.path) == content(straight.store.path)
    assert not (tmp_path / "out.partial").exists()


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_the_workers_and_says_how_to_go_on(stuck: Path, tmp_path: Path, kind: signal.Signals) -> None:
    process, children = launch(stuck, tmp_path / "out")
    process.send_signal(kind)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert psutil.wait_procs(children, timeout=30)[1] == []
    assert errors.splitlines()[-1].startswith("stopped: finished parts are kept in")
    assert "Traceback" not in errors and (tmp_path / "out.partial").is_dir() and not (tmp_path / "out").exists()


def test_two_at_once_are_refused_and_other_options_start_over(stuck: Path, tmp_path: Path) -> None:
    process, _ = launch(stuck, tmp_path / "out")
    with pytest.raises(UserError, match="another `mmcl prepare` is writing there"):
        prepare(UTDMHAD(stuck), tmp_path / "out", workers=1, progress=False)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    (stuck / "Skeleton" / "a9_s9_t9_skeleton.mat").unlink()
    summary = prepare(UTDMHAD(stuck), tmp_path / "out", workers=1, frames_per_clip=2, progress=False)
    assert summary.processed == len(summary.store) == parts.GROUP_CLIPS + 3


class Vanishing(UTDMHAD):
    """Its files go away when the third clip is read, in the way that is asked for."""

    way = "deleted"

    def read(self, source):
        if "_s3_" in source.id and self.skeletons.is_dir():
            if self.way == "deleted":
                os.rename(self.skeletons, f"{self.skeletons}.away")
            elif self.way == "unmounted":  # the folder of the mount stays, empty
                os.rename(self.skeletons, f"{self.skeletons}.away")
                self.skeletons.mkdir()
            elif (self.skeletons / "a1_s3_t1_skeleton.mat").exists():  # one file
                (self.skeletons / "a1_s3_t1_skeleton.mat").unlink()
        return super().read(source)


class Unmounted(Vanishing):
    way = "unmounted"


class OneFile(Vanishing):
    way = "one file"


@pytest.mark.parametrize("reader", [Vanishing, Unmounted])
def test_a_source_that_goes_away_ends_the_job(takes: Path, tmp_path: Path, monkeypatch, reader) -> None:
    monkeypatch.setattr(parts, "GROUP_CLIPS", 1)
    with pytest.raises(UserError, match=r"Skeleton went away while it was read \(a1_s3_t1 was next\).*bring it back"):
        prepare(reader(takes), tmp_path / "out", workers=1, progress=False)
    assert not (tmp_path / "out").exists()
    if (takes / "Skeleton").exists():
        (takes / "Skeleton").rmdir()
    os.rename(takes / "Skeleton.away", takes / "Skeleton")
    summary = prepare(UTDMHAD(takes), tmp_path / "out", workers=1, progress=False)
    assert summary.processed == 3 and len(summary.store) == 5 and not summary.skipped


def test_a_single_file_that_goes_away_costs_its_own_clip(takes: Path, tmp_path: Path) -> None:
    summary = prepare(OneFile(takes), tmp_path / "out", workers=1, progress=False)
    assert summary.skipped == [("a1_s3_t1", "the file has gone")] and len(summary.store) == 4


def test_an_archive_that_goes_away_ends_the_job_and_lost_clips_are_tried_again(tmp_path: Path) -> None:
    from mmcl.data.clip import ClipSource
    from mmcl.data.preparation.pool import worth_another_try
    from mmcl.data.preparation.sources import vanished

    (tmp_path / "there").touch()
    archive = str(tmp_path / "all.zip")
    inside = [ClipSource(str(number), 0, 1, skeleton=archive, member=str(number)) for number in range(3)]
    assert vanished(inside[0], inside) == archive
    alone = ClipSource("a", 0, 1, skeleton=str(tmp_path / "a.npy"), member="640x480")
    assert vanished(alone, [*inside, alone]) is None
    held = ClipSource("b", 0, 1, skeleton=archive, payload={"keypoint": 1})
    assert vanished(held, [*inside, held]) is None
    assert worth_another_try("the file has gone", 60, False, str(tmp_path / "there"))
    assert not worth_another_try("the file has gone", 60, False, archive)
