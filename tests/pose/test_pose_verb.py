"""The whole verb with an estimator that finds coloured squares: real videos, real processes."""

from __future__ import annotations

import csv
import json
import time
from unittest.mock import patch

import numpy as np
import pytest
import yaml
from made_people import FOCAL, LAYOUT, Squares, write_walk
from PIL import Image

from mmcl.common.errors import BadClip, UserError
from mmcl.data.preparation.build import prepare
from mmcl.data.readers.folder import Folder, FolderOptions
from mmcl.data.store import open_store
from mmcl.estimate_pose import main as pose
from mmcl.pose import ESTIMATORS
from mmcl.pose.film import is_camera
from mmcl.pose.worker import Watch

CROSSING = [list(range(60, 260, 4)), list(range(260, 60, -4))]  # columns of 50 frames


@pytest.fixture(scope="module", autouse=True)
def squares():
    with patch.dict(ESTIMATORS._entries, {"squares": "made_people:Squares"}):
        yield


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    write_walk(folder / "cross" / "one.mp4", CROSSING)
    write_walk(folder / "walk" / "two.mp4", [[160 + 2 * i for i in range(25)]], fps=25)
    gone: list[int | None] = [100] * 20 + [None] * 40 + [100] * 20
    write_walk(folder / "walk" / "bad.mp4", [gone])
    (folder / "broken.mkv").write_bytes(b"no video")
    return folder


@pytest.fixture(scope="module")
def made(videos, tmp_path_factory):
    out = tmp_path_factory.mktemp("made") / "poses"
    assert pose([str(videos), "--out", str(out), "--estimator", "squares"]) == 0
    return out


def rows(folder):
    with (folder / "clips.csv").open(newline="") as file:
        return {row["id"]: row for row in csv.DictReader(file)}


def test_a_folder_of_videos_becomes_a_folder_of_clips(made) -> None:
    listed = rows(made)
    assert {name: row["label"] for name, row in listed.items()} == {"cross_one": "cross", "walk_two": "walk"}
    assert yaml.safe_load((made / "folder.yaml").read_text()) == {
        "layout": "mediapipe_33",
        "fps": 30.0,
        "columns": "xyzc",
    }
    clip = np.load(made / listed["cross_one"]["file"])
    assert clip.shape == (2, 50, 33, 4) and clip.dtype == np.float32 and (clip[..., 3] > 0.4).all()
    middles = clip[..., 0].mean(axis=2)  # each walks from one side to the other, steadily
    for middle, begin in zip(middles, middles[:, 0], strict=True):
        truth = np.sign(begin) * np.linspace(100, -96, 50) / FOCAL * 4.0
        np.testing.assert_allclose(middle, truth, atol=0.06)
    assert np.load(made / listed["walk_two"]["file"]).shape == (1, 29, 33, 4)  # 25 frames at 25 a second
    with Image.open(made / "contact_sheet.jpg") as sheet:
        assert sheet.width > 600 and sheet.height > 200


def test_what_is_done_is_not_looked_at_again_and_written_labels_stay(videos, made, capsys) -> None:
    text = (made / "clips.csv").read_text().replace("walk_two,walk", "walk_two,stroll")
    (made / "clips.csv").write_text(text)
    before = {path: path.stat().st_mtime_ns for path in (made / "skeletons").iterdir()}
    capsys.readouterr()
    assert pose([str(videos), "--out", str(made), "--estimator", "squares"]) == 0
    said = capsys.readouterr()
    assert said.out.count("already there") == 2 and "2 of 4" in said.out
    assert "nothing to be had" in said.err and "broken.mkv" in said.err
    assert {path: path.stat().st_mtime_ns for path in (made / "skeletons").iterdir()} == before
    assert rows(made)["walk_two"]["label"] == "stroll"
    assert pose([str(videos), "--out", str(made), "--estimator", "squares", "--smooth"]) == 0
    assert "already there" not in capsys.readouterr().out
    quality = json.loads((made / "recordings" / "cross_one.json").read_text())["quality"]
    assert quality["detected"] == 1 and quality["verdict"] in ("good", "doubtful")


def test_the_clips_go_straight_into_a_store(made, tmp_path) -> None:
    reader = Folder(made)
    assert reader.layout == "mediapipe_33" and reader.options.columns == "xyzc"
    prepare(reader, tmp_path / "store", frames_per_clip=2, crop_size=56, workers=1, progress=False)
    store = open_store(tmp_path / "store")
    assert len(store) == 2 and sorted(store.bodies.tolist()) == [1, 2] and store.layout.joints == LAYOUT.joints
    assert (store.video_frames > 0).all()
    assert Folder(made, options=FolderOptions(fps=25.0)).fps == 25.0
    (tmp_path / "folder.yaml").write_text("layot: coco_17")
    (tmp_path / "clips.csv").write_text("id,label\n")
    with pytest.raises(UserError, match="no option layot"):
        Folder(tmp_path)


