"""Reading frames by index: two decoders, one answer, and files that are not what they say."""

from __future__ import annotations

import os
import struct
import sys
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
import recordings
from PIL import Image

from mmcl.common.errors import BadClip
from mmcl.data import video


@pytest.fixture(params=["decord", "av"])
def decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Either decoder; without decord, PyAV answers behind the same function."""
    if request.param == "av":
        monkeypatch.setitem(sys.modules, "decord", None)  # makes `import decord` fail
    else:
        pytest.importorskip("decord")
    return str(request.param)


@pytest.mark.parametrize(("codec", "suffix"), [("libx264", ".mp4"), ("mpeg4", ".avi")])
def test_frames_are_those_of_a_straight_decode(tmp_path: Path, decoder: str, codec: str, suffix: str) -> None:
    path = recordings.write_video(tmp_path / f"clip{suffix}", 40, codec=codec)
    with av.open(str(path)) as container:
        every = [frame.to_ndarray(format="rgb24").astype(int) for frame in container.decode(video=0)]
    wanted = [31, 2, 17, 17, 39]
    frames, total = video.read_frames(path, wanted)
    assert total == len(every) == 40 and frames.dtype == np.uint8
    for frame, index in zip(frames, wanted, strict=True):  # colour conversion may round differently
        assert np.abs(frame.astype(int) - every[index]).mean() < 2.0


def test_indices_may_depend_on_the_length_and_are_clamped(tmp_path: Path, decoder: str) -> None:
    path = recordings.write_video(tmp_path / "clip.mp4", 30)
    frames, total = video.read_frames(path, lambda count: [-4, count - 1, count + 100])
    assert total == 30 and len(frames) == 3
    assert (frames[1] == frames[2]).all() and (frames[0] != frames[1]).any()


def test_real_takes_have_a_frame_for_each_skeleton_frame(utd_takes: Path, decoder: str) -> None:
    from scipy.io import loadmat

    for path in sorted((utd_takes / "Video").iterdir())[:3]:
        skeleton = utd_takes / "Skeleton" / path.name.replace("color.mp4", "skeleton.mat")
        frames, total = video.read_frames(path, lambda count: [0, count // 2])
        assert total == loadmat(skeleton)["d_skel"].shape[2] and frames.shape == (2, 240, 320, 3)


def damaged(folder: Path, kind: str) -> Path:
    """A file that is no whole video."""
    path = recordings.write_video(folder / "clip.mp4", 60, index_first=kind in ("lies", "zeroed"))
    data = path.read_bytes()
    if kind in ("cut", "lies"):  # with its index first, a cut file still announces every frame
        data = data[: len(data) // 2]
    elif kind == "zeroed":
        data = data[: len(data) // 2] + bytes(len(data) - len(data) // 2)
    path.write_bytes({"empty": b"", "text": b"no picture\n" * 99}.get(kind, data))
    return path


@pytest.mark.parametrize("kind", ["empty", "text", "cut", "lies", "zeroed"])
def test_a_damaged_file_is_a_bad_clip(tmp_path: Path, decoder: str, kind: str) -> None:
    path = damaged(tmp_path, kind)
    with pytest.raises(BadClip, match=r"clip\.mp4: (not a readable video|the video ends or breaks before frame)"):
        video.read_frames(path, lambda count: np.arange(5) * count // 5 + 10)


def test_what_is_no_file_is_a_bad_clip(tmp_path: Path, decoder: str) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")  # opening it would wait for a writer
    (tmp_path / "away.mp4").symlink_to(tmp_path / "gone.mp4")
    for name, words in (("pipe.mp4", "a pipe"), ("gone.mp4", "no such"), ("away.mp4", "no such"), (".", "no pictures")):
        with pytest.raises(BadClip, match=words):
            video.read_frames(tmp_path / name, [0])


def test_sound_alone_is_a_bad_clip(tmp_path: Path, decoder: str) -> None:
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(BadClip):
        video.read_frames(path, [0])


def patched(path: Path, box: bytes, offset: int, kind: str, *values: int) -> Path:
    """Overwrite numbers in a container, so many bytes behind a tag."""
    data = bytearray(path.read_bytes())
    assert data.count(box) == 1
    struct.pack_into(kind, data, data.index(box) + offset, *values)
    path.write_bytes(data)
    return path


def shades(frames: np.ndarray) -> list[int]:
    """The number that recordings.write_video has written into each frame's brightness, of 60."""
    return [round((frame[100:140, 100:140].mean() - 10) * 60 / 200) for frame in frames]


def test_an_announced_length_is_not_believed(tmp_path: Path, decoder: str) -> None:
    for number in (0, 20, 600, 10**9):  # decord does not open the first
        path = recordings.write_video(tmp_path / f"{number}.avi", 60, codec="mpeg4")
        patched(path, b"avih", 24, "<I", number)
        patched(path, b"strh", 40, "<I", number)
        frames, total = video.read_frames(path, [0, 30, 58], expected=60)
        assert total == 60 and shades(frames) == [0, 30, 58]
        if number > 60:  # nobody else says how many there should be
            with pytest.raises(BadClip, match=f"ends or breaks before frame 60 of {number}"):
                video.read_frames(path, [0])


