"""Files that hold many clips or describe them: pickles, arrays, archives, lists. A bad one is refused in one line."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mutated_clips import MARKER, TWENTY, Touch, announced_npy, npy, npz, skeletons
from mutations import damaged, damaged_text, no_file, prepared

from mmcl.data.clip import Reader
from mmcl.data.readers import READERS
from mmcl.data.readers.folder_options import FolderOptions

TWENTY_FIVE = np.abs(np.random.default_rng(1).normal(size=(2, 9, 25, 3))).astype(np.float32) + 0.1


@pytest.fixture(autouse=True)
def no_code_runs() -> Iterator[None]:
    """Whatever is prepared, nothing in it makes the marker."""
    assert not MARKER.exists()
    yield
    assert not MARKER.exists()


def each(folder: Path, mutated: dict[str, bytes], make: Callable[[Path], Reader], file: str) -> set[str]:
    """Prepare each of them, as ``file`` of a folder; the names of those that gave a store."""
    passed = set()
    for number, (kind, data) in enumerate(mutated.items()):
        (folder / file).write_bytes(data)
        if prepared(lambda: make(folder), folder.with_name(f"out-{number}")) is not None:
            passed.add(kind)
    for kind in ("folder", "pipe", "dangling link", "ring"):
        (folder / file).rename(folder / f".{kind}")
        no_file(folder / file, kind)
        assert prepared(lambda: make(folder), folder.with_name("out")) is None, kind
    return passed


def annotations(**changes: Any) -> dict[str, Any]:
    """Three NTU clips in PYSKL's form, the second with changes."""
    names = [f"S001C00{n}P001R001A00{n}" for n in (1, 2, 3)]
    entries = [
        {"frame_dir": name, "label": n, "total_frames": 9, "keypoint": TWENTY_FIVE} for n, name in enumerate(names)
    ]
    entries[1] = {**entries[1], **changes}
    return {"split": {"xsub_train": names[:2], "xsub_val": names[2:]}, "annotations": entries}


def test_mutated_pickles(tmp_path: Path) -> None:
    good = [pickle.dumps(annotations(), protocol) for protocol in (2, 4, 5)]
    mutated = {f"{name}, protocol {n}": data for n in (0, 1) for name, data in damaged(good[n], flips=3 * n).items()}
    seven, none = np.repeat(TWENTY_FIVE[:1], 7, axis=0), TWENTY_FIVE[:0]
    for kind, changes in {
        "NaN": {"keypoint": TWENTY_FIVE * np.nan},
        "no bodies": {"keypoint": none},
        "seven bodies": {"keypoint": seven},
        "a billion frames": {"total_frames": 10**9},
        "a billion classes": {"label": 10**9},
        "a negative class": {"label": -1},
        "no name": {"frame_dir": None},
        "the same name": {"frame_dir": "S001C001P001R001A001"},
        "a name of any kind": {"frame_dir": "a/../\n\0\ud800b"},
        "scores of another shape": {"keypoint_score": np.ones(3)},
        "words": {"keypoint": "walk"},
    }.items():
        mutated[kind] = pickle.dumps(annotations(**changes))
    mutated["code"] = pickle.dumps(annotations(keypoint=Touch()))
    mutated["code instead"] = pickle.dumps(Touch())
    mutated["objects"] = pickle.dumps(annotations(keypoint=np.array([Touch()])))
    (tmp_path / "in").mkdir()
    for number, data in enumerate(good):
        mutated[f"good {number}"] = data
    passed = each(tmp_path / "in", mutated, lambda folder: READERS["pyskl"](folder / "x.pkl"), "x.pkl")
    assert {"good 0", "good 1", "good 2", "seven bodies", "a billion frames", "a name of any kind"} <= passed
    assert not {"code", "code instead", "objects"} & passed and not any("cut" in kind for kind in passed)


