"""The clip store: what goes in comes out, whatever happens in between."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import recordings
from scipy.io import loadmat

from mmcl.common.errors import UserError
from mmcl.data.columns import FORMAT
from mmcl.data.crops import decode, video_frames
from mmcl.data.preparation import parts
from mmcl.data.preparation.build import prepare
from mmcl.data.readers.sysu import SYSUOptions
from mmcl.data.readers.utd_mhad import UTDMHAD
from mmcl.data.store import ClipStore, open_store


@pytest.fixture
def takes(tmp_path: Path) -> Path:
    """Four made-up takes: two with video, one of them at half the skeleton's frame rate."""
    root = tmp_path / "takes"
    recordings.write_take(root, 1, 1, video=20)
    recordings.write_take(root, 1, 2, frames=24, video=12)
    recordings.write_take(root, 2, 1)
    recordings.write_take(root, 2, 2)
    return root


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted((folder / "clips").iterdir())}


def test_the_store_holds_what_the_files_hold(utd_store: ClipStore, utd_takes: Path) -> None:
    store = open_store(utd_store.path)
    assert len(store) == 16 and store.ids == sorted(store.ids) and store.has_video
    assert (store.dataset, store.layout.name, store.fps) == ("utd_mhad", "utd_mhad_20", 30)
    assert len(store.class_names) == 27
    for index, name in enumerate(store.ids):
        values = loadmat(utd_takes / "Skeleton" / f"{name}_skeleton.mat")["d_skel"]
        expected = np.moveaxis(values, 2, 0)[None].astype(np.float32)
        assert np.array_equal(store.joints(index), expected)
        action, subject, trial = (int(part[1:]) for part in name.split("_"))
        assert (store.labels[index], store.subjects[index], store.trials[index]) == (action - 1, subject, trial)
        assert store.frames[index] == store.video_frames[index] == values.shape[2] and store.bodies[index] == 1
        assert [decode(jpeg).size for jpeg in store.crops(index)] == [(224, 224)] * 5
        frames = store.frame_indices(index)
        projected = 160 + 285.6 * values[:, 0, frames] / values[:, 2, frames]
        assert pytest.approx(projected, abs=1e-3) == store.pixels(index)[:, 0, :, 0].T
        assert store.boxes(index).shape == (5, 4)


def test_joints_are_views_on_the_mapped_file(utd_store: ClipStore) -> None:
    joints = utd_store.joints(3)
    assert np.shares_memory(joints, utd_store.joints(3))
    assert not joints.flags.writeable and not joints.flags.owndata and joints.flags.c_contiguous
    with pytest.raises(IndexError):
        utd_store.joints(len(utd_store))
    with pytest.raises(IndexError):
        utd_store.joints(-1)


