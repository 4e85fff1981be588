"""MATLAB files: what scipy writes is read number for number, and no change of a byte does more than cost the clip."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from mmcl.common.errors import BadClip
from mmcl.data.readers.matlab import load_mat

JOINTS = np.random.default_rng(0).normal(size=(20, 3, 4))


def saved(values: np.ndarray, name: str = "d_skel", **options: object) -> bytes:
    buffer = io.BytesIO()
    savemat(buffer, {"before": np.arange(3), name: values, "after": "text"}, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", ["f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"])
def test_numbers_are_those_that_were_written(tmp_path: Path, kind: str, packed: bool) -> None:
    values = np.abs(JOINTS * 50).astype(kind)
    (tmp_path / "x.mat").write_bytes(saved(values, do_compression=packed))
    found = load_mat(tmp_path / "x.mat", "d_skel", 20)
    np.testing.assert_array_equal(found, values.transpose(2, 0, 1)[None].astype(np.float32))


def test_one_frame_and_version_4(tmp_path: Path) -> None:
    for options in ({}, {"format": "4"}):
        (tmp_path / "x.mat").write_bytes(saved(JOINTS[:, :, 0], **options))
        np.testing.assert_array_equal(
            load_mat(tmp_path / "x.mat", "d_skel", 20), JOINTS[None, None, :, :, 0].astype(np.float32)
        )


def test_version_7_3_says_how_to_save_it_again(tmp_path: Path) -> None:
    text = b"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: x HDF5 schema 1.00 ."
    (tmp_path / "x.mat").write_bytes(text.ljust(512) + b"\x89HDF\r\n\x1a\n" + bytes(500))
    with pytest.raises(BadClip, match="save it again with save"):
        load_mat(tmp_path / "x.mat", "d_skel", 20)


def test_no_byte_of_a_file_does_harm(tmp_path: Path) -> None:
    path, data = tmp_path / "x.mat", saved(JOINTS)
    start = data.index(b"d_skel") - 60  # flags, shape, name and the tag of the numbers
    for at in [*range(116, 140), *range(start, start + 100)]:
        for value in (0, 0x18, 0x80, 0xFF):
            path.write_bytes(data[:at] + bytes([value]) + data[at + 1 :])
            try:
                assert load_mat(path, "d_skel", 20).shape[2:] == (20, 3)
            except BadClip as error:
                assert str(error)
    at = data.index(struct.pack("<II", 9, JOINTS.nbytes))
    path.write_bytes(data[: at + 1] + b"\x18" + data[at + 2 :])  # the change that ended scipy's reader, and its process
    with pytest.raises(BadClip, match="numbers of type 6153"):
        load_mat(path, "d_skel", 20)
