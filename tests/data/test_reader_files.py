"""Folders and archives that readers look into: whatever lies there costs a clip or one clear sentence, never more."""

from __future__ import annotations

import io
import multiprocessing
import os
import pickle
import struct
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from mmcl.common.errors import BadClip, UserError
from mmcl.data.readers import packed
from mmcl.data.readers.arrays import open_arrays, parse_npy
from mmcl.data.readers.files import Archive, find_videos, read_bytes, require_folder

CONTENT = {"a.txt": b"first", "inner/b.txt": b"second" * 1000, "inner/deep/c.txt": b""}
JUNK = {"__MACOSX/a.txt": b"x", ".DS_Store": b"x", "inner/.hidden": b"x", "../out.txt": b"x", "/abs.txt": b"x"}


def write_folder(path: Path) -> Path:
    for name, data in {**CONTENT, "__MACOSX/a.txt": b"x", ".DS_Store": b"x", "inner/.hidden": b"x"}.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def write_zip(path: Path, content: dict[str, bytes] | None = None) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inner/", b"")
        for name, data in (content or {**CONTENT, **JUNK}).items():
            archive.writestr(name, data)
    return path


def write_tar(path: Path, prefix: str = "") -> Path:
    with tarfile.open(path, "w:gz" if path.suffix in (".gz", ".tgz") else "w") as archive:
        for name, data in {**CONTENT, **JUNK}.items():
            info = tarfile.TarInfo(prefix + name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for name, kind in (("link", tarfile.SYMTYPE), ("pipe", tarfile.FIFOTYPE), ("folder", tarfile.DIRTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    return path


@pytest.mark.parametrize("name", ["folder", "some.zip", "some.tar", "some.tar.gz", "some.tgz", "no_suffix"])
def test_everything_looks_the_same(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    write = {"folder": write_folder, "some.zip": write_zip, "no_suffix": write_zip}.get(name, write_tar)
    archive = Archive(write(path))
    assert archive.names() == sorted(CONTENT)
    archive = pickle.loads(pickle.dumps(archive))
    assert len(pickle.dumps(archive)) < 500
    assert {name: archive.read(name) for name in reversed(CONTENT)} == CONTENT
    for missing in ("nothing.txt", "inner", "../out.txt", "/etc/passwd", "a.txt/x", "inner/../a.txt", "nul\0", ""):
        with pytest.raises(BadClip):
            archive.read(missing)
    with pytest.raises(BadClip, match="too large"):
        archive.read("inner/b.txt", limit=5999)
    assert len(archive.read("inner/b.txt", limit=6000)) == 6000


def test_a_tar_of_the_current_folder(tmp_path: Path) -> None:
    archive = Archive(write_tar(tmp_path / "x.tar", prefix="./"))
    assert archive.names() == sorted(CONTENT) and archive.read("a.txt") == b"first"


@pytest.mark.parametrize("name", ["some.tar", "some.tar.gz"])
def test_hard_links_of_a_tar_are_files_and_what_is_none_is_said(tmp_path: Path, capsys, name: str) -> None:
    path = tmp_path / name
    with tarfile.open(path, "w:gz" if name.endswith("gz") else "w") as archive:
        info = tarfile.TarInfo("./a.txt")
        info.size = 5
        archive.addfile(info, io.BytesIO(b"first"))
        for name, kind, target in (("b.txt", tarfile.LNKTYPE, "a.txt"), ("./in/c.txt", tarfile.LNKTYPE, "./b.txt"),
                                   ("gone.txt", tarfile.LNKTYPE, "nowhere"),
                                   ("out.txt", tarfile.LNKTYPE, "/etc/passwd"),
                                   ("soft.txt", tarfile.SYMTYPE, "a.txt"), ("pipe", tarfile.FIFOTYPE, "")):  # fmt: skip
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            archive.addfile(info)
    opened = Archive(path)
    assert opened.names() == ["a.txt", "b.txt", "in/c.txt"] and opened.read("in/c.txt") == b"first"
    said = capsys.readouterr().err
    assert "4 symbolic links, pipes or other special files are left out (gone.txt, out.txt, soft.txt, …)" in said
    pickle.loads(pickle.dumps(opened)).read("b.txt")
    assert not capsys.readouterr().err  # a worker does not say it again


def test_a_zip_with_backslashes_is_read_and_one_with_a_password_is_said(tmp_path: Path) -> None:
    path = write_zip(
        tmp_path / "back.zip", {"in\\a.txt": b"first", "..\\out.txt": b"x", "in\\..\\..\\x": b"x", "\\y": b"x"}
    )
    opened = Archive(path)
    assert opened.names() == ["in/a.txt"] and opened.read("in/a.txt") == b"first"
    content = bytearray(write_zip(tmp_path / "locked.zip", {"a.txt": b"first"}).read_bytes())
    content[content.rindex(b"PK\1\2") + 8] |= 1
    (tmp_path / "locked.zip").write_bytes(content)
    with pytest.raises(UserError, match=r"locked\.zip: encrypted; unpack it with its password, and give the folder"):
        Archive(tmp_path / "locked.zip")


def test_a_forked_process_opens_the_archive_for_itself(tmp_path: Path) -> None:
    archive = Archive(write_zip(tmp_path / "x.zip", {f"{i}": np.random.default_rng(i).bytes(3000) for i in range(50)}))
    expected = [archive.read(name) for name in archive.names()]
    with multiprocessing.get_context("fork").Pool(2) as pool:
        rounds = [pool.map_async(archive.read, archive.names(), chunksize=1) for _ in range(3)]
        assert all(entry.get() == expected for entry in rounds)


def test_links_are_followed_and_rings_of_links_end(tmp_path: Path) -> None:
    root, other = tmp_path / "root", write_folder(tmp_path / "other")
    root.mkdir()
    (root / "linked").symlink_to(other)
    (root / "file.txt").symlink_to(other / "a.txt")
    (other / "ring").symlink_to(root)
    assert Archive(root).names() == ["file.txt", *(f"linked/{name}" for name in sorted(CONTENT))]
    assert Archive(root).read("linked/a.txt") == b"first"


def test_what_is_no_archive_is_refused_in_one_sentence(tmp_path: Path) -> None:
    good = write_zip(tmp_path / "good.zip").read_bytes()
    gz = write_tar(tmp_path / "good.tar.gz").read_bytes()
    bad = {"empty.zip": b"", "text.zip": b"no archive", "cut.zip": good[:-30], "half.zip": good[: len(good) // 2]}
    bad |= {"cut.tar.gz": gz[:-9], "head.tar.gz": gz[:20], "not_tar.tgz": b"\x1f\x8b" + bytes(40)}
    bad |= {"cut.tar": write_tar(tmp_path / "good.tar").read_bytes()[:1500], "rar": b"Rar!\x1a\x07\0"}
    for name, data in bad.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UserError, match=name):
            Archive(tmp_path / name).names()
    os.mkfifo(tmp_path / "pipe")
    for path, words in ((tmp_path / "nothing", "does not exist"), (tmp_path / "pipe", "neither a folder nor a file")):
        with pytest.raises(UserError, match=words):
            Archive(path)


def test_damage_inside_costs_one_file(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", {"bad": bytes(range(256)) * 8, "good": b"fine"})
    data = bytearray(path.read_bytes())
    start = data.index(b"bad") + 3  # the compressed bytes follow the name in the local header
    data[start + 40] ^= 0x55
    path.write_bytes(data)
    archive = Archive(path)
    with pytest.raises(BadClip, match="damaged in x.zip"):
        archive.read("bad")
    assert archive.read("good") == b"fine"
    path.unlink()
    with pytest.raises(BadClip, match="does not exist|damaged"):
        pickle.loads(pickle.dumps(archive)).read("good")


@pytest.mark.parametrize("announced", [1000, 100 << 20])
def test_zip_bombs_are_refused_before_they_go_off(tmp_path: Path, announced: int) -> None:
    """100 MB of zeros: announced honestly, or as a thousand bytes."""
    path = write_zip(tmp_path / "bomb.zip", {"bomb": bytes(100 << 20)})
    data = path.read_bytes()
    path.write_bytes(data.replace(struct.pack("<I", 100 << 20), struct.pack("<I", announced)))
    tracemalloc.start()
    with pytest.raises(BadClip, match="too large|damaged"):
        Archive(path).read("bomb", limit=1 << 20)
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()


def test_unusual_compression_and_huge_unpacked_tars_say_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a", b"x")
    with pytest.raises(BadClip, match="unpack the archive"):
        Archive(tmp_path / "x.zip").read("a")
    monkeypatch.setattr(packed, "UNPACKED_LIMIT", 4000)
    with pytest.raises(UserError, match="unpack it first"):
        Archive(write_tar(tmp_path / "x.tar.gz"))


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    os.mkfifo(tmp_path / "pipe")
    assert read_bytes(tmp_path / "file") == b"12345"
    for path, words in (("pipe", "not a file"), ("", "not a file"), ("gone", "gone"), ("file/x", "cannot be opened")):
        with pytest.raises(BadClip, match=words):
            read_bytes(tmp_path / path)
    with pytest.raises(BadClip, match="not a file"):
        read_bytes("/dev/zero")
    with pytest.raises(BadClip, match="too large"):
        read_bytes(tmp_path / "file", limit=4)


def test_videos_are_files_or_folders_of_pictures(tmp_path: Path) -> None:
    for name in (
        "one.AVI",
        "two.mp4",
        "s001/three.avi",
        "s001/two.avi",
        "four/0001.jpg",
        "four/0002.jpg",
        "s001/x.txt",
        "two.gif",  # a preview
        "s001/three.GIF",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "s001" / "deep").mkdir()
    expected = {"one": "one.AVI", "two": "two.mp4", "three": "s001/three.avi", "four": "four"}
    assert find_videos(tmp_path) == {name: str(tmp_path / file) for name, file in expected.items()}
    assert find_videos(None) == find_videos(tmp_path / "gone") == {}
    with pytest.raises(UserError, match="the video folder does not exist"):
        require_folder(tmp_path / "gone", "the video folder")
    with pytest.raises(UserError, match="is a file"):
        require_folder(tmp_path / "two.mp4", "the video folder")
    require_folder(None, "the video folder")


def announced(shape: str) -> bytes:
    """A ``.npy`` file that says it has a shape, and holds no numbers."""
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header


@pytest.mark.parametrize("shape", [f"(0, {'9' * 20}, 3)", f"({2**62}, 0, {2**62})", f"(0, {2**31}, {2**31})"])
def test_an_array_of_nothing_with_huge_axes_costs_its_clip_alone(tmp_path: Path, shape: str) -> None:
    with pytest.raises(BadClip, match=r"it announces the shape \("):
        parse_npy(announced(shape))
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("joints.npy", announced(shape))
    with pytest.raises(BadClip, match=r"it announces the shape \("):
        open_arrays(tmp_path / "a.npz")
    assert parse_npy(announced("(0, 20, 3)")).shape == (0, 20, 3)
