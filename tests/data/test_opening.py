"""A name that looks like an address is that of a file on this machine, and nothing is asked for over a network."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import recordings

from mmcl.common.errors import BadClip
from mmcl.data import video
from mmcl.data.opening import check_film
from mmcl.pose.film import Film


@pytest.fixture
def server() -> Iterator[tuple[int, list[object]]]:
    """A port at which somebody listens, and hangs up; and who has called."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        callers: list[object] = []

        def listen() -> None:
            with suppress(OSError):
                while True:
                    connection, caller = listening.accept()
                    callers.append(caller)
                    connection.close()

        threading.Thread(target=listen, daemon=True).start()
        yield listening.getsockname()[1], callers


@pytest.mark.parametrize("decord", [True, False])
def test_no_file_name_is_asked_for_over_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: tuple[int, list[object]], decord: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    port, callers = server
    at = f"/127.0.0.1:{port}/clip.mp4"
    for name in (f"http:{at}", f"tcp:{at}", "12:30.mp4", "data:video.mp4", "file:clip.mp4"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        recordings.write_video(tmp_path / name, 6)
        frames, total = video.read_frames(name, [0, 5], decord=decord)
        assert total == 6 and len(frames) == 2
        assert len(list(Film(Path(name)))) == 6
        assert not callers


def test_decord_is_given_a_file_and_no_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decord = pytest.importorskip("decord")
    monkeypatch.chdir(tmp_path)
    recordings.write_video(tmp_path / "12:30.mp4", 6)
    given = []

    def reader(name: str, **options: object) -> object:
        given.append(name)
        return real(name, **options)

    real = decord.VideoReader
    monkeypatch.setattr(decord, "VideoReader", reader)
    video.read_frames("12:30.mp4", [0])
    assert given == [os.path.join(os.getcwd(), "12:30.mp4")]


def test_what_a_path_leads_to_is_said(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "link.mp4").symlink_to("nowhere.mp4")
    for name, words in (
        ("pipe", "a pipe or a device"), ("folder", "a folder, not a video"), ("link", "a link that leads to nothing"),
        ("none", "no such video file"),
    ):  # fmt: skip
        for look in (check_film, Film):
            with pytest.raises(BadClip, match=rf"{name}\.mp4: .*{words}"):
                look(tmp_path / f"{name}.mp4")


@pytest.mark.parametrize("look", [Film, lambda path: video.read_frames(path, [0])])
def test_a_film_of_sound_alone_is_said(tmp_path: Path, look) -> None:
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(BadClip, match=r"a\.mp4: it has sound and no pictures"):
        look(tmp_path / "a.mp4")
