"""Videos that are not what they say, through the real preparation with its killable workers.

Each costs its own clip and no more: the clips beside it come out as they do without it, byte for byte.
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
import recordings
from PIL import Image

from mmcl.data.clip import ClipSource, RawClip
from mmcl.data.preparation.build import prepare
from mmcl.data.preparation.worker import NO_PICTURES
from mmcl.data.readers.utd_mhad import UTDMHAD
from mmcl.data.store import ClipStore

FRAMES = 20  # of every skeleton here


def patch(path: Path, *changes: tuple[bytes, int, str, int]) -> None:
    """Overwrite numbers of a container: tag, bytes behind its beginning, kind, value."""
    data = bytearray(path.read_bytes())
    for tag, offset, kind, value in changes:
        struct.pack_into(kind, data, data.index(tag) + offset, value)
    path.write_bytes(data)


def announce(path: Path, frames: int) -> None:
    recordings.write_video(path, FRAMES, codec="mpeg4")
    patch(path, (b"avih", 24, "<I", frames), (b"strh", 40, "<I", frames))


def cut(path: Path, share: float, **options: object) -> None:
    recordings.write_video(path, FRAMES, **options)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def zeroed(path: Path) -> None:
    recordings.write_video(path, FRAMES, index_first=True)
    half = path.stat().st_size // 2
    path.write_bytes(path.read_bytes()[:half] + bytes(path.stat().st_size - half))


def no_size(path: Path) -> None:
    recordings.write_video(path, FRAMES, codec="rawvideo")
    patch(path, (b"avih", 40, "<I", 0), (b"avih", 44, "<I", 0), (b"strf", 12, "<I", 0), (b"strf", 16, "<I", 0))


def picture(path: Path) -> None:
    Image.new("RGB", (320, 240), "grey").save(path, "JPEG")


def encode(path: Path, codec: str, width: int, height: int, frames: int = FRAMES) -> None:
    """Black frames of any size, also an odd one."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=30)
        stream.width, stream.height, stream.pix_fmt = width, height, "rgb24"
        frame = av.VideoFrame.from_ndarray(np.zeros((height, width, 3), dtype=np.uint8), format="rgb24")
        for number in range(frames):
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def pictures(path: Path, *sizes: tuple[int, int]) -> None:
    path.mkdir()
    for number, size in enumerate(sizes):
        Image.new("L", size).save(path / f"{number}.png")


def bomb(path: Path) -> None:
    """Pictures of 60000 x 60000 pixels in a few bytes, as far as their headers go."""
    pictures(path, (8, 8), (8, 8))
    for file in path.iterdir():
        header = b"IHDR" + struct.pack(">II", 60000, 60000) + b"\x08\x00\x00\x00\x00"
        data = file.read_bytes()
        file.write_bytes(data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:])


# name: how the video is made, and why its clip is skipped ("" where it is kept)
TORTURES: dict[str, tuple[Callable[[Path], object], str]] = {
    "announces 10^9, holds all": (lambda path: announce(path, 10**9), ""),
    "announces none, holds all": (lambda path: announce(path, 0), ""),
    "avi cut in half": (lambda path: cut(path, 0.5, codec="mpeg4"), "ends or breaks before frame"),
    "mp4 cut, index last": (lambda path: cut(path, 0.5), "not a readable video"),
    "mp4 cut, index first": (lambda path: cut(path, 0.6, index_first=True), "ends or breaks before frame"),
    "second half zeroed": (zeroed, "ends or breaks before frame"),
    "empty": (lambda path: path.write_bytes(b""), "not a readable video"),
    "text": (lambda path: path.write_text("no picture\n" * 99), "not a readable video"),
    "playlist": (lambda path: path.write_text("#EXTM3U\n#EXTINF:9,\n/dev/zero\n"), "not a readable video"),
    "picture by another name": (picture, "a single picture"),
    "folder without pictures": (lambda path: path.mkdir(), "no pictures in this folder"),
    "pipe": (os.mkfifo, "a pipe or a device"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "a pipe or a device"),
    "dangling link": (lambda path: path.symlink_to("/nowhere"), "no such video file"),
    "pictures of no size": (no_size, "not a readable video"),
    "one frame": (lambda path: recordings.write_video(path, 1), ""),
    "odd size": (lambda path: encode(path, "png", 321, 243), ""),
    "one pixel": (lambda path: encode(path, "png", 1, 1), ""),
    "8192 x 8192": (lambda path: encode(path, "png", 8192, 8192, 1), "too large"),
    "picture folder": (lambda path: pictures(path, *[(320, 240)] * 10), ""),
    "picture folder, one odd": (lambda path: pictures(path, (320, 240), (320, 240), (2, 2)), "different sizes"),
    "picture folder, 8192 x 8192": (lambda path: pictures(path, (8192, 8192)), "too large"),
    "picture folder, bomb": (bomb, "not a readable picture"),
}


