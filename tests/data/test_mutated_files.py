"""Whatever happens to a clip's file costs that clip, with a reason: every reader, through the real preparation.

Never a traceback, a hang, gigabytes of memory, a half store under the final name, or code of the file's that runs.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from mutated_clips import MARKER, TWENTY, csvs, jsons, mats, npys, npzs, skeletons
from mutations import NO_FILES, no_file, prepared

from mmcl.data.clip import Reader
from mmcl.data.readers import READERS
from mmcl.data.readers.folder_options import FolderOptions


@dataclass(frozen=True)
class PerFile:
    """A data set that keeps each clip in a file of its own.

    Attributes:
        place: file of clip n, relative to the folder.
        mutated: content of a file by what was done to it.
        make: the reader.
        list: writes what else the folder needs, given the number of clips.
        waits: reading a pipe waits until time is up.
    """

    place: Callable[[int], str]
    mutated: Callable[[], Mapping[str, bytes]]
    make: Callable[[Path], Reader]
    list: Callable[[Path, int], None] = lambda folder, count: None
    waits: bool = False


def clip_list(ending: str) -> Callable[[Path, int], None]:
    def write(folder: Path, count: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        lines = [f"c{n:03d},0,1,1,1,c{n:03d}.{ending}" for n in range(count)]
        (folder / "clips.csv").write_text("\n".join(["id,label,subject,camera,trial,file", *lines]))

    return write


def demo(folder: Path, count: int) -> None:
    clip_list("npy")(folder, count)
    camera = {"width": 640, "height": 480, "focal": 500.0}
    facts = {"layout": "kinect_v1_20", "fps": 30, "classes": ["a"], "camera": camera}
    (folder / "demo.json").write_text(json.dumps(facts))


def own(folder: Path) -> Reader:
    reader: Reader = READERS["folder"](folder, options=FolderOptions("kinect_v1_20"))
    return reader


PER_FILE = {
    "utd-mhad": PerFile(
        lambda n: f"Skeleton/a{n // 32 + 1}_s{n // 4 % 8 + 1}_t{n % 4 + 1}_skeleton.mat",
        lambda: mats("d_skel"),
        READERS["utd-mhad"],
        waits=True,
    ),
    "sysu": PerFile(
        lambda n: f"3DvideoNorm/p{n // 12:02d}/video{n % 12 + 1}/sklWorld.mat",
        lambda: mats("SW"),
        READERS["sysu"],
        waits=True,
    ),
    "nw-ucla": PerFile(
        lambda n: f"all_sqe/a01_s{n // 20 + 1:02d}_e{n % 20:02d}_v01.json", lambda: jsons(1), READERS["nw-ucla"]
    ),
    "ntu60": PerFile(lambda n: f"s/S001C001P{n + 1:03d}R001A001.skeleton", skeletons, READERS["ntu60"]),
    "folder npy": PerFile(lambda n: f"c{n:03d}.npy", npys, own, clip_list("npy")),
    "folder npz": PerFile(lambda n: f"c{n:03d}.npz", npzs, own, clip_list("npz")),
    "folder json": PerFile(lambda n: f"c{n:03d}.json", jsons, own, clip_list("json")),
    "folder csv": PerFile(lambda n: f"c{n:03d}.csv", csvs, own, clip_list("csv")),
    "demo": PerFile(lambda n: f"skeletons/c{n:03d}.npy", lambda: npys(TWENTY[None]), READERS["demo"], demo),
}


@pytest.mark.parametrize("name", PER_FILE)
def test_a_mutated_file_costs_its_own_clip(tmp_path: Path, name: str) -> None:
    case, root = PER_FILE[name], tmp_path / "root"
    mutated = case.mutated()
    kinds = [*mutated, "good", "good", *NO_FILES, "pipe"]
    case.list(root, len(kinds))
    for number, kind in enumerate(kinds):
        path = root / case.place(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind in mutated:
            path.write_bytes(mutated[kind])
        else:
            no_file(path, kind)
    with contextlib.suppress(FileNotFoundError):
        MARKER.rmdir()
    summary = prepared(lambda: case.make(root), tmp_path / "out")
    assert summary is not None and len(summary.store) >= 3 and len(summary.skipped) >= 10
    late = [reason for _, reason in summary.skipped if "took longer" in reason]
    assert len(late) <= (1 if case.waits else 0), late
    assert not MARKER.exists()
