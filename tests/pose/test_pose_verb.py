"""The whole verb with an estimator that finds coloured squares: real videos, real processes."""

from __future__ import annotations

import csv
import json
import os
import re
import struct
import time
from unittest.mock import patch

import numpy as np
import pytest
import yaml
from made_people import FOCAL, LAYOUT, Squares, write_walk
from PIL import Image

from mmcl.common.errors import BadClip, UserError
from mmcl.data.preparation.build import prepare
from mmcl.data.readers.folder import Folder
from mmcl.data.readers.folder_options import FolderOptions
from mmcl.data.store import open_store
from mmcl.estimate_pose import main as pose
from mmcl.pose import ESTIMATORS
from mmcl.pose.base import build_estimator
from mmcl.pose.film import Film, is_camera
from mmcl.pose.job import Estimation
from mmcl.pose.recording import Refinement
from mmcl.pose.videos import Video, find_recordings
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


def test_a_part_of_a_film_is_not_shown_with_pictures_of_all_of_it(tmp_path) -> None:
    late: list[int | None] = [None] * 40 + [100] * 20
    words = [str(write_walk(tmp_path / "late.mp4", [late])), "--estimator", "squares", "--no-sheet", "--out"]
    assert pose([*words, str(tmp_path / "whole")]) == pose([*words, str(tmp_path / "cut"), "--cut"]) == 0
    assert rows(tmp_path / "whole")["late"]["video"].endswith("late.mp4")
    assert rows(tmp_path / "cut")["late"]["video"] == ""
    # Cut after all, in the folder of the whole: the clip of before does not stay behind.
    write_walk(tmp_path / "late.mp4", [[100] * 20 + late])
    assert pose([*words, str(tmp_path / "whole"), "--cut"]) == 0
    assert sorted(path.stem for path in (tmp_path / "whole" / "skeletons").iterdir()) == ["late-1", "late-2"]
    assert sorted(rows(tmp_path / "whole")) == ["late-1", "late-2"]


def test_a_label_that_is_told_stands_above_an_earlier_one(tmp_path) -> None:
    for name in ("one", "two"):
        write_walk(tmp_path / "v" / f"{name}.mp4", [[100] * 12])
    words = ["--estimator", "squares", "--no-sheet", "--out", str(tmp_path / "o")]
    assert pose([str(tmp_path / "v"), *words]) == 0
    text = (tmp_path / "o" / "clips.csv").read_text().replace("two,unknown", "two,mine")
    (tmp_path / "o" / "clips.csv").write_text(text)
    assert pose([str(tmp_path / "v" / "one.mp4"), *words, "--label", "wave"]) == 0
    assert pose([str(tmp_path / "v"), *words]) == 0
    assert {name: row["label"] for name, row in rows(tmp_path / "o").items()} == {"one": "wave", "two": "mine"}
    assert pose([str(tmp_path / "v"), *words, "--label", "kick"]) == 0
    assert {row["label"] for row in rows(tmp_path / "o").values()} == {"kick"}


def test_a_damaged_record_does_not_cost_a_line_that_a_person_wrote(tmp_path, capsys) -> None:
    for name in ("one", "two"):
        write_walk(tmp_path / "v" / f"{name}.mp4", [[100] * 12])
    out, words = tmp_path / "o", ["--estimator", "squares", "--no-sheet", "--out", str(tmp_path / "o")]
    assert pose([str(tmp_path / "v"), *words]) == 0
    (out / "clips.csv").write_text((out / "clips.csv").read_text().replace("two,unknown", "two,mine"))
    (out / "recordings" / "two.json").write_text('{"key"')
    assert pose([str(tmp_path / "v" / "one.mp4"), *words]) == 0
    assert "two.json is damaged" in capsys.readouterr().err and rows(out)["two"]["label"] == "mine"