def test_the_crop_shows_the_frame_of_its_moment(takes: Path, tmp_path: Path) -> None:
    store = prepare(UTDMHAD(takes), tmp_path / "out", workers=1, progress=False).store
    for index, count in ((0, 20), (1, 12)):
        shown = video_frames(store.frame_indices(index), int(store.frames[index]), count)
        for jpeg, frame in zip(store.crops(index), shown, strict=True):  # frames are told apart by brightness
            middle = np.asarray(decode(jpeg))[100:124, 100:124].mean()
            assert middle == pytest.approx(10 + 200 * frame // count, abs=3)


def test_clips_without_video_are_kept_and_counted(takes: Path, tmp_path: Path) -> None:
    summary = prepare(UTDMHAD(takes), tmp_path / "out", workers=1, progress=False)
    assert "4 clips of UTD-MHAD, 0 skipped, 2 with video, 2 without" in str(summary)
    assert summary.store.video_frames.tolist() == [20, 12, 0, 0]
    assert summary.store.crops(3) == [] and summary.store.boxes(3).shape == (0, 4)
    assert len(summary.store.frame_indices(3)) == 5


def test_a_store_pickles_as_its_path_and_datasets_opens_its_parts(utd_store: ClipStore) -> None:
    from datasets import Dataset

    data = pickle.dumps(utd_store)
    assert len(data) < 500
    assert np.array_equal(pickle.loads(data).joints(5), utd_store.joints(5))
    rows = Dataset.from_file(str(utd_store.path / "clips" / "part-00000.arrow"))
    assert rows["id"][:] == utd_store.ids
    assert np.array_equal(np.float32(rows[4]["joints"]), utd_store.joints(4).reshape(-1))


def test_the_result_does_not_depend_on_workers(takes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = prepare(UTDMHAD(takes), tmp_path / "one", workers=1, progress=False).store
    two = prepare(UTDMHAD(takes), tmp_path / "two", workers=2, progress=False).store
    assert content(one.path) == content(two.path) and one.info == two.info
    monkeypatch.setattr(parts, "GROUP_CLIPS", 3)
    monkeypatch.setattr(parts, "PART_BYTES", 1)
    split = prepare(UTDMHAD(takes), tmp_path / "split", workers=2, progress=False).store
    assert len(content(split.path)) == 2
    assert split.fingerprint == one.fingerprint and split.ids == one.ids
    assert all(np.array_equal(split.joints(i), one.joints(i)) for i in range(4))
    other = prepare(UTDMHAD(takes), tmp_path / "other", workers=1, crop_size=64, progress=False).store
    assert other.fingerprint != one.fingerprint


def test_bad_clips_are_skipped_named_and_quiet(takes: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    good = recordings.person(9)
    for subject, joints in enumerate((good * np.nan, good[:19], good * 0), 3):
        recordings.write_skeleton(takes, f"a3_s{subject}_t1", joints)
    for trial, data in enumerate((b"", b"no video", (takes / "Video" / "a1_s1_t1_color.mp4").read_bytes()[:3000]), 2):
        name = recordings.write_take(takes, 4, 1, trial)
        (takes / "Video" / f"{name}_color.mp4").write_bytes(data)
    summary = prepare(UTDMHAD(takes), tmp_path / "out", workers=2, progress=False)
    assert len(summary.store) == 7 and len(summary.skipped) == 3
    lines = (tmp_path / "out" / "skipped.csv").read_text().splitlines()
    assert lines[0] == "id,reason,kind"
    assert lines[1] == "a3_s3_t1,NaN coordinates in 9 of 9 frames,bad"
    without = [(name, why) for name, why, kind in summary.mended if kind == "video"]
    assert [line.split(",")[0] for line in lines[1:]] == [name for name, _ in (*summary.skipped, *without)]
    assert [name for name, _ in without] == ["a4_s1_t2", "a4_s1_t3", "a4_s1_t4"]
    assert all("a4_s1" in reason and "video" in reason for _, reason in without)
    assert "3 skipped" in str(summary) and "skipped a3_s3_t1: NaN" in str(summary)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("kind", "reason"),
    [(recordings.HangingReader, "took longer than 1 s"), (recordings.CrashingReader, "worker process died (SIGSEGV)")],
)
def test_a_clip_that_hangs_or_crashes_costs_itself(
    takes: Path, tmp_path: Path, kind: type[recordings.HangingReader], reason: str
) -> None:
    reader = kind(takes)
    reader.victim = "a1_s2_t1"
    summary = prepare(reader, tmp_path / "out", workers=2, timeout=1, progress=False)
    assert summary.store.ids == ["a1_s1_t1", "a2_s1_t1", "a2_s2_t1"]
    assert [name for name, _ in summary.skipped] == ["a1_s2_t1"] and reason in summary.skipped[0][1]


def test_nothing_is_left_where_every_clip_is_bad(tmp_path: Path) -> None:
    recordings.write_skeleton(tmp_path / "takes", "a1_s1_t1", recordings.person(5) * np.nan)
    with pytest.raises(UserError, match="all 1 clips are bad.*a1_s1_t1: NaN"):
        prepare(UTDMHAD(tmp_path / "takes"), tmp_path / "out", workers=1, progress=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["takes"]


def test_an_existing_folder_is_only_touched_where_it_was_asked_for(takes: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = prepare(UTDMHAD(takes), out, workers=1, progress=False)
    again = prepare(UTDMHAD(takes), out, workers=1, progress=False)
    assert again.processed == 0 and "nothing to do" in str(again)
    with pytest.raises(UserError, match="another store.*frames_per_clip"):
        prepare(UTDMHAD(takes), out, workers=1, frames_per_clip=3, progress=False)
    assert open_store(out).fingerprint == first.store.fingerprint
    store = prepare(UTDMHAD(takes), out, workers=1, frames_per_clip=3, overwrite=True, progress=False).store
    assert len(store.crops(0)) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "takes"]
    recordings.write_take(takes, 5, 1)
    with pytest.raises(UserError, match="different sources"):
        prepare(UTDMHAD(takes), out, workers=1, frames_per_clip=3, progress=False)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("years of work")
    with pytest.raises(UserError, match="is not a clip store"):
        prepare(UTDMHAD(takes), tmp_path / "thesis", workers=1, overwrite=True, progress=False)
    assert (tmp_path / "thesis" / "chapter1.tex").is_file()


def test_a_damaged_or_unfinished_store_says_so(takes: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        open_store(tmp_path / "nowhere")
    with pytest.raises(UserError, match="not a clip store"):
        open_store(takes)
    (tmp_path / "half.partial").mkdir()
    for path in (tmp_path / "half", tmp_path / "half.partial"):
        with pytest.raises(UserError, match="has not finished"):
            open_store(path)
    store = prepare(UTDMHAD(takes), tmp_path / "out", workers=1, progress=False).store
    part = store.path / "clips" / "part-00000.arrow"
    os.truncate(part, part.stat().st_size - 100)
    with pytest.raises(UserError, match="missing or cut off"):
        open_store(store.path)
    (store.path / "store.json").write_text(json.dumps({"format": FORMAT}))
    with pytest.raises(UserError, match="damaged store"):
        open_store(store.path)


class WithOptions(UTDMHAD):
    """A reader with an option, and a list of clips that it never offers."""

    name = "with-options"

    def __init__(self, source: Path, axes: str = "xyz") -> None:
        super().__init__(source)
        self.options = SYSUOptions(axes)
        self.left_out = [("a9_s9_t9", "on the list of lost takes"), ("a8_s8_t8", "on the list of lost takes")]


def test_reader_options_and_what_they_bring_are_part_of_the_plan(takes: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare(WithOptions(takes), out, workers=1, progress=False)
    assert prepare(WithOptions(takes), out, workers=1, progress=False).processed == 0
    with pytest.raises(UserError, match=r"another store \(different axes\)"):
        prepare(WithOptions(takes, "zxy"), out, workers=1, progress=False)
    for change, words in (({"fps": 25.0}, "fps"), ({"layout": "kinect_v1_20"}, "layout"),
                          ({"class_names": list("abc")}, "classes")):  # fmt: skip
        reader = WithOptions(takes)
        vars(reader).update(change)
        with pytest.raises(UserError, match=rf"another store \(different {words}\)"):
            prepare(reader, out, workers=1, progress=False)


def test_clips_left_out_by_a_list_are_named_and_counted_apart(takes: Path, tmp_path: Path) -> None:
    recordings.write_skeleton(takes, "a3_s1_t1", recordings.person(9) * 0)
    for _ in range(2):  # made, and found again
        summary = prepare(WithOptions(takes), tmp_path / "out", workers=1, progress=False)
        assert "4 clips of UTD-MHAD, 1 skipped" in str(summary)
        assert "\n2 left out: on the list of lost takes\n" in str(summary)
        assert summary.left_out[0] == ("a8_s8_t8", "on the list of lost takes") and len(summary.skipped) == 1
    assert (tmp_path / "out" / "skipped.csv").read_text().splitlines()[1:] == [
        "a3_s1_t1,all coordinates are zero or missing,bad",
        "a8_s8_t8,on the list of lost takes,left out",
        "a9_s9_t9,on the list of lost takes,left out",
    ]
    assert (summary.store.info["skipped"], summary.store.info["left_out"]) == (1, 2)
