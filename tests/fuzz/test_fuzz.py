"""Half a minute of fuzzing with a fixed seed, and everything that fuzzing has found so far."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from fuzz.engine import Find, Tally, fuzz, run_batch
from fuzz.targets import Target, make_targets
from mmcl.common.errors import UserError

CORPUS = Path(__file__).parent / "corpus"
SEED, SECONDS = 20, 30


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture(scope="module")
def targets(scratch: Path, graphs: Path) -> dict[str, Target]:
    return {target.name: target for target in make_targets(scratch, graphs / "bundle")}


def told(finds: list[Find]) -> str:
    return "\n".join(f"{find.name}: {find.seen}" for find in finds)


def test_every_seed_is_read(scratch: Path, targets: dict[str, Target]) -> None:
    tally, refused = Tally(), {"checkpoint.pt"}  # no official network is small enough for a seed
    for target in targets.values():
        run_batch(target, target.seeds(), scratch, tally)
    assert not tally.finds, told(tally.finds)
    unread = {name for name in tally.tried if tally.read[name] < tally.tried[name]}
    assert unread == refused


def test_past_finds_stay_mended(scratch: Path, targets: dict[str, Target]) -> None:
    tally = Tally()
    for name, target in targets.items():
        if files := [path.read_bytes() for path in sorted(CORPUS.glob(f"{name}--*"))]:
            run_batch(target, files, scratch, tally)
    assert not tally.finds, told(tally.finds)
    assert sum(tally.tried.values()) == len(list(CORPUS.glob("*--*")))


def test_mutated_files_are_read_or_refused_in_a_line(scratch: Path, targets: dict[str, Target]) -> None:
    tally = fuzz(list(targets.values()), scratch, SEED, batches=1, until=time.monotonic() + SECONDS)
    assert not tally.finds, told(tally.finds)
    assert sum(tally.tried.values()) > 200


def test_the_engine_finds_what_is_wrong(tmp_path: Path) -> None:
    def run(folder: Path, data: bytes) -> None:
        if data == b"raise":
            raise KeyError("x")
        if data == b"die":
            import os

            os.abort()
        if data == b"fill":
            bytearray(3 << 30)
        if data == b"outside":
            (folder.parent / "outside").write_text("x")
        if data == b"refuse":
            raise UserError("no")

    target = Target("bad", "bytes", lambda: [b"x"], run)
    tally = Tally()
    run_batch(target, [b"good", b"raise", b"die", b"refuse", b"fill", b"good"], tmp_path, tally)
    run_batch(target, [b"outside"], tmp_path, tally)
    assert [(find.data, find.seen.partition(" ")[0]) for find in tally.finds] == [
        (b"raise", "KeyError:"), (b"die", "the"), (b"fill", "MemoryError:"), (b"outside", "wrote"),
    ]  # fmt: skip
    assert tally.read["bad"] == 3 and tally.tried["bad"] == 6