def test_cut_makes_a_clip_of_each_stretch(tmp_path) -> None:
    gone: list[int | None] = [None] * 5 + [100] * 20 + [None] * 45 + [120] * 20
    write_walk(tmp_path / "v" / "gone.mp4", [gone])
    write_walk(tmp_path / "v" / "gone-1.mp4", [[100] * 12])  # is called as the first part of the other
    out = tmp_path / "o"
    words = [str(tmp_path / "v"), "--estimator", "squares", "--cut", "--no-sheet", "--label", "stand"]
    for _ in range(2):  # made, and already there
        assert pose([*words, "--out", str(out)]) == 0
        found = rows(out)
        lengths = {name: np.load(out / row["file"]).shape[1] for name, row in found.items()}
        assert lengths == {"gone-1": 12, "gone-1_2": 20, "gone-2": 20}
        assert {row["label"] for row in found.values()} == {"stand"}
    assert np.load(out / "skeletons" / "gone-2.npy").shape == (1, 20, 33, 4)
    assert not (out / "contact_sheet.jpg").exists()
    (out / "clips.csv").write_bytes(b"id;label\ngone-1;h\xe4nd\n")
    with pytest.raises(UserError, match="not UTF-8 text"):
        pose([*words, "--out", str(out)])
    assert b"h\xe4nd" in (out / "clips.csv").read_bytes()


def test_an_estimator_that_hangs_or_dies_costs_its_video(videos) -> None:
    watch = Watch(Squares(Squares.options_type(hang_at=3)), videos / "cross" / "one.mp4", timeout=4.0)
    begin = time.monotonic()
    with pytest.raises(BadClip, match="no frame for 4 s"):
        list(watch)
    assert time.monotonic() - begin < 300  # and not the 600 s that it would sleep
    with pytest.raises(BadClip, match="MemoryError: too much"):
        list(Watch(Squares(Squares.options_type(die_at=3)), videos / "cross" / "one.mp4"))


def test_a_film_that_nobody_looks_at_any_more_is_let_go(videos) -> None:
    frames = iter(Watch(Squares(Squares.options_type()), videos / "cross" / "one.mp4", pictures=True))
    assert next(frames).picture.shape == (240, 320, 3)
    frames.close()


def test_every_second_frame_of_a_quick_film_is_enough(tmp_path) -> None:
    video = write_walk(tmp_path / "quick.mp4", [[160] * 40], fps=60)
    watch = Watch(Squares(Squares.options_type()), video)
    assert [glance.frame for glance in watch] == list(range(0, 40, 2))
    assert watch.facts.rate == 60 and list(watch.tiles)[0] == 0 and 1 < len(watch.tiles) <= 16


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere.mp4", "--out", "o"], "no such video, folder or camera"),
        (["--out", "o"], "give a video, a folder or a camera"),
        (["V", "--out", "o", "--seconds", "3"], "--seconds belongs to a camera"),
        (["V", "--out", "o", "--set", "hang_at"], "give KEY=VALUE"),
        (["V", "--out", "o", "--set", "hang=3"], "no option hang"),
        (["V", "--out", "o", "--fps", "0"], "fps is 0"),
        (["V", "--out", "V"], "holds something else"),
        (["camera:77", "--out", "o"], "not a readable camera"),
    ],
)
def test_mistakes_are_said(videos, tmp_path, monkeypatch, words, said) -> None:
    monkeypatch.chdir(tmp_path)
    words = [str(videos) if word == "V" else word for word in words]
    with pytest.raises(UserError, match=said):
        pose([*words, "--estimator", "squares"])


def test_a_video_that_was_cut_off_is_said_and_keypoints_that_changed_are_read_again(videos, tmp_path, capsys) -> None:
    whole = (videos / "cross" / "one.mp4").read_bytes()
    fast = write_walk(tmp_path / "long.avi", [[60 + 2 * step for step in range(80)]])
    (tmp_path / "cut.avi").write_bytes(fast.read_bytes()[: fast.stat().st_size * 7 // 10])
    words = ["--estimator", "squares", "--no-sheet", "--out"]
    assert pose([str(tmp_path / "cut.avi"), *words, str(tmp_path / "o")]) == 0
    assert "cut.avi: the video ends or breaks after frame" in capsys.readouterr().err
    (tmp_path / "clip.mp4").write_bytes(whole)
    one = np.column_stack([np.linspace(100, 140, 17), np.linspace(50, 200, 17), np.ones(17)])
    for shift, again in ((0, False), (0, True), (30, False)):
        people = [{"image_id": n, "keypoints": (one + (shift, 0, 0)).ravel().tolist()} for n in range(50)]
        if not again:
            (tmp_path / "clip.json").write_text(json.dumps(people))
        weights = ["--estimator", "file", "--weights", str(tmp_path / "clip.json"), "--no-sheet", "--out"]
        assert pose([str(tmp_path / "clip.mp4"), *weights, str(tmp_path / "k")]) == 0
        assert ("already there" in capsys.readouterr().out) is again
    clip = np.load(tmp_path / "k" / "skeletons" / "clip.npy")
    assert clip.shape == (1, 50, 17, 3)
    np.testing.assert_allclose(clip[0, 7], one + (30, 0, 0), rtol=1e-6)


def test_other_joints_go_into_another_folder(videos, made) -> None:
    with pytest.raises(UserError, match="another frame rate"):
        pose([str(videos), "--out", str(made), "--estimator", "squares", "--fps", "15"])


def test_names_of_cameras() -> None:
    assert all(map(is_camera, ("camera", "camera:2", "/dev/video0"))) and not is_camera("camera.mp4")
