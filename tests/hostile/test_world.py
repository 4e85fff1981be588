"""Faults of the world: full disks, little memory, workers that are killed, signals, what killed processes leave."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mmcl.common.errors import UserError, run
from mmcl.common.files import atomic_file, atomic_folder
from mmcl.common.interrupts import stop_as_interrupt
from mmcl.common.limits import bounded_memory, is_no_memory
from mmcl.data import loader
from mmcl.data.preparation.parts import Parts
from mmcl.engine.checkpoint import Checkpoints
from mmcl.engine.position import Position

MIB = 1 << 20


def in_a_process(act: Callable[[], None]) -> int:
    """Exit status of a process that does something, negative where a signal ended it; 99 where it raised."""
    child = os.fork()
    if child == 0:
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            act()
            os._exit(0)
        except SystemExit as left:
            os._exit(int(left.code or 0))
        except BaseException:
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def write_torch(folder: Path) -> None:
    torch.save({"w": torch.zeros(MIB)}, folder / "x.pt")


def write_safetensors(folder: Path) -> None:
    save_file({"w": torch.zeros(MIB)}, folder / "x.safetensors")


def write_bytes(folder: Path) -> None:
    (folder / "x").write_bytes(bytes(4 * MIB))


@pytest.mark.parametrize("write", [write_torch, write_safetensors, write_bytes])
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, write: Callable[[Path], None]) -> None:
    def act() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, MIB))
        with pytest.raises(UserError, match="no room left to write .*out"), atomic_folder(tmp_path / "out", "x"):
            write(next(tmp_path.glob(".out.*.tmp")))

    assert in_a_process(act) == 0
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_found_no_room_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no room left to write .*x.json"), atomic_file(tmp_path / "x.json"):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(OSError, match="permission"), atomic_file(tmp_path / "x.json"):
        raise PermissionError("no permission")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("lost", ["part-00000.arrow", "journal.jsonl"])
def test_a_preparation_that_found_no_room_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    def full(file: Any) -> None:
        if file.name.endswith(lost):
            raise OSError(errno.EDQUOT, "Disk quota exceeded")  # names no file

    monkeypatch.setattr(
        "mmcl.data.preparation.parts.batch_of", lambda rows, schema: pa.RecordBatch.from_pylist([], schema)
    )
    monkeypatch.setattr("mmcl.data.preparation.parts.clip_digest", lambda row: "0")
    monkeypatch.setattr("mmcl.data.preparation.parts._to_disk", full)
    with pytest.raises(UserError, match=f"no room left to write .*{lost}"):
        Parts(tmp_path, ["mark"]).append([{"id": "a"}], [])


def test_a_checkpoint_that_found_no_room_leaves_the_last_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = object.__new__(Checkpoints)
    checkpoints.folder, checkpoints.position = tmp_path, Position("d", "s")
    checkpoints.task = nn.Linear(2, 2)  # type: ignore[assignment]
    checkpoints.accelerator = SimpleNamespace(  # type: ignore[assignment]
        is_main_process=True, wait_for_everyone=lambda: None, scaler=None, device=torch.device("cpu"), process_index=0,
        reduce=lambda value, reduction: value,
    )  # fmt: skip
    (tmp_path / "last").mkdir()
    (tmp_path / "last" / "mark").write_text("older")

    def full(tensors: object, file: Path) -> None:
        file.write_bytes(b"half")
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 98496 vs 98384")

    monkeypatch.setattr("mmcl.engine.checkpoint.save_file", full)
    with pytest.raises(UserError, match="no room left to write .*last"):
        checkpoints.save(SimpleNamespace(state_dict=dict))  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == ["last"] and (tmp_path / "last" / "mark").is_file()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "out of memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes"), "out of memory"),
        (ImportError("libtorch.so: failed to map segment from shared object"), "out of memory"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), "--data.workers=0"),
        (RuntimeError("DataLoader worker (pid(s) 7, 8) exited unexpectedly"), "--data.workers=0"),
        (RuntimeError("DataLoader timed out after 900 seconds"), "/dev/shm"),
        (OSError(errno.ENOSPC, "No space left on device", "x.bin"), "make room"),
        (OSError(errno.EFBIG, "File too large", "x.bin"), "make room"),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "x.bin"), "make room"),
        (PermissionError(errno.EACCES, "Permission denied", "x.bin"), "x.bin: Permission denied; change the rights"),
        (OSError(errno.EROFS, "Read-only file system", "x.bin"), "x.bin: Read-only file system; change the rights"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "x"), "x: File name too long; choose a shorter name"),
        (OSError(errno.EMFILE, "Too many open files", "x"), "ulimit -n"),
        (OSError(errno.EIO, "Input/output error"), "error: [Errno 5] Input/output error"),
    ],
)
def test_what_the_world_does_is_one_line(error: Exception, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> int:
        raise error

    with pytest.raises(SystemExit) as left:
        run(fail)
    said = capsys.readouterr().err
    assert left.value.code == 2 and said.startswith("error: ") and words in said and said.count("\n") == 1


def test_what_is_a_fault_of_ours_keeps_its_traceback() -> None:
    with pytest.raises(KeyError):
        run(lambda: {}["x"])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_verb_that_is_asked_to_stop_removes_what_is_half_written(tmp_path: Path, number: signal.Signals) -> None:
    def verb() -> int:
        with atomic_folder(tmp_path / "out", "x") as folder:
            (folder / "half").write_text("x")
            os.kill(os.getpid(), number)
            signal.pause()
        return 0

    def act() -> None:
        signal.signal(number, signal.SIG_DFL)  # whatever these tests were started with, nohup for one
        run(verb)

    assert in_a_process(act) == 130
    assert list(tmp_path.iterdir()) == []


def test_nohup_is_respected() -> None:
    def act() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with stop_as_interrupt():
            os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN

    assert in_a_process(act) == 0


def test_what_a_killed_process_left_goes_and_what_is_being_written_stays(tmp_path: Path) -> None:
    def killed() -> None:
        with atomic_folder(tmp_path / "out", "mark"):
            os.kill(os.getpid(), signal.SIGKILL)

    assert in_a_process(killed) == -signal.SIGKILL
    (left,) = tmp_path.glob(".out.*.tmp")
    with atomic_folder(tmp_path / "out", "mark") as mine:
        (mine / "mark").write_text("one")
        assert not left.exists()
        with atomic_folder(tmp_path / "out", "mark") as other:  # somebody else's, at the same time
            assert mine.is_dir() and other.is_dir()
            (other / "mark").write_text("two")
    assert [path.name for path in tmp_path.iterdir()] == ["out"] and (tmp_path / "out" / "mark").read_text() == "one"


def test_memory_is_bounded_while_a_file_is_read_and_not_after() -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)
    with pytest.raises(MemoryError), bounded_memory(256 * MIB):
        bytearray(1 << 30)
    with pytest.raises(RuntimeError) as error, bounded_memory(256 * MIB):
        torch.zeros(1 << 28)
    assert is_no_memory(error.value) and resource.getrlimit(resource.RLIMIT_AS) == before


def test_too_little_shared_memory_is_said_before_workers_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    store = SimpleNamespace(
        bodies=np.array([1, 2]), frames=np.array([50, 100]), layout=SimpleNamespace(joint_count=25), channels=3
    )
    store_type = type("Store", (), {**vars(store), "__len__": lambda self: 2})
    usage = namedtuple("usage", "free")
    needed = 4 * 125 * 25 * 3 * 64 * 2
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(needed - 1))
    with pytest.raises(UserError, match=r"2 loader workers take 4\.8 MB"):
        loader.check_shared_memory(store_type(), 64, 2)
    loader.check_shared_memory(store_type(), 64, 0)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(needed))
    loader.check_shared_memory(store_type(), 64, 2)
