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
