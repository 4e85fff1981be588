"""``mmcl bench data``: its facts are those of the file system, its made-up recordings are read like real ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmcl import bench
from mmcl.benchmarks import data, reading, recordings
from mmcl.benchmarks.data_table import table
from mmcl.benchmarks.recordings import link_recordings, skeleton_text
from mmcl.common.errors import UserError
from mmcl.data.readers.ntu import NTU120
from mmcl.data.readers.ntu_skeleton import parse


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A measurement of forty clips, its files still there."""
    folder = tmp_path_factory.mktemp("bench")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "STEPS", 2)
        patch.setattr(reading, "WARM", 1)
        return data.measure(None, folder, 40, 2) | {"folder": folder}


def test_sizes_are_those_of_the_files(facts: dict[str, Any]) -> None:
    folder: Path = facts["folder"]
    raw = [os.stat(entry) for entry in os.scandir(folder / "raw")]
    assert len(raw) == 40 and facts["text"]["bytes"] == sum(entry.st_size for entry in raw)
    stored = [entry for entry in (folder / "store-2").rglob("*") if entry.is_file()]
    assert facts["store"]["bytes"] == sum(os.stat(entry).st_size for entry in stored)
    assert facts["store"]["clips"] == 40 and facts["store"]["skipped"] == 0
    assert facts["store"]["padded_bytes"] == 40 * 300 * 150 * 4
    numbers = sum(np.prod(NTU120(folder / "raw").read(source).joints.shape) for source in NTU120(folder / "raw").scan())
    assert facts["store"]["joints_bytes"] == 4 * numbers
    # 24 files, every sixth with two bodies: of the first 40 links 6, each of which the reader keeps as such
    assert facts["store"]["bodies_mean"] == pytest.approx(1 + 6 / 40)
    assert facts["store"]["joints_bytes"] < facts["store"]["bytes"] < 1.1 * facts["store"]["joints_bytes"] + 60_000


def test_everything_was_measured(facts: dict[str, Any]) -> None:
    assert [run["workers"] for run in facts["prepare"]] == [1, 2]
    for run in facts["prepare"]:
        assert run["seconds"] > 0 and run["memory"]["parent"] > 10 << 20 and run["memory"]["children"] > 10 << 20
        assert run["memory"]["together"] <= run["memory"]["parent"] + run["memory"]["children"]
    assert [run["workers"] for run in facts["loader"]] == [0, 2]
    assert all(run["clips"] == 40 and run["clips_per_second"] > 0 for run in facts["loader"])
    assert facts["training"]["steps"] == 1 and 0 <= facts["training"]["waiting"] < 1
    assert facts["parse"]["bytes"] == sum(path.stat().st_size for path in (facts["folder"] / "raw-made-up").iterdir())


def test_the_table_tells_the_numbers_and_marks_what_was_calculated(facts: dict[str, Any]) -> None:
    lines = table(facts).splitlines()
    per_clip = facts["store"]["bytes"] / 40
    assert any(f"{per_clip / 1e3:.1f} kB a clip" in line for line in lines)
    assert any("40, links to 24 made-up .skeleton files" in line for line in lines)
    start = next(number for number, line in enumerate(lines) if "EXTRAPOLATED, not measured, to 113,945" in line)
    assert f"{per_clip * 113945 / 1e9:.1f} GB of store; padded arrays would take 20.5 GB" in lines[start + 2]
    seconds = facts["prepare"][1]["seconds"] / 40 * 113945
    assert f"{seconds / 3600:.2f} h to prepare with 2 worker(s)" in lines[start + 1]


def test_copies_carry_their_action_and_keep_off_the_missing_list(tmp_path: Path) -> None:
    for action in (2, 60):
        (tmp_path / f"S001C001P001R001A{action:03d}.skeleton").write_text("x" * action)
    link_recordings(tmp_path, tmp_path / "raw", 1001)
    reader = NTU120(tmp_path / "raw")
    clips = reader.scan()
    assert len(clips) == 1001 and reader.left_out == []
    assert sorted(np.unique([clip.label for clip in clips], return_counts=True)[1]) == [500, 501]
    assert all(os.stat(clip.skeleton).st_size == clip.label + 1 for clip in clips)
    assert len(link_recordings(tmp_path, tmp_path / "one", 1)) == 1
    with pytest.raises(UserError, match="more than 2 files have names for"):
        link_recordings(tmp_path, tmp_path / "more", 100_000)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no SsssCcccPpppRrrrAaaa.skeleton"):
        link_recordings(tmp_path / "empty", tmp_path / "other", 10)


def refuse_links(*_: object) -> None:
    raise OSError("a required privilege is not held")


@pytest.mark.parametrize("links", [True, False])
def test_given_files_are_only_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    if not links:
        monkeypatch.setattr(os, "symlink", refuse_links)
    texts = {f"S001C00{i}P001R001A007.skeleton": b"x" * i for i in (1, 2, 3)}
    of_no_use = {"S001C001P001R001A121.skeleton": b"no such action", "S001C002P005R002A008.skeleton": b"listed"}
    for name, text in (texts | of_no_use).items():
        (tmp_path / name).write_bytes(text)
    firsts = link_recordings(tmp_path, tmp_path / "raw", 100)
    made = list((tmp_path / "raw").iterdir())
    assert len(made) == 100 and {path.is_symlink() for path in made} == {links}
    assert [path.read_bytes() for path in firsts] == [b"x", b"xx", b"xxx"]
    assert sum(path.stat().st_size for path in made) == 34 + 2 * 33 + 3 * 33
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.skeleton")} == texts | of_no_use