@pytest.mark.parametrize("more", [[], ["--cut"]])
def test_somebody_who_is_in_one_frame_alone_is_nobody(tmp_path, capsys, more) -> None:
    video = write_walk(tmp_path / "one.mp4", [[100 if frame == 7 else None for frame in range(30)]], fps=25)
    for _ in range(2):
        with pytest.raises(UserError, match="no clip could be made"):
            pose([str(video), "--estimator", "squares", "--out", str(tmp_path / "o"), *more])
        assert "nobody was found in any frame" in capsys.readouterr().err
    assert not list((tmp_path / "o" / "recordings").iterdir())


def test_keypoints_belong_to_one_video(tmp_path, capsys) -> None:
    one = np.column_stack([np.linspace(100, 140, 17), np.linspace(50, 200, 17), np.ones(17)])

    def keypoints(name: str, shift: int) -> None:
        people = [{"image_id": n, "keypoints": (one + (shift, 0, 0)).ravel().tolist()} for n in range(12)]
        path = tmp_path / "k" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(people))

    for label in ("kick", "wave"):
        write_walk(tmp_path / "v" / label / "01.mp4", [[100] * 12])
    words = [str(tmp_path / "v"), "--estimator", "file", "--no-sheet", "--out", str(tmp_path / "o"), "--weights"]
    keypoints("01.json", 0)
    for place in (tmp_path / "k", tmp_path / "k" / "01.json"):
        with pytest.raises(UserError, match=r"01\.json would be the keypoints of two videos"):
            pose([*words, str(place)])
    assert not (tmp_path / "o").exists()
    keypoints("kick/01.json", 10)
    keypoints("wave_01.json", 20)
    assert pose([*words, str(tmp_path / "k")]) == 0
    for label, shift in (("kick", 10), ("wave", 20)):
        clip = np.load(tmp_path / "o" / "skeletons" / f"{label}_01.npy")
        np.testing.assert_allclose(clip[0, 3], one + (shift, 0, 0), rtol=1e-6)
    (tmp_path / "k" / "01.json").write_text("[]")  # nobody is in it: another file says how many joints there are
    capsys.readouterr()
    assert pose([*words, str(tmp_path / "k")]) == 0 and capsys.readouterr().out.count("already there") == 2


def test_openpose_files_that_were_written_anew_are_read_again(tmp_path) -> None:
    (tmp_path / "k").mkdir()
    files = [tmp_path / "k" / f"a_{frame:012d}_keypoints.json" for frame in range(3)]
    for file in files:
        file.write_text(json.dumps({"people": [{"pose_keypoints_2d": [1.0] * 54}]}))
    video, options = write_walk(tmp_path / "a.mp4", [[100] * 3]), {"weights": str(tmp_path / "k")}
    work = Estimation("file", build_estimator("file", options), Refinement())
    before = work.key(Video("a", video, "x"))
    assert before == work.key(Video("a", video, "y"))
    files[1].write_text(json.dumps({"people": [{"pose_keypoints_2d": [1.5] * 54}] * 2}))
    assert before != work.key(Video("a", video, "x"))


def test_a_film_with_a_mirror_in_its_header_is_refused(tmp_path) -> None:
    video, unit = write_walk(tmp_path / "plain.mp4", [[100] * 4]), 1 << 16
    content = video.read_bytes()
    plain = struct.pack(">9i", unit, 0, 0, 0, unit, 0, 0, 0, 1 << 30)
    at = content.index(plain, content.index(b"tkhd"))
    for name, matrix in (("turned", (0, unit, 0, -unit, 0, 0, 240 * unit, 0, 1 << 30)),
                         ("mirror", (-unit, 0, 0, 0, unit, 0, 320 * unit, 0, 1 << 30)),
                         ("flip", (unit, 0, 0, 0, -unit, 0, 0, 240 * unit, 1 << 30))):  # fmt: skip
        path = tmp_path / f"{name}.mp4"
        path.write_bytes(content[:at] + struct.pack(">9i", *matrix) + content[at + 36 :])
        if name == "turned":
            assert (Film(path).facts.width, Film(path).facts.height) == (240, 320)
            continue
        with pytest.raises(BadClip, match="to be shown in a mirror"):
            Film(path)


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


