"""The data check finds what we broke, and leaves real recordings alone."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import made_stores
import numpy as np
import pytest
import recordings
from PIL import Image

from mmcl import check as script
from mmcl.common.errors import UserError
from mmcl.data.inspection.checks import check
from mmcl.data.inspection.contact_sheet import TILE
from mmcl.data.inspection.findings import BAD, OK, WARN, Finding, Report
from mmcl.data.preparation.build import prepare
from mmcl.data.selection import find_clip
from mmcl.data.store import ClipStore


@pytest.fixture(scope="module")
def takes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every class once by each of two subjects, two of the takes with video."""
    root = tmp_path_factory.mktemp("takes")
    for action in range(1, 28):
        for subject in (1, 2):
            recordings.write_take(root, action, subject, video=20 if action == 1 else None)
    return root


def checked(root: Path, out: Path, changes: dict[str, str] | None = None) -> Report:
    reader = recordings.TamperingReader(root)
    reader.tampered = changes or {}
    return check(prepare(reader, out, workers=1, progress=False).store, progress=False)


def found(report: Report, words: str) -> Finding:
    matching = [finding for finding in report.findings if words in finding.what]
    assert len(matching) == 1, [str(finding) for finding in report.findings]
    return matching[0]


def test_real_recordings_pass(utd_store: ClipStore) -> None:
    report = check(utd_store, progress=False)
    assert [finding.what for finding in report.findings] == ["classes without a clip"]  # sixteen takes of eight
    assert report.findings[0].count == 19 and report.verdict == WARN
    heights = [entry.posture.height for entry in report.measures]
    assert 0.5 < np.median(heights) < 0.7
    assert min(entry.inside for entry in report.measures) > 0.95


def test_a_sound_store_passes(takes: Path, tmp_path: Path) -> None:
    report = checked(takes, tmp_path / "out")
    assert [(finding.level, finding.what) for finding in report.findings] == [(WARN, "without video")]


BROKEN = {  # action: what is done to its take by subject 1, what the finding says, its level
    5: ("millimetres", "not of a person's size", BAD),
    6: ("swapped", "left and right swapped", WARN),
    7: ("legs swapped", "hips and shoulders disagree", WARN),
    8: ("frozen", "never move (left_hand)", BAD),
    9: ("dead", "always zero (left_hand)", WARN),
    10: ("lost", "frames without any body", WARN),
    11: ("short", "shorter than", WARN),
}


@pytest.fixture(scope="module")
def broken(takes: Path, tmp_path_factory: pytest.TempPathFactory) -> Report:
    changes = {f"a{action}_s1_t1": change for action, (change, _, _) in BROKEN.items()}
    return checked(takes, tmp_path_factory.mktemp("broken") / "out", changes)


@pytest.mark.parametrize("action", BROKEN)
def test_a_broken_clip_is_found_and_named(broken: Report, action: int) -> None:
    _, words, level = BROKEN[action]
    finding = found(broken, words)
    assert (finding.level, finding.count, finding.names) == (level, 1, [f"a{action}_s1_t1"])


def test_nothing_else_is_found_and_the_worst_comes_first(broken: Report) -> None:
    assert len(broken.findings) == len(BROKEN) + 1  # and the takes without video
    levels = [finding.level for finding in broken.findings]
    assert levels == sorted(levels) and levels.count(BAD) == 2 and broken.verdict == BAD


@pytest.mark.parametrize(
    ("change", "words", "advice"),
    [
        ("millimetres", "not of a person's size", "millimetres: divide by 1000 (--unit mm)"),
        ("upside down", "upside down", "negate"),
        ("swapped", "left and right swapped", "swap the joints' sides"),
        ("legs swapped", "hips and shoulders disagree", "joint order"),
    ],
)
def test_a_store_that_is_wrong_throughout_is_bad(
    takes: Path, tmp_path: Path, change: str, words: str, advice: str
) -> None:
    report = checked(takes, tmp_path / "out", {"all": change})
    assert report.verdict == BAD and found(report, words).level == BAD
    assert advice in found(report, words).advice


