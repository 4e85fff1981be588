"""Files of torch.save by strangers: plain tensors come out, and nothing larger, deeper or other than these."""

from __future__ import annotations

import io
import os
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from mmcl.common.errors import UserError
from mmcl.common.torch_files import read_torch
from mmcl.encoders.state_file import load_state_file


class Touch:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.makedirs, (str(self.path),)


def cyclic() -> dict[str, Any]:
    content: dict[str, Any] = {"a": torch.ones(2)}
    content["state_dict"] = content
    return content


def test_plain_files_are_read(tmp_path: Path) -> None:
    shared = torch.arange(6.0)
    content = {"state_dict": {"w": shared, "view": shared[2:], "n": torch.tensor(3)}, "epoch": 3}
    content |= {"names": ["a", ("b",)]}
    for old in (False, True):
        torch.save(content, tmp_path / "x.pt", _use_new_zipfile_serialization=not old)
        found = read_torch(tmp_path / "x.pt")
        assert found["epoch"] == 3 and found["names"] == ["a", ("b",)]
        tensors = load_state_file(tmp_path / "x.pt")
        assert {name: tensor.tolist() for name, tensor in tensors.items()} == {
            "w": [0, 1, 2, 3, 4, 5], "view": [2, 3, 4, 5], "n": 3,
        }  # fmt: skip


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (cyclic(), "contains itself"),
        ({"w": torch.zeros(1).expand(10**12)}, "larger than the file"),
        ({"w": torch.zeros(3, device="meta")}, "another kind|that torch can read"),
        ({"w": torch.eye(3).to_sparse()}, "another kind|plain tensors"),
    ],
)
def test_what_is_no_plain_tensor_is_refused(tmp_path: Path, content: Any, complaint: str) -> None:
    torch.save(content, tmp_path / "x.pt")
    with warnings.catch_warnings(record=True) as said, pytest.raises(UserError, match=complaint) as error:
        warnings.simplefilter("always")
        load_state_file(tmp_path / "x.pt")
    assert "\n" not in str(error.value) and not said  # torch warns of some of them, in several lines


def test_no_code_runs(tmp_path: Path) -> None:
    torch.save({"w": Touch(tmp_path / "touched")}, tmp_path / "x.pt")
    with pytest.raises(UserError, match="pickled objects are refused"):
        load_state_file(tmp_path / "x.pt")
    assert not (tmp_path / "touched").exists()


def test_packed_members_and_announced_memory_are_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"w": torch.zeros(1000)}, buffer)
    with zipfile.ZipFile(buffer) as archive, zipfile.ZipFile(tmp_path / "x.pt", "w", zipfile.ZIP_DEFLATED) as packed:
        for name in archive.namelist():
            packed.writestr(name, archive.read(name))
    with pytest.raises(UserError, match="packed"):
        read_torch(tmp_path / "x.pt")
    announced = b"\x80\x02cbuiltins\nbytearray\n\x8a\x05\x00\xe4\x0b\x54\x02\x85R."  # bytearray(10 ** 10)
    with zipfile.ZipFile(tmp_path / "y.pt", "w") as archive:
        archive.writestr("y/data.pkl", announced)
        archive.writestr("y/version", "3\n")
        archive.writestr("y/byteorder", "little")
    with pytest.raises(UserError, match="memory|torch can read|plain tensors"):
        read_torch(tmp_path / "y.pt")
