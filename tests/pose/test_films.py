"""Films as they come: without times, at changing rates, with headers that lie, and with damage in their middle."""

from __future__ import annotations

import itertools
import json
import os
import re
from fractions import Fraction
from pathlib import Path
from unittest.mock import patch

import av
import numpy as np
import pytest
from made_people import LAYOUT, Squares

from mmcl.common.errors import BadClip
from mmcl.deploy.annotate import annotate
from mmcl.estimate_pose import main as pose
from mmcl.pose import ESTIMATORS
from mmcl.pose.film import Facts, Film
from mmcl.pose.gathering import gather
from mmcl.pose.recording import Refinement
from mmcl.pose.watching import missing, share
from mmcl.pose.worker import Chosen, End, Watch

MS = Fraction(1, 1000)
WALK = [60 + 2 * step for step in range(45)]


@pytest.fixture(scope="module", autouse=True)
def squares():
    with patch.dict(ESTIMATORS._entries, {"squares": "made_people:Squares"}):
        yield


def write(path: Path, times: list[int] | None = None, codec: str = "libx264", form: str | None = None) -> Path:
    """Somebody who walks for 45 frames, which come at these milliseconds, or thirty a second."""
    with av.open(str(path), "w", format=form) as container:
        stream = container.add_stream(codec, rate=30)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        stream.options = {"crf": "5", "bf": "0"} if codec == "libx264" else {"qscale": "2", "flags": "+qscale"}
        if times is not None:
            stream.codec_context.time_base = MS
        for number, column in enumerate(WALK):
            picture = np.full((240, 320, 3), 120, dtype=np.uint8)
            picture[96:120, column - 12 : column + 12] = (230, 30, 30)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[number], MS
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def seconds_of(path: Path) -> np.ndarray:
    film = Film(path)
    found = np.array([seconds for _, seconds, _ in film])
    film.close()
    return found


def looked_at(path: Path, fps: float = 30.0) -> list[int]:
    return [glance.frame for glance in Watch(Squares(Squares.options_type()), path, fps)]


def test_a_film_that_says_no_times_comes_at_its_rate(tmp_path, capsys) -> None:
    film = write(tmp_path / "raw.mp4", form="h264")
    np.testing.assert_allclose(seconds_of(film), np.arange(45) / 30, atol=1e-6)
    words = ["--estimator", "squares", "--no-sheet", "--out", str(tmp_path / "o")]
    assert pose([str(film), *words]) == 0
    assert np.load(tmp_path / "o" / "skeletons" / "raw.npy").shape[1] == 45


class Told:
    """A film whose frames say other times, or none."""

    def __init__(self, frame, time):
        self._frame, self.time = frame, time

    def __getattr__(self, name):
        return getattr(self._frame, name)


@pytest.mark.parametrize("known", [1, 3])
def test_frames_before_the_first_that_says_a_time_come_before_it(tmp_path, known) -> None:
    film = Film(write(tmp_path / "a.mkv", [100 + 33 * number for number in range(45)]))
    first, rest = film._first, film._frames
    frames = [Told(frame, frame.time if number >= known else None) for number, frame in enumerate([first, *rest])]
    film._first, film._frames = frames[0], iter(frames[1:])
    found = np.array([seconds for _, seconds, _ in film])
    np.testing.assert_allclose(found[known:], np.arange(known, 45) * 0.033, atol=0.002)
    assert found[0] == 0 and (np.diff(found) < 0.04).all()


def test_frames_are_chosen_by_their_times_and_not_by_the_header(tmp_path) -> None:
    burst = [3 * number if number < 10 else 33 * (number - 9) for number in range(45)]
    film = write(tmp_path / "burst.mkv", burst)
    assert looked_at(film)[-35:] == list(range(10, 45)) and len(looked_at(film)) < 38


def test_frames_at_a_steady_rate_are_chosen_as_its_numbers_say() -> None:
    for rate, fps, every in ((30, 30, 1), (60, 30, 2), (59.94, 30, 2), (50, 30, 1), (100, 30, 3), (120, 30, 4),
                             (29.97, 30, 1), (15, 30, 1), (240, 30, 8), (60, 4, 15)):  # fmt: skip
        for unit in (1e-6, 1e-3):  # MP4 counts finely, Matroska milliseconds
            times, choose = np.round(np.arange(200) / rate / unit) * unit, Chosen(fps)
            assert [n for n, at in enumerate(times) if choose(float(at))] == list(range(0, 200, every)), (rate, unit)


@pytest.mark.parametrize(("mean", "guess", "rate"), [(None, 1000, 0), (None, 30, 30), (25, 30, 25), (480, 480, 480)])
def test_a_guess_is_no_rate_where_it_is_the_unit_of_the_times(tmp_path, mean, guess, rate) -> None:
    film = Film(write(tmp_path / "a.mkv", [33 * number for number in range(45)]))
    film._stream = type("Stream", (), {"average_rate": mean, "guessed_rate": guess})()
    assert film._rate() == rate