def test_every_second_frame_of_a_quick_film_is_enough(tmp_path, capsys) -> None:
    video = write_walk(tmp_path / "quick.mp4", [[160] * 40], fps=60)
    watch = Watch(Squares(Squares.options_type()), video)
    assert [glance.frame for glance in watch] == list(range(0, 40, 2))
    assert watch.facts.rate == 60 and list(watch.tiles)[0] == 0 and 1 < len(watch.tiles) <= 16
    words = ["--estimator", "squares", "--no-sheet", "--fps", "4", "--out", str(tmp_path / "o")]
    assert pose([str(video), *words]) == 0 and "are missing" not in capsys.readouterr().err


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
        (["V", "--out", "o", "--timeout", "inf"], "--timeout is inf"),
        (["V", "--out", "o", "--timeout", "-1"], "--timeout is -1"),
        (["V", "--out", "o", "--timeout", "nan"], "--timeout is nan"),
        (["V", "--out", "o", "--smooth", "1.5,inf"], "smoothing by 1.5,inf"),
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


@pytest.mark.parametrize("share", [1, 0.5])
def test_a_film_that_counts_no_frames_is_measured_by_its_seconds(tmp_path, capsys, share) -> None:
    film = write_walk(tmp_path / "film.mkv", [[60 + 2 * step for step in range(80)]])
    os.truncate(film, int(film.stat().st_size * share))
    assert pose([str(film), "--estimator", "squares", "--no-sheet", "--out", str(tmp_path / "o")]) == 0
    said = r"film\.mkv: the video ends or breaks after frame \d+, at [01]\.\d s of 2\.7 s"
    assert bool(re.search(said, capsys.readouterr().err)) is (share < 1)


def test_an_odd_name_costs_the_list_nothing_but_a_path(tmp_path, capsys) -> None:
    for name in (b"new\nline.mp4", b"odd\xff.mp4", b"new\nclass/plain.mp4", b"wave/plain.mp4"):
        write_walk(tmp_path / "v" / os.fsdecode(name), [[100] * 12])
    out, words = tmp_path / "o", ["--estimator", "squares", "--no-sheet", "--out", str(tmp_path / "o")]
    for _ in range(2):
        assert pose([str(tmp_path / "v"), *words]) == 0
    assert capsys.readouterr().err.count("are listed without their video") == 3
    found = rows(out)
    assert {row["label"] for row in found.values()} == {"new class", "wave", "unknown"}
    assert [bool(found[name]["video"]) for name in ("odd_", "new_line", "wave_plain")] == [False, False, True]
    assert len(Folder(out).scan()) == 4


def test_hidden_files_are_no_videos_and_others_are_named(tmp_path, capsys) -> None:
    for name in ("a.mp4", "b.TS", "in/c.flv"):
        write_walk(tmp_path / name, [[100] * 12])
    for name in ("._a.mp4", "in/.hidden.mp4", ".Trash/d.mp4", "__MACOSX/a.mp4", "notes.txt", "e.rm"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"no video")
    found = [video.path.relative_to(tmp_path).as_posix() for video in find_recordings(tmp_path)]
    assert found == ["a.mp4", "b.TS", "in/c.flv"]
    assert "2 files are no videos by their names, and are passed over (1 .rm, 1 .txt)" in capsys.readouterr().err
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match=r"no videos in this folder \(their names end in .*\.3gp"):
        find_recordings(tmp_path / "none")


def test_other_joints_go_into_another_folder(videos, made) -> None:
    with pytest.raises(UserError, match="another frame rate"):
        pose([str(videos), "--out", str(made), "--estimator", "squares", "--fps", "15"])


def test_names_of_cameras() -> None:
    assert all(map(is_camera, ("camera", "camera:2", "/dev/video0"))) and not is_camera("camera.mp4")
