"""What is to be text and is packed, or has a line before it that only Excel knows."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import zipfile
from pathlib import Path

import numpy as np
import pytest

from mmcl.common.errors import BadClip, UserError
from mmcl.data.readers.clip_file import read_clip
from mmcl.data.readers.list_files import read_list
from mmcl.skeletons.layout import load_layout

LAYOUT = load_layout("coco_17")
CLIP = np.random.default_rng(0).normal(0, 0.5, (6, 17, 3)).round(3) + np.arange(51).reshape(17, 3) / 60
TABLE = "\n".join(",".join(map(str, frame.ravel())) for frame in CLIP) + "\n"


def zipped(data: bytes) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("a.csv", data)
    return content.getvalue()


@pytest.mark.parametrize("suffix", [".csv", ".json"])
@pytest.mark.parametrize(
    ("pack", "said"),
    [
        (gzip.compress, r"compressed \(gzip\): unpack it"), (lzma.compress, r"compressed \(xz\): unpack it"),
        (bz2.compress, r"compressed \(bzip2\): unpack it"), (zipped, "a zip or a spreadsheet: unpack it"),
        (lambda data: b"PAR1" + data, "a Parquet table: save it as CSV"),
    ],
)  # fmt: skip
def test_what_is_packed_is_said(tmp_path: Path, pack, said: str, suffix: str) -> None:
    path = tmp_path / f"clip{suffix}"
    path.write_bytes(pack(TABLE.encode()))
    with pytest.raises(BadClip, match=f"no text, but {said}"):
        read_clip(path, LAYOUT)
    with pytest.raises(UserError, match=f"clip.*: no text, but {said}"):
        read_list(path)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_the_line_of_excel_is_read(tmp_path: Path, end: str) -> None:
    plain, told = tmp_path / "plain.csv", tmp_path / "told.csv"
    plain.write_text(TABLE)
    told.write_bytes(("sep=," + end + TABLE.replace("\n", end)).encode())
    np.testing.assert_array_equal(read_clip(told, LAYOUT).values, read_clip(plain, LAYOUT).values)
    told.write_bytes(f"sep=;{end}id;label{end}a;wave, twice{end}".encode("utf-8-sig"))
    columns, lines = read_list(told)
    assert columns == ["id", "label"] and lines[0].cells == {"id": "a", "label": "wave, twice"}
    assert lines[0].number == 3


def test_json_of_a_frame_a_line_is_said(tmp_path: Path) -> None:
    path = tmp_path / "clip.json"
    path.write_text("".join(json.dumps(frame.tolist()) + "\n" for frame in CLIP))
    with pytest.raises(BadClip, match="one JSON value a line: put the frames into one list"):
        read_clip(path, LAYOUT)
    path.write_text("[1, 2] x")
    with pytest.raises(BadClip, match="not a JSON file"):
        read_clip(path, LAYOUT)


def test_lines_that_end_by_a_carriage_return_alone_are_read(tmp_path: Path) -> None:
    plain, old = tmp_path / "plain.csv", tmp_path / "old.csv"
    plain.write_text(TABLE)
    old.write_bytes(TABLE.replace("\n", "\r").encode())
    np.testing.assert_array_equal(read_clip(old, LAYOUT).values, read_clip(plain, LAYOUT).values)
    old.write_bytes(b"sep=,\r" + old.read_bytes())
    np.testing.assert_array_equal(read_clip(old, LAYOUT).values, read_clip(plain, LAYOUT).values)
    old.write_bytes(b"id,label\ra,wave\rb,kick\r")
    columns, lines = read_list(old)
    assert columns == ["id", "label"] and [(line.number, line["label"]) for line in lines] == [(2, "wave"), (3, "kick")]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32"])
def test_text_of_wide_letters_without_a_mark_is_said(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "clip.csv").write_bytes(TABLE.encode(encoding))
    with pytest.raises(BadClip, match="UTF-16 or UTF-32 without its mark: save it as CSV UTF-8"):
        read_clip(tmp_path / "clip.csv", LAYOUT)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([{"people": [{"pose_keypoints_3d": [0.0] * 51}]}] * 3, r"objects where lists are expected \(it has people\)"),
        ([[1, {"x": 1}]], r"objects where lists are expected \(it has x\)"),
        ({"meta_info": {}, "instance_info": []}, r"in the JSON object \(it has meta_info, instance_info\)"),
        ({"joints": {"0": CLIP.tolist()}}, r"objects where lists are expected \(it has 0\)"),
    ],
)
def test_objects_of_other_programs_are_named_by_what_they_hold(tmp_path: Path, content, said: str) -> None:
    (tmp_path / "clip.json").write_text(json.dumps(content))
    with pytest.raises(BadClip, match=said):
        read_clip(tmp_path / "clip.json", LAYOUT)
