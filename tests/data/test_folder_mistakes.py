"""What a newcomer gets wrong with a folder of clips, and what they are told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from own_clips import LAYOUT, listed, made, read, text

from mmcl.common.errors import BadClip, UserError
from mmcl.data.clip import check_joints
from mmcl.data.readers.folder import Folder
from mmcl.data.readers.folder_options import FolderOptions

WRONG_LISTS = {
    "id,label": "no clips in it",
    "": r"must name a column 'id'; it says \[",
    "id,klass\na,0": "must name a column 'label'",
    "id,label,label\na,0,0": "must name a column 'label'",
    "id,label,subjet\na,0,1": "unknown column 'subjet': did you mean 'subject'",
    "id,label,split,split\na,0,x,y": "two columns 'split'",
    "id,label\na,0\na,1": "line 3: id 'a' is the one of line 2, too",
    "id,label\na/b,0": "line 2: id 'a/b' is no name; say where the file lies in a column 'file'",
    "id,label\n,0": "line 2: id '' is no name",
    "id,label\na,": "line 2: no label",
    "id,label\na": "line 2: 1 cells, but the header has 2",
    "id,label\na,jump, high": "line 2: 3 cells, but the header has 2",
    "id,label\na,0\nb,wave": "line 3: label 'wave' is a name, that of line 2 is a number",
    "id,label\na,999999": "label 999999, but there are 10000 classes",
    "id,label\na\x00,1": "line 2: an unprintable character",
    "id,label,camera\na,0,left": "line 2: camera 'left' is no whole number from 0",
    "id,label,trial\na,0,99999999999": "line 2: trial '99999999999'",
    "id,label,setup\na,0,-1": "line 2: setup '-1'",
    "id,label,width\na,0,640": "line 2: width and height belong together",
    'id,label\n"a,0': "no clips|line 2",
}


@pytest.mark.parametrize("content", WRONG_LISTS)
def test_a_wrong_list_is_refused_with_its_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "clips.csv").write_text(content)
    with pytest.raises(UserError, match=WRONG_LISTS[content]) as error:
        Folder(tmp_path, options=FolderOptions(layout=LAYOUT)).scan()
    assert "\n" not in str(error.value)


def test_what_is_missing_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder.*clips.csv"):
        Folder(tmp_path / "nowhere", options=FolderOptions(layout=LAYOUT))
    with pytest.raises(UserError, match="no clips.csv in it.*id,label and, if wanted, subject"):
        Folder(tmp_path, options=FolderOptions(layout=LAYOUT))
    listed(tmp_path, "a,0")
    with pytest.raises(UserError, match=r"--layout NAME \(.*coco_17, .*kinect_v1_20.*--layout FILE.yaml"):
        Folder(tmp_path)
    with pytest.raises(UserError, match="no layout 'kinect'"):
        Folder(tmp_path, options=FolderOptions(layout="kinect"))
    with pytest.raises(UserError, match="unit 'inch': choose one of m, cm, mm"):
        Folder(tmp_path, options=FolderOptions(layout=LAYOUT, unit="inch"))
    with pytest.raises(UserError, match="fps 0"):
        Folder(tmp_path, options=FolderOptions(layout=LAYOUT, fps=0))
    with pytest.raises(UserError, match="fps 20000: give frames per second, above 0 and at most 10,000"):
        Folder(tmp_path, options=FolderOptions(layout=LAYOUT, fps=20_000))  # a store of it could not be read
    with pytest.raises(UserError, match="the video folder"):
        Folder(tmp_path, tmp_path / "nowhere", options=FolderOptions(layout=LAYOUT))
    (tmp_path / "clips.csv").write_bytes("id,label\nä,0".encode("latin1"))
    with pytest.raises(UserError, match="not UTF-8 text; save it as CSV UTF-8"):
        Folder(tmp_path, options=FolderOptions(layout=LAYOUT))
    listed(tmp_path, "a,run")
    (tmp_path / "classes.txt").write_text("walk\nwalk")
    with pytest.raises(UserError, match="expected different class names"):
        Folder(tmp_path, options=FolderOptions(layout=LAYOUT))
    (tmp_path / "classes.txt").write_text("walk")
    with pytest.raises(UserError, match=r"label 'run' is none of the 1 lines of classes\.txt"):
        Folder(tmp_path, options=FolderOptions(layout=LAYOUT))
    listed(tmp_path, "a,1")
    with pytest.raises(UserError, match="label 1, but there are 1 classes, counted from 0"):
        Folder(tmp_path, options=FolderOptions(layout=LAYOUT))
    (tmp_path / "classes.txt").write_text("1\n2\n3")
    with pytest.raises(UserError, match=r"line 2: label 1 is a line of classes\.txt and, .* number of another, '2'"):
        Folder(tmp_path, options=FolderOptions(layout=LAYOUT))


WRONG_FILES = {
    "joints.npy": (made(joints=25), "25 joints, expected 20"),
    "shape.npy": (
        np.ones((6, 3, 5, 4, 2)),
        r"numbers of shape \(6, 3, 5, 4, 2\), expected \(persons, frames, 20 joints",
    ),
    "four.npy": (made(coordinates=4), "four numbers a joint .*no confidence"),
    "five.npy": (made(coordinates=5), "5 numbers a joint, expected 2 or 3 or 4"),
    "words.npy": (np.full((6, 20, 3), "x"), "holds text, not numbers"),
    "zeros.npy": (made() * 0, "all coordinates are zero"),
    "unknown.npy": (made() * np.nan, "all coordinates are zero"),
    "infinite.npy": (made() * np.inf, "infinite"),
    "nobody.npy": (made(0), "no body"),
    "short.npy": (made(frames=0), "no frames"),
    "x.npz": ({"a": made(), "b": made()}, "holds a, b; expected one array, or one that is called 'joints'"),
    "empty.npz": ({}, "holds no array"),
    "ragged.json": ("[[[1, 2, 3]], [[1, 2]]]", "not an array of numbers"),
    "words.json": ('[[["a"]]]', "not an array of numbers"),
    "object.json": ('{"frames": []}', "no joints, skeletons, keypoints in the JSON object"),
    "text.json": ("walk", "not a JSON file"),
    "deep.json": ("[" * 100_000, "not a JSON file|not an array"),
    "width.csv": (text(made(joints=19)[0]), "57 numbers a line, expected 20 joints x 2 or 3"),
    "indexed.csv": ("\n".join("0," + line for line in text(made()[0]).split()), "61 numbers a line.*is there a column"),
    "uneven.csv": ("0," + text(made()[0]), "lines of different length .60 and 61"),
    "ragged.csv": (text(made()[0]) + "\n1,2,3", "lines of different length"),
    "words.csv": (text(made()[0]).replace("0.", "zero"), "no numbers"),
    "header.csv": ("frame,x,y", "no frames"),
    "a.txt": ("1", "files of clips end in .npy, .npz, .json, .csv"),
}


@pytest.mark.parametrize("name", WRONG_FILES)
def test_a_wrong_file_costs_itself(tmp_path: Path, name: str) -> None:
    content, reason = WRONG_FILES[name]
    listed(tmp_path, f"a,0,{name}", header="id,label,file")
    if isinstance(content, str):
        (tmp_path / name).write_text(content)
    elif isinstance(content, dict):
        np.savez(tmp_path / name, **content)
    else:
        np.save(tmp_path / name, content)
    with pytest.raises(BadClip, match=reason):
        check_joints(read(tmp_path, "a"), 20)


def test_what_no_reader_thought_of_costs_a_clip_and_not_the_folder(tmp_path, monkeypatch) -> None:
    listed(tmp_path, "a,0,a.csv", "b,0,b.csv", header="id,label,file")
    names = [f"{axis}{'9' * 4400 * (joint == 19) or joint}" for joint in range(20) for axis in "xyz"]
    (tmp_path / "a.csv").write_text(text(made()[0], header=",".join(names)))
    rows = text(made()[0]).split("\n")
    lines = [f"take_{'²' * line},{row}" for line, row in enumerate(rows)]
    (tmp_path / "b.csv").write_text("\n".join([",".join(["frame", *names[:57], "x19", "y19", "z19"]), *lines]))
    assert read(tmp_path, "a").shape == read(tmp_path, "b").shape == (1, 6, 20, 3)
    monkeypatch.setattr("mmcl.data.readers.folder.read_clip", lambda *_: {}["a kind that is no BadClip"])
    assert Folder(tmp_path, options=FolderOptions(layout=LAYOUT)).dimensions == 3


def test_joints_far_from_the_origin_are_refused_and_not_rounded(tmp_path) -> None:
    listed(tmp_path, "near,0", "far,0", "millimetres,0")
    clip = made()
    np.save(tmp_path / "near.npy", clip + 9_000)
    np.save(tmp_path / "far.npy", clip + (500_000, 0, 5_400_000))
    np.save(tmp_path / "millimetres.npy", clip + 2e6)
    assert np.allclose(read(tmp_path, "near"), clip + 9_000, rtol=1e-7)
    with pytest.raises(BadClip, match=r"5,400,00\d metres from the origin.*--unit"):
        read(tmp_path, "far")
    assert read(tmp_path, "millimetres", unit="mm").max() < 2_100


@pytest.mark.parametrize(("largest", "words"), [(100.0, "go up to 100: divide"), (2.0, "in whole steps")])
def test_confidences_that_are_none_are_refused(tmp_path, largest: float, words: str) -> None:
    listed(tmp_path, "a,0")
    sure = np.linspace(0, largest, 3)[np.arange(120) % 3].reshape(1, 6, 20, 1)
    np.save(tmp_path / "a.npy", np.concatenate([made(), sure], axis=-1))
    with pytest.raises(BadClip, match=words):
        read(tmp_path, "a", columns="xyzc")