def test_nan_inside_a_store_is_found(tmp_path: Path) -> None:
    """prepare refuses NaN, so the store is written without it."""

    def row(number: int, *sizes: int) -> dict[str, object]:
        made = made_stores.row(number, *sizes)
        if number == 7:
            made["joints"][100] = np.nan
        return made

    store = made_stores.write_store(tmp_path / "out", 20, make=row)
    report = check(store, progress=False)
    assert found(report, "NaN").names == [store.ids[7]] and report.verdict == BAD
    assert report.measures[7].nan_frames == 1


def test_copies_lengths_and_coverage(takes: Path, tmp_path: Path) -> None:
    root = tmp_path / "takes"
    shutil.copytree(takes, root)
    skeletons = root / "Skeleton"
    shutil.copy(skeletons / "a3_s1_t1_skeleton.mat", skeletons / "a4_s2_t1_skeleton.mat")
    (skeletons / "a9_s1_t1_skeleton.mat").unlink()
    (skeletons / "a10_s1_t1_skeleton.mat").unlink()
    (skeletons / "a10_s2_t1_skeleton.mat").unlink()
    recordings.write_video(root / "Video" / "a1_s2_t1_color.mp4", 11)
    report = checked(root, tmp_path / "out")
    assert found(report, "same joints").names == ["a3_s1_t1", "a4_s2_t1"]
    assert found(report, "shorter than the skeleton").names == ["a1_s2_t1"]
    names = report.store.class_names
    assert found(report, "without a clip").names == [names[9]]
    assert found(report, "one subject only").names == [names[8]]
    split = {
        "toy": {"train": np.flatnonzero(report.store.labels != 3), "test": np.flatnonzero(report.store.labels == 3)}
    }
    assert found(check(report.store, split, progress=False), "never trained").names == [names[3]]


def test_the_script_prints_a_verdict_and_writes_page_and_picture(
    takes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reader = recordings.TamperingReader(takes)
    reader.tampered = {"a5_s1_t1": "frozen"}
    store = prepare(reader, tmp_path / "bad", workers=1, progress=False).store
    assert script.main([str(store.path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert any(re.match(r"BAD  joints that never move .*: 1 \(a5_s1_t1\) -> ", line) for line in lines)
    assert any(line.startswith("utd_mhad/cross_subject  27 train / 27 test") for line in lines)
    assert any(line.startswith("verdict: BAD") for line in lines)
    page = (store.path / "check" / "check.md").read_text()
    assert page.startswith("# UTD-MHAD: BAD") and page.count("\n| 26 |") == 1
    assert Image.open(store.path / "check" / "contact_sheet.png").width > 5 * TILE
    reader.tampered = {}
    store = prepare(reader, tmp_path / "good", workers=1, progress=False).store
    assert script.main([str(store.path), "--out", str(tmp_path / "report")]) == 0
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == ["check.md", "contact_sheet.png"]
    assert not (store.path / "check").exists()
    capsys.readouterr()
    (tmp_path / "a_file").write_text("")
    with pytest.raises(UserError, match="--out .*x: the report cannot be written there"):
        script.main([str(store.path), "--out", str(tmp_path / "a_file" / "x")])
    assert "verdict: " in capsys.readouterr().out  # the verdict all the same


def test_a_store_of_bad_clips_alone_is_said_to_be_empty(tmp_path: Path) -> None:
    store = made_stores.write_store(tmp_path / "empty", 0)
    for ask in (lambda: script.main([str(store.path)]), lambda: find_clip(store, "0")):
        with pytest.raises(UserError, match=r"empty: no clips in this store; skipped\.csv in it says why"):
            ask()


def test_verdicts_rank() -> None:
    report = Report(None, [], {})  # type: ignore[arg-type]
    assert report.verdict == OK
    report.whole(WARN, "odd", True, [], "look")
    assert report.verdict == WARN
    report.whole(BAD, "broken", True, ["one"], "repair")
    report.whole(BAD, "nothing", False, [], "")
    assert report.verdict == BAD and len(report.findings) == 2