@pytest.mark.parametrize(("codec", "suffix"), [("libx264", ".mp4"), ("mpeg4", ".avi")])
def test_a_file_cut_in_half_is_not_taken_for_a_whole_one(tmp_path: Path, decoder: str, codec: str, suffix: str) -> None:
    """What is left of an AVI decodes well, but it is not the span of time that the skeleton covers."""
    path = recordings.write_video(tmp_path / f"clip{suffix}", 60, codec=codec, index_first=True)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(BadClip, match=r"ends or breaks before frame \d+ of 60"):
        video.read_frames(path, [0, 5], expected=60)


def test_a_trimmed_video_is_read_from_its_cut(tmp_path: Path, decoder: str) -> None:
    """An edit list hides the first 20 frames, as trimming without encoding anew leaves them; decord ignores it."""
    path = recordings.write_video(tmp_path / "clip.mp4", 60)
    data = path.read_bytes()
    at = data.index(b"elst") + 12
    _, start = struct.unpack_from(">Ii", data, at)
    patched(path, b"elst", 12, ">Ii", 40 * 1000 // 30, start + 20 * 512)  # a frame is 512 ticks of 1/15360 s
    frames, total = video.read_frames(path, [0, 10, 39])
    assert total == 40 and shades(frames) == [20, 30, 59]


def test_a_turned_picture_is_turned_back(tmp_path: Path, decoder: str) -> None:
    path = recordings.write_video(tmp_path / "clip.mp4", 10)
    upright, _ = video.read_frames(path, [4])
    patched(path, b"tkhd", 44, ">9i", 0, 65536, 0, -65536, 0, 0, 240 << 16, 0, 1 << 30)
    frames, _ = video.read_frames(path, [4])
    assert frames.shape == (1, 320, 240, 3)  # a quarter clockwise: the left edge is now the upper one
    assert np.abs(frames[0].astype(int) - np.rot90(upright[0], -1)).mean() < 0.5


def test_pyav_has_the_last_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever decord does short of hanging, a video that PyAV reads is not lost."""
    path = recordings.write_video(tmp_path / "clip.mp4", 60)
    expected, _ = video.read_frames(path, [3, 50], decord=False)

    class Odd:
        def __init__(self, *_: object, **__: object) -> None:
            pass

        def __len__(self) -> int:
            return 60

        def __getitem__(self, index: int) -> object:
            raise RuntimeError("[12:00:00] threaded_decoder.cc:292: Error sending packet")

    class Short(Odd):
        def __len__(self) -> int:
            return 17

        def __getitem__(self, index: int) -> object:
            return SimpleNamespace(asnumpy=lambda: np.zeros((240, 320, 3), dtype=np.uint8))

    decord = pytest.importorskip("decord")
    for kind in (Odd, Short):
        monkeypatch.setattr(decord, "VideoReader", kind)
        frames, total = video.read_frames(path, [3, 50])
        assert total == 60 and np.array_equal(frames, expected)


def write_pictures(folder: Path, count: int, name: str = "img_{}.jpg", size: tuple[int, int] = (32, 24)) -> Path:
    folder.mkdir(exist_ok=True)
    for number in range(1, count + 1):
        Image.new("RGB", size, (20 * number, 0, 0)).save(folder / name.format(number))
    return folder


@pytest.mark.parametrize("name", ["img_{}.jpg", "{:05d}.png", "frame_{}_tc_7.BMP", "{}-10.webp"])
def test_a_folder_of_pictures_is_a_video(tmp_path: Path, name: str) -> None:
    folder = write_pictures(tmp_path / "clip", 12, name)
    (folder / "._img_3.jpg").write_bytes(b"left by another system")
    (folder / "notes.txt").write_text("no picture")
    (folder / "img_99.jpg").mkdir()
    os.mkfifo(folder / "img_98.jpg")
    frames, total = video.read_frames(folder, lambda count: [9, 0, 1, count + 5])
    assert total == 12 and frames.shape == (4, 24, 32, 3)
    assert (np.abs(frames[:, 10, 10, 0].astype(int) - [200, 20, 40, 240]) < 6).all()  # 2 before 10


def test_other_views_in_the_same_folder_are_left_out(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "clip", 3, "frame_{}_rgb.jpg")
    for other in ("frame_{}_depth.png", "flow_x_{}.jpg", "flow_y_{}.jpg"):
        write_pictures(folder, 3, other, (16, 16))
    frames, total = video.read_frames(folder, [0, 1, 2])
    assert total == 3 and frames.shape == (3, 24, 32, 3)
    alone = write_pictures(tmp_path / "depth", 4, "depth_{}.png")
    assert video.read_frames(alone, [0])[1] == 4  # a folder of nothing else: that is what was asked for


def test_a_bad_picture_is_a_bad_clip(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "clip", 4)
    whole = (folder / "img_2.jpg").read_bytes()
    for data in (whole[:200], b"", b"GIF89a", b"%!PS-Adobe-3.0 EPSF-3.0"):
        (folder / "img_2.jpg").write_bytes(data)
        with pytest.raises(BadClip, match=r"img_2\.jpg: not a readable picture"):
            video.read_frames(folder, [0, 1])
        assert len(video.read_frames(folder, [0, 2])[0]) == 2  # it was not asked for
    Image.new("RGB", (24, 32)).save(folder / "img_2.jpg")
    with pytest.raises(BadClip, match="different sizes"):
        video.read_frames(folder, [0, 1])