@pytest.mark.parametrize("links", [True, False])
def test_nothing_is_written_through_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    for name in ("mine", "other"):
        (tmp_path / name).write_text(name)
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    if not links:
        monkeypatch.setattr(os, "symlink", refuse_links)
    for taken in ("link", "mine"):
        with pytest.raises(FileExistsError):
            recordings._link(tmp_path / "other", tmp_path / taken)
    assert (tmp_path / "mine").read_text() == "mine"


def test_both_parsers_get_the_same_text_of_few_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    for i in range(1, 10):
        (tmp_path / f"S001C001P001R001A{i:03d}.skeleton").write_text(skeleton_text(rng, 20 + i, 1))
    (tmp_path / "S001C001P001R001A005.skeleton").write_text("damaged")
    read, parsed, original = [], [], NTU120.read
    monkeypatch.setattr(NTU120, "read", lambda self, clip: read.append(clip.skeleton) or original(self, clip))
    monkeypatch.setattr(np, "fromstring", lambda text, sep: parsed.append(text))
    monkeypatch.setattr(reading, "PARSED", 4)
    files = link_recordings(tmp_path, tmp_path / "raw", 50)
    facts = reading.time_parse(NTU120(tmp_path / "raw"), files)
    assert facts["files"] == 3 and len(set(read)) == 3  # every third of nine
    assert {Path(name).read_bytes() for name in read} == set(parsed)
    assert facts["bytes"] == sum(map(len, set(parsed)))
    monkeypatch.setattr(reading, "PARSED", 200)
    assert reading.time_parse(NTU120(tmp_path / "raw"), files)["files"] == 8  # one is damaged


def test_a_time_limit_leaves_nothing_behind(tmp_path: Path) -> None:
    script = (
        "import sys; from mmcl.bench import main; from mmcl.common.errors import run; run(lambda: main(sys.argv[1:]))"
    )
    words = ["data", "--clips", "1000", "--workers", "1", "--folder", str(tmp_path)]
    bench_run = subprocess.Popen([sys.executable, "-c", script, *words], stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("mmcl-bench-*/raw")):
            assert bench_run.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        bench_run.terminate()
        errors = bench_run.communicate(timeout=60)[1]
    finally:
        bench_run.kill()
    # A worker that was just being started may complain after that of what is gone by then.
    assert bench_run.returncode == 130 and "stopped" in errors.splitlines()
    assert list(tmp_path.iterdir()) == []


def test_made_up_text_has_the_form_of_the_real_files(test_data: Path) -> None:
    total, bodies = parse(skeleton_text(np.random.default_rng(0), 50, 2).encode())
    assert total == 50 and [body.joints.shape for body in bodies] == [(50, 25, 3)] * 2
    made_up = skeleton_text(np.random.default_rng(0), 103, 1)
    real = (test_data / "ntu" / "skeleton" / "S001C001P001R001A001.skeleton").read_text()
    assert len(made_up.splitlines()) == len(real.splitlines())
    assert abs(len(made_up) / len(real) - 1) < 0.15


# 256 MiB come and go in a process that holds little else; then 64 MiB in a process that it starts.
COMES_AND_GOES = """
import json, subprocess, sys, time
from mmcl.benchmarks.machine import PeakMemory
with PeakMemory() as memory:
    block = bytearray(256 << 20)
    time.sleep(0.3)
    del block
    subprocess.run([sys.executable, "-c", "import time; block = bytearray(64 << 20); time.sleep(0.5)"], check=True)
print(json.dumps(memory.facts()))
"""


def test_peak_memory_sees_what_comes_and_goes() -> None:
    run = subprocess.run([sys.executable, "-c", COMES_AND_GOES], check=True, capture_output=True, text=True)
    facts = {name: size / 2**20 for name, size in json.loads(run.stdout).items()}
    assert 250 < facts["parent"] - facts["before"] < 290
    assert 60 < facts["children"] < 100
    assert 250 < facts["together"] - facts["before"] < 310  # not at the same time, which would be 320 and more


def test_the_script_hands_over_to_the_subject(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main([]) == 0 and "mmcl bench data --source" in capsys.readouterr().out
    with pytest.raises(UserError, match="nothing to measure called 'weather'"):
        bench.main(["weather"])
    with pytest.raises(UserError, match="--clips must be at least"):
        bench.main(["data", "--clips", "3"])
    with pytest.raises(SystemExit):
        bench.main(["data", "--help"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "measure", lambda *_: {"clips": 40})
        patch.setattr(data, "table", lambda _: "a table")
        assert bench.main(["data", "--json", str(tmp_path / "facts.json")]) == 0
    assert json.loads((tmp_path / "facts.json").read_text()) == {"clips": 40}
