"""Reading frames by index: two decoders, one answer, and files that are not what they say."""

from __future__ import annotations

import sys
from pathlib import Path

import av
import numpy as np
import pytest
import recordings

from mmcl.data import video
from mmcl.errors import BadClip


@pytest.fixture(params=["decord", "av"])
def decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Either decoder; without decord, PyAV answers behind the same function."""
    if request.param == "av":
        monkeypatch.setitem(sys.modules, "decord", None)  # makes `import decord` fail
        assert video._open_decord("any") is None
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


def test_a_folder_and_a_missing_file_are_bad_clips(tmp_path: Path, decoder: str) -> None:
    for path in (tmp_path, tmp_path / "gone.mp4"):
        with pytest.raises(BadClip, match="no such video file"):
            video.read_frames(path, [0])


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