def test_mutated_arrays(tmp_path: Path) -> None:
    rows = np.zeros((4, 30, 150), dtype=np.float32)
    rows[:, :9] = TWENTY_FIVE.transpose(1, 0, 2, 3).reshape(9, 150)
    x, y = npy(rows), npy(np.eye(4))
    good, packed = npz(zipfile.ZIP_STORED, x_train=x, y_train=y), npz(x_train=x, y_train=y)
    changes: dict[str, tuple[bytes, bytes]] = {
        "a billion clips": (announced_npy((10**9, 300, 150)), y),
        "a billion of nothing": (announced_npy((10**9, 0, 150)), announced_npy((10**9, 0))),
        "a billion labels": (x, announced_npy((10**9, 4))),
        "NaN": (npy(rows * np.nan), y),
        "nobody": (npy(rows * 0), y),
        "some bodies": (npy(rows * np.arange(4, dtype=np.float32).reshape(4, 1, 1)), y),
        "no class": (x, npy(np.zeros((4, 4)))),
        "two classes": (x, npy(np.ones((4, 4)))),
        "a billionth class": (x, npy(np.array([0, 1, 10**9, -1]))),
        "a broken class": (x, npy(np.array([0.0, 1.5, np.nan, np.inf]))),
        "code": (npy(np.array([[[Touch()]]]), allow_pickle=True), npy(np.ones(1))),
        "labels of code": (x, npy(np.array([Touch()] * 4), allow_pickle=True)),
    }
    mutated = {"good": good, "packed": packed, **damaged(good, flips=4), "one": npz(x_train=x), "none": npz()}
    mutated |= {f"packed, {name}": data for name, data in damaged(packed, flips=4).items()}
    mutated |= {name: npz(zipfile.ZIP_STORED, x_train=a, y_train=b) for name, (a, b) in changes.items()}
    (tmp_path / "in").mkdir()
    passed = each(tmp_path / "in", mutated, lambda folder: READERS["ctrgcn-npz"](folder / "x.npz"), "x.npz")
    assert {"good", "packed", "some bodies", "a billionth class", "a broken class"} <= passed
    assert not {"code", "labels of code", "NaN", "nobody", "a billion clips"} & passed


def packed_tar(members: dict[str, bytes], mode: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def packed_zip(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["nw-ucla tar.gz", "nw-ucla tar", "nw-ucla zip", "ntu60 zip"])
def test_mutated_archives(tmp_path: Path, kind: str) -> None:
    name, ending = kind.split()
    clip = json.dumps({"label": 1, "skeletons": TWENTY.round(3).tolist()}).encode()
    members = {f"all_sqe/a01_s0{n}_e00_v01.json": clip for n in range(1, 6)}
    if name == "ntu60":
        members = {f"S001C001P00{n}R001A001.skeleton": skeletons()["good"] for n in range(1, 6)}
    data = packed_zip(members) if ending == "zip" else packed_tar(members, "w:gz" if ending == "tar.gz" else "w:")
    (tmp_path / "in").mkdir()
    file = f"skeletons.{ending}"
    mutated = {**damaged(data, flips=4), "good": data}
    for number, (how, content) in enumerate(mutated.items()):
        (tmp_path / "in" / file).write_bytes(content)
        summary = prepared(lambda: READERS[name](tmp_path / "in" / file), tmp_path / f"out-{number}")
        assert how != "good" or (summary is not None and len(summary.store) == 5)


def test_mutated_lists(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for n in range(4):
        (tmp_path / "in" / f"c{n}.npy").write_bytes(npy(TWENTY))
    (tmp_path / "in" / "classes.txt").write_text("walk\nrun\n")
    lines = ["id,label,subject,split,camera,width,height", *(f"c{n},{n % 2},{n + 3},train,2,640,480" for n in range(4))]
    mutated = {"good": "\n".join(lines).encode(), **damaged_text("\n".join(lines), 1)}
    mutated["quotes"] = b'id,label\n"' * 9999
    mutated["a long cell"] = b"id,label\n" + b"a" * 200_000 + b",1"

    def make(folder: Path) -> Reader:
        reader: Reader = READERS["folder"](folder, options=FolderOptions("kinect_v1_20"))
        return reader

    assert "good" in each(tmp_path / "in", mutated, make, "clips.csv")


def test_mutated_class_names(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "c.npy").write_bytes(npy(TWENTY))
    (tmp_path / "in" / "clips.csv").write_text("id,label\nc,run")
    for number, data in enumerate(damaged(b"walk\nrun\nstand still\n", flips=3).values()):
        (tmp_path / "in" / "classes.txt").write_bytes(data)
        out = tmp_path / f"out-{number}"
        prepared(lambda: READERS["folder"](tmp_path / "in", options=FolderOptions("kinect_v1_20")), out)


@pytest.mark.parametrize("file", ["demo.json", "clips.csv"])
def test_mutated_demo(tmp_path: Path, file: str) -> None:
    (tmp_path / "in" / "skeletons").mkdir(parents=True)
    (tmp_path / "in" / "skeletons" / "c.npy").write_bytes(npy(TWENTY[None]))
    camera = {"width": 640, "height": 480, "focal": 500.0}
    facts = {"layout": "kinect_v1_20", "fps": 30, "classes": ["a", "b"], "camera": camera}
    content = {"demo.json": json.dumps(facts), "clips.csv": "id,label,subject,camera,trial\nc,1,1,1,1"}
    for name, text in content.items():
        (tmp_path / "in" / name).write_text(text)
    mutated = {"good": content[file].encode(), **damaged_text(content[file], 1)}
    assert "good" in each(tmp_path / "in", mutated, READERS["demo"], file)