def test_a_rate_that_no_camera_has_is_refused(tmp_path) -> None:
    content = bytearray(write(tmp_path / "a.avi", codec="mpeg4").read_bytes())
    at = content.index(b"strh") + 28
    content[at : at + 8] = np.array([1, 2**31 - 1], "<u4").tobytes()
    (tmp_path / "a.avi").write_bytes(content)
    with pytest.raises(BadClip, match="its header says 2147483647 frames a second"):
        Film(tmp_path / "a.avi")


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mov"])
def test_a_drawn_film_of_changing_rate_is_as_long_as_the_film(tmp_path, suffix) -> None:
    steps = np.random.default_rng(0).integers(1, 120, 45)
    steps[20] = 3000
    film = write(tmp_path / "changing.mkv", [int(at) for at in np.cumsum(steps)])
    glances = list(Watch(Squares(Squares.options_type()), film, 1000))
    recording = gather(glances, (320, 240), LAYOUT, Refinement())
    annotate(film, recording, [], tmp_path / f"drawn.{suffix}", progress=False)
    expected, drawn = seconds_of(film), seconds_of(tmp_path / f"drawn.{suffix}")
    np.testing.assert_allclose(drawn, expected, atol=0.0011)


def packets_of(path: Path) -> list[tuple[int, int]]:
    """Where packets lie in a file, and their bytes."""
    with av.open(str(path)) as container:
        return [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]


def damaged(path: Path, packets: range) -> Path:
    """A film, some packets of which were overwritten where they lie."""
    content = bytearray(path.read_bytes())
    for pos, size in packets_of(path)[packets.start : packets.stop]:
        content[pos : pos + size] = b"\x55" * size
    path.write_bytes(content)
    return path


def test_a_bad_packet_costs_its_own_frame_and_leaves_a_gap(tmp_path, capsys) -> None:
    film = damaged(write(tmp_path / "mid.mp4"), range(20, 26))
    found = seconds_of(film)
    assert len(found) == 39 and np.diff(found).max() == pytest.approx(7 / 30, abs=0.002)
    assert found[-1] == pytest.approx(44 / 30, abs=0.002)
    words = ["--estimator", "squares", "--no-sheet", "--out", str(tmp_path / "o")]
    assert pose([str(film), *words]) == 0
    assert "mid.mp4: 6 of 45 frames could not be decoded and are left out" in capsys.readouterr().err
    assert np.load(tmp_path / "o" / "skeletons" / "mid.npy").shape[1] == 45
    quality = json.loads((tmp_path / "o" / "recordings" / "mid.json").read_text())["quality"]
    assert quality["verdict"] != "good" and "87% of the video could be looked at" in quality["reasons"]


def test_a_clip_of_the_beginning_of_its_film_is_not_good(tmp_path, capsys) -> None:
    film = write(tmp_path / "cut.avi", codec="mpeg4")
    os.truncate(film, packets_of(film)[15][0])
    words = ["--estimator", "squares", "--no-sheet", "--out", str(tmp_path / "o")]
    assert pose([str(film), *words]) == 0
    assert re.search(r"cut\.avi: the video ends or breaks after frame \d+ of 45", capsys.readouterr().err)
    assert json.loads((tmp_path / "o" / "recordings" / "cut.json").read_text())["quality"]["verdict"] == "bad"


def test_what_the_decoder_says_is_kept(tmp_path) -> None:
    """A film that says nothing of its length, and breaks."""

    class Broken:
        def __init__(self, container):
            self._container = container

        def demux(self, stream):
            yield from itertools.islice(self._container.demux(stream), 30)
            raise av.InvalidDataError(1, "Invalid data found")

    film = Film(write(tmp_path / "film.mkv"))
    film._container = Broken(film._container)
    film._frames = film._decoded()
    assert 20 < len(list(film)) < 45 and film.broken == "Invalid data found"
    end = End(30, 1.0, 0, film.broken)
    assert missing(Facts(320, 240, 30.0, 0), end).endswith("after frame 30 (Invalid data found)")
    assert share(Facts(320, 240, 30.0, 0), end) == 1 and share(Facts(320, 240, 30.0, 60), end) == 0.5
    assert share(Facts(320, 240, 30.0, 0, seconds=4.0), end) == 0.25
    assert share(Facts(320, 240, 30.0, 0), End()) == 1  # a camera's film, which was ended here
    assert share(Facts(320, 240, 30.0, 20), End(17, 0.6)) == 1 and share(Facts(320, 240, 30.0, 20), End(10, 0.3)) == 0.5
