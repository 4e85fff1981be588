"""What a preparation is made from is looked at closely enough to tell when it has changed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import recordings

from mmcl.common.errors import UserError
from mmcl.data.clip import ClipSource
from mmcl.data.preparation.build import prepare
from mmcl.data.preparation.sources import check_ids, check_reader, marks_of
from mmcl.data.readers.utd_mhad import UTDMHAD
from mmcl.data.store import open_store


def save(file: Path, value: float) -> None:
    """An array of always the same size, certainly later than the one before it."""
    before = file.stat().st_mtime_ns if file.exists() else 0
    file.parent.mkdir(parents=True, exist_ok=True)
    np.save(file, np.full(9, value))
    os.utime(file, ns=(before + 10**9, before + 10**9))


def test_a_file_saved_anew_at_the_same_size_is_another(tmp_path: Path) -> None:
    save(tmp_path / "a.npy", 1)
    clip = ClipSource("a", 0, 1, skeleton=str(tmp_path / "a.npy"))
    before = marks_of([clip])
    assert marks_of([clip]) == before
    save(tmp_path / "a.npy", 2)
    assert marks_of([clip]) != before


def test_folders_are_looked_into(tmp_path: Path) -> None:
    """A folder of arrays whose members are rows, one whose members are files, and pictures that are a video."""
    for name in ("x/x_train.npy", "j/one.npy", "j/two.npy", "v/0001.npy", "v/0002.npy"):
        save(tmp_path / name, 1)
    clips = [
        ClipSource("row", 0, 1, skeleton=str(tmp_path / "x"), member="train/0"),
        ClipSource("one", 0, 1, skeleton=str(tmp_path / "j"), member="one.npy"),
        ClipSource("two", 0, 1, skeleton=str(tmp_path / "j"), member="two.npy", video=str(tmp_path / "v")),
    ]
    for name, differ in (("x/x_train.npy", [0]), ("j/one.npy", [1]), ("v/0002.npy", [2]), ("j/two.npy", [2])):
        before = marks_of(clips)
        save(tmp_path / name, 2)
        after = marks_of(clips)
        assert [index for index in range(3) if before[index] != after[index]] == differ
    before = marks_of(clips)
    (tmp_path / "v" / "0001.npy").rename(tmp_path / "v" / "0003.npy")
    assert marks_of(clips)[2] != before[2]


def test_spelling_does_not_matter_but_the_place_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "in" / "a.npy", 1)
    shutil.copytree(tmp_path / "in", tmp_path / "other")
    monkeypatch.chdir(tmp_path)
    names = (str(tmp_path / "in" / "a.npy"), "in/a.npy", "other/../in/a.npy", "other/a.npy")
    marks = marks_of([ClipSource("a", 0, 1, skeleton=name) for name in names])
    assert marks[0] == marks[1] == marks[2] != marks[3]


def test_a_prepared_store_knows_that_its_source_has_changed(tmp_path: Path) -> None:
    takes = tmp_path / "takes"
    file = takes / "Skeleton" / f"{recordings.write_take(takes, 1, 1)}_skeleton.mat"
    prepare(UTDMHAD(takes), tmp_path / "out", workers=1, progress=False)
    assert prepare(UTDMHAD(takes), tmp_path / "out", workers=1, progress=False).processed == 0
    later = file.stat().st_mtime_ns + 10**9
    os.utime(file, ns=(later, later))
    with pytest.raises(UserError, match="different sources"):
        prepare(UTDMHAD(takes), tmp_path / "out", workers=1, progress=False)


class Twice(UTDMHAD):
    """Calls the second clip as the first."""

    def scan(self) -> list[ClipSource]:
        first, second = super().scan()
        return [first, ClipSource(first.id, 1, 1, skeleton=second.skeleton, member="row 7")]


def test_two_clips_of_one_name_are_refused(tmp_path: Path) -> None:
    for subject in (1, 2):
        recordings.write_take(tmp_path / "takes", 1, subject)
    complaint = r"two clips are called a1_s1_t1: \S*a1_s1_t1_skeleton.mat and row 7 in \S*a1_s2_t1_skeleton.mat"
    with pytest.raises(UserError, match=complaint):
        prepare(Twice(tmp_path / "takes"), tmp_path / "out", workers=1, progress=False)
    assert not list(tmp_path.glob("out*"))


def test_another_meaning_is_another_fingerprint(tmp_path: Path) -> None:
    """The same numbers of other joints, at another rate, or with other names of their classes."""
    recordings.write_take(tmp_path / "takes", 1, 1)
    names = UTDMHAD(tmp_path / "takes").class_names
    changes = ({}, {"fps": 25.0}, {"layout": "kinect_v1_20"}, {"class_names": names[::-1]})
    found = []
    for number, change in enumerate(changes):
        reader = UTDMHAD(tmp_path / "takes")
        vars(reader).update(change)
        prepare(reader, tmp_path / str(number), workers=1, progress=False)
        found.append(open_store(tmp_path / str(number)))
    assert len({bytes(store.index.column("digest")[0].as_py()) for store in found}) == 1
    assert len({store.fingerprint for store in found}) == 4


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"fps": None}, "has None frames a second"), ({"fps": float("nan")}, "has nan frames a second"),
        ({"class_names": []}, r"has class names \[\]"), ({"clips": []}, "found no clips"),
        ({"clips": [ClipSource("x", 2, 1)]}, "gives clip x the label 2: it has 2 classes"),
    ],
)  # fmt: skip
def test_a_reader_is_looked_at_before_its_clips(change: dict, said: str) -> None:
    reader = SimpleNamespace(**{"name": "their", "fps": 30.0, "class_names": ["a", "b"], **change})
    with pytest.raises(UserError, match=f"reader 'their' {said}"):
        check_reader(reader, change.get("clips", [ClipSource("x", 1, 1)]))


def test_the_very_same_clip_twice_is_two_of_one_name() -> None:
    clip = ClipSource("x", 0, 1, skeleton="a.npy")
    with pytest.raises(UserError, match=r"two clips are called x: a\.npy and a\.npy"):
        check_ids([clip, clip])
