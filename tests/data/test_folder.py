"""One's own clips: every kind of file, and the list that describes them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import recordings
from own_clips import LAYOUT, RNG, listed, made, read, text, write
from scipy.io import loadmat

from mmcl.common.errors import BadClip
from mmcl.data.preparation.build import prepare
from mmcl.data.readers.folder import Folder
from mmcl.data.readers.folder_options import FolderOptions


def test_the_store_holds_real_recordings_in_every_form(test_data: Path, tmp_path: Path) -> None:
    paths = sorted((test_data / "utd_mhad" / "Skeleton").glob("a?_s[34]_t1_skeleton.mat"))
    truth, lines = {}, []
    for number, path in enumerate(paths):
        name = path.stem.removesuffix("_skeleton")
        truth[name] = loadmat(path)["d_skel"].transpose(2, 0, 1)
        place = tmp_path if number % 2 else tmp_path / "skeletons"
        write(place / f"{name}{('.npy', '.npz', '.json', '.csv')[number % 4]}", truth[name])
        lines.append(f"{name},action {name[1]},person {name[4]},{'train' if name[4] == '3' else 'test'},2,3,4")
    listed(tmp_path, *lines, header="ID, Label ,subject,split,camera,setup,trial")
    reader = Folder(tmp_path, options=FolderOptions(layout="utd_mhad_20", fps=25, name="mine at home"))
    store = prepare(reader, tmp_path / "out", workers=2, progress=False).store
    assert (store.dataset, store.layout.name, store.fps) == ("mine_at_home", "utd_mhad_20", 25)
    assert store.class_names == [f"action {number}" for number in range(1, 10)] and sorted(truth) == store.ids
    for index, name in enumerate(store.ids):
        assert np.array_equal(store.joints(index), truth[name][None].astype(np.float32))
        assert store.labels[index] == int(name[1]) - 1
        facts = store.subjects[index], store.cameras[index], store.setups[index], store.trials[index]
        assert facts == (int(name[4]) - 2, 2, 3, 4)
        assert store.splits[index] == [{"3": "train", "4": "test"}[name[4]]]


def test_forms_of_arrays(tmp_path: Path) -> None:
    listed(
        tmp_path,
        *(f"{name},0" for name in ("whole", "named", "object", "spaced", "semicolons", "headed", "pandas", "F")),
    )
    two, one = made(2), made()[0]
    np.save(tmp_path / "whole.npy", (two * 1000).astype(np.int16))
    np.savez(tmp_path / "named.npz", other=np.ones(3), joints=two)
    (tmp_path / "object.json").write_text(json.dumps({"label": 3, "skeletons": two.tolist()}))
    (tmp_path / "spaced.csv").write_text(text(one, "  "))
    (tmp_path / "semicolons.csv").write_text("\ufeff" + text(one, ";") + "\n\n", encoding="utf-8")
    (tmp_path / "headed.csv").write_text(text(one, "\t", "\t".join(f"joint {i}" for i in range(60))))
    (tmp_path / "pandas.csv").write_text(text(one, ",", ",".join(str(i) for i in range(60))))
    np.save(tmp_path / "F.npy", np.asfortranarray(two))
    for name, expected in (
        ("whole", (two * 1000).astype(np.int16)),
        *(("named", two), ("object", two), ("F", two)),
        *(("spaced", one[None]), ("semicolons", one[None]), ("headed", one[None]), ("pandas", one[None])),
    ):
        assert np.array_equal(read(tmp_path, name), expected.astype(np.float32)), name


def test_units_missing_joints_and_bodies_that_are_not_there(tmp_path: Path) -> None:
    listed(tmp_path, "array,0", "json,0", "csv,0", "two,0")
    joints = made()[0]
    joints[2, 5, 1] = np.nan
    np.save(tmp_path / "array.npy", joints)
    (tmp_path / "json.json").write_text(json.dumps(joints.tolist()).replace("NaN", "null"))
    (tmp_path / "csv.csv").write_text(text(joints).replace("nan", ""))
    np.save(tmp_path / "two.npy", np.stack([joints * 0, joints]))
    expected = np.where(np.isnan(joints).any(-1, keepdims=True), 0, joints)[None]
    for name in ("array", "json", "csv", "two"):
        assert np.array_equal(read(tmp_path, name), expected.astype(np.float32))
    assert np.allclose(read(tmp_path, "csv", unit="mm"), expected / 1000, rtol=1e-6, atol=0)
    assert np.allclose(read(tmp_path, "csv", unit="cm"), expected / 100, rtol=1e-6, atol=0)


def test_two_coordinates_are_pixels_of_a_picture(tmp_path: Path) -> None:
    listed(tmp_path, "flat,0,1280,720", "lost,0,,", header="id,label,width,height")
    pixels = RNG.random((1, 4, 20, 2)) * (1280, 720)
    pixels[0, 1, 2] = 0
    pixels[0, 3, 4, 0] = np.nan
    for name in ("flat", "lost"):
        np.save(tmp_path / f"{name}.npy", pixels)
    reader = Folder(tmp_path, options=FolderOptions(layout=LAYOUT))
    flat, lost = reader.scan()
    raw = reader.read(flat)
    assert raw.picture == (1280, 720) and raw.pixels is not None
    for frame, joint in np.ndindex(4, 20):
        u, v = pixels[0, frame, joint]
        if (frame, joint) in ((1, 2), (3, 4)):
            assert not raw.joints[0, frame, joint].any() and np.isnan(raw.pixels[0, frame, joint]).all()
        else:
            expected = (u - 640) / 360, (360 - v) / 360
            assert raw.joints[0, frame, joint] == pytest.approx(expected, abs=1e-6)
            assert raw.pixels[0, frame, joint] == pytest.approx((u, v))
    with pytest.raises(BadClip, match="need the columns width and height"):
        reader.read(lost)


def test_videos_lie_where_the_list_or_their_names_say(tmp_path: Path) -> None:
    root = listed(tmp_path / "a", "x,0,takes/1.mp4", "y,0,", header="id,label,video")
    plain = Folder(root, options=FolderOptions(layout=LAYOUT))
    assert [clip.video for clip in plain.scan()] == [str(root / "takes/1.mp4"), None]
    elsewhere = Folder(root, tmp_path, options=FolderOptions(layout=LAYOUT))
    assert elsewhere.scan()[0].video == str(tmp_path / "takes/1.mp4")
    root = listed(tmp_path / "b", "x,0", "y,0")
    (root / "videos" / "y").mkdir(parents=True)
    (root / "videos" / "x.avi").touch()
    (root / "videos" / "y" / "1.png").touch()
    videos = [clip.video for clip in Folder(root, options=FolderOptions(layout=LAYOUT)).scan()]
    assert videos == [str(root / "videos" / "x.avi"), str(root / "videos" / "y")]


def test_a_video_beside_joints_in_pixels_is_cropped_around_them(tmp_path: Path) -> None:
    """The video is half as large as the picture that the joints were found in."""
    listed(tmp_path, "a,0,640,480", header="id,label,width,height")
    pixels = np.array([400.0, 100.0]) + 100 * RNG.random((1, 12, 20, 2))
    np.save(tmp_path / "a.npy", pixels)
    recordings.write_video(tmp_path / "videos" / "a.mp4", 12)
    reader = Folder(tmp_path, options=FolderOptions(layout=LAYOUT))
    store = prepare(reader, tmp_path / "out", workers=1, progress=False).store
    left, top, right, bottom = store.boxes(0).T
    assert (left >= 180).all() and (right <= 270).all() and (top >= 30).all() and (bottom <= 120).all()


def test_labels_by_number_by_name_and_in_the_order_of_classes_txt(tmp_path: Path) -> None:
    root = listed(tmp_path, "a,2", "b,0")
    assert Folder(root, options=FolderOptions(layout=LAYOUT)).class_names == ["class 0", "class 1", "class 2"]
    (root / "classes.txt").write_text("walk\n run \n\njump, high\n", encoding="utf-8")
    assert Folder(root, options=FolderOptions(layout=LAYOUT)).class_names == ["walk", "run", "jump, high"]
    listed(tmp_path, 'a,"jump, high"', "b,walk")
    assert [clip.label for clip in Folder(root, options=FolderOptions(layout=LAYOUT)).scan()] == [2, 0]
    (root / "classes.txt").unlink()
    reader = Folder(root, options=FolderOptions(layout=LAYOUT))
    assert reader.class_names == ["jump, high", "walk"] and [clip.label for clip in reader.scan()] == [0, 1]


def test_labels_that_are_lines_of_classes_txt_with_their_numbers(tmp_path: Path) -> None:
    root = listed(tmp_path, "a,1 hand", "b,0 Hands")
    (root / "classes.txt").write_text("0 hands\n1 hand")
    reader = Folder(root, options=FolderOptions(layout=LAYOUT))
    assert reader.class_names == ["0 hands", "1 hand"] and [clip.label for clip in reader.scan()] == [1, 0]
    listed(tmp_path, "a,1", "b,0")
    assert Folder(root, options=FolderOptions(layout=LAYOUT)).class_names == ["hands", "hand"]
    (root / "classes.txt").write_text("0\n1")
    assert Folder(root, options=FolderOptions(layout=LAYOUT)).class_names == ["0", "1"]


def test_people_lists_and_other_columns(tmp_path: Path) -> None:
    root = listed(tmp_path, "b;0;7;train a/b;blue", "a;0;;val;", "c;0;12;;red", header="id;label;subject;split;shirt")
    clips = Folder(root, options=FolderOptions(layout=LAYOUT)).scan()
    assert [(clip.id, clip.subject, clip.splits) for clip in clips] == [
        ("a", 0, ("val",)),
        ("b", 7, ("train", "a_b")),
        ("c", 12, ()),
    ]
    root = listed(tmp_path, "b,0,Zoe", "a,0,10", "c,0,Ann", header="id,label,subject")
    assert [clip.subject for clip in Folder(root, options=FolderOptions(layout=LAYOUT)).scan()] == [10, 12, 11]
    nobody = Folder(listed(tmp_path, "a,0"), options=FolderOptions(layout=LAYOUT))
    assert {clip.subject for clip in nobody.scan()} == {0}


def test_files_can_be_named_by_the_list(tmp_path: Path) -> None:
    root = listed(tmp_path, "a,0,deep/er/take 1.npy", "clips,0,", header="id,label,file")
    write(tmp_path / "deep" / "er" / "take 1.npy", made())
    assert read(root, "a").shape == (1, 6, 20, 3)
    with pytest.raises(BadClip, match=r"no file clips\.npy/\.npz/\.json/\.csv in the folder"):
        read(root, "clips")