def good_takes(root: Path) -> Path:
    for action in (1, 27):  # the first and the last of all clips
        for subject in (1, 2):
            recordings.write_take(root, action, subject, video=FRAMES)
    return root


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> ClipStore:
    """The good takes alone."""
    base = tmp_path_factory.mktemp("good")
    return prepare(UTDMHAD(good_takes(base / "takes")), base / "out", workers=1, progress=False).store


def same_clip(store: ClipStore, other: ClipStore, name: str) -> bool:
    a, b = store.ids.index(name), other.ids.index(name)
    return bool(np.array_equal(store.joints(a), other.joints(b)) and store.crops(a) == other.crops(b))


def test_each_bad_video_costs_its_clip_the_pictures_alone(
    undisturbed: ClipStore, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    root = good_takes(tmp_path / "takes")
    names = {}
    for number, (torture, (make, _)) in enumerate(TORTURES.items()):
        name = names[torture] = recordings.write_take(root, 2 + number, 5, frames=FRAMES)
        make(root / "Video" / f"{name}_color.{'mp4' if 'mp4' in torture else 'avi'}")
    summary = prepare(UTDMHAD(root), tmp_path / "out", workers=2, timeout=60, progress=False)
    reasons = {name: what for name, what, kind in summary.mended if kind == NO_PICTURES}
    for torture, (_, reason) in TORTURES.items():
        index = summary.store.ids.index(names[torture])  # a clip is kept, whatever becomes of its video
        if reason:
            assert reason in reasons.pop(names[torture], "kept"), torture
        assert len(summary.store.crops(index)) == (0 if reason else 5), torture
        assert summary.store.joints(index).any()
    assert reasons == {} and not summary.skipped
    assert "kept without pictures, whose videos cannot be used" in str(summary)
    assert all(same_clip(summary.store, undisturbed, name) for name in undisturbed.ids)
    lengths = {
        torture: summary.store.video_frames[summary.store.ids.index(names[torture])]
        for torture in ("announces 10^9, holds all", "one frame", "picture folder")
    }
    assert list(lengths.values()) == [FRAMES, 1, 10]
    assert capfd.readouterr().err == ""  # what the video libraries have to say fills pages


class SpoiltDecord(UTDMHAD):
    """decord hangs or crashes over one clip, in its own native code."""

    victim, how = "", ""

    def read(self, source: ClipSource) -> RawClip:
        if source.id == self.victim:
            quiet = SimpleNamespace(set_level=lambda _: None, QUIET=0)
            sys.modules["decord"] = SimpleNamespace(logging=quiet, cpu=lambda _: None, VideoReader=self._open)  # type: ignore[assignment]
        return super().read(source)

    def _open(self, *_: object, **__: object) -> None:
        if self.how == "hang":
            ctypes.PyDLL(None).sleep(1000)  # PyDLL calls without releasing the lock
        os.kill(os.getpid(), signal.SIGSEGV)


@pytest.mark.parametrize("how", ["hang", "crash"])
def test_a_video_that_decord_does_not_survive_is_read_by_pyav(undisturbed: ClipStore, tmp_path: Path, how: str) -> None:
    reader = SpoiltDecord(good_takes(tmp_path / "takes"))
    reader.victim, reader.how = "a1_s2_t1", how
    summary = prepare(reader, tmp_path / "out", workers=1, timeout=5, progress=False)
    assert summary.skipped == [] and summary.store.ids == undisturbed.ids
    assert summary.store.video_frames.tolist() == [FRAMES] * 4
    assert summary.store.fingerprint == undisturbed.fingerprint
