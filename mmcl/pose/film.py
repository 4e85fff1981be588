"""Pictures of a video or a camera, one after the other, with the seconds at which they were taken."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmcl.common.errors import BadClip
from mmcl.data.opening import check_film, open_film, with_pictures
from mmcl.data.readers.files import VIDEO_SUFFIXES

LONGEST = 1280  # pixels of a picture's longer side; larger ones tell an estimator nothing more
CAMERA = re.compile(r"camera(?::([0-9]+))?|/dev/video([0-9]+)")
USUAL_RATE, BELIEVED, MOST = 30.0, 240.0, 10_000.0  # frames a second: of a film that says none, of a guess, of any film
LENGTH = re.compile(r"([0-9]{1,4}):([0-9]{2}):([0-9]{2}(?:\.[0-9]{1,9})?)")
# What PyAV opens a camera by: (format, name of the first camera)
DEVICES = {"linux": ("v4l2", "/dev/video{}"), "darwin": ("avfoundation", "{}"), "win32": ("dshow", "video={}")}


@dataclass(frozen=True)
class Facts:
    """What is known of a film before its pictures are looked at.

    Attributes:
        width: of its pictures, as they are to be shown.
        height: the same.
        rate: frames a second by its header; 0 where that says nothing.
        frames: as many as its header announces; 0 where it does not, as with cameras.
        seconds: from its first frame to its end, by its header; 0 where that says nothing.
    """

    width: int
    height: int
    rate: float
    frames: int
    seconds: float = 0.0


def is_camera(source: str | Path) -> bool:
    """Whether a source names a camera: ``camera``, ``camera:1``, ``/dev/video1``."""
    return CAMERA.fullmatch(str(source)) is not None


def is_video(path: Path) -> bool:
    """Whether a file is a video by its name."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def is_film(source: Path) -> bool:
    """Whether a source shows pictures, and no skeletons."""
    return is_video(source) or is_camera(source)


class Film:
    """An open video or camera.

    Args:
        source: video file, or the name of a camera.
        longest: pictures are made smaller until their longer side is no longer than that.

    Attributes:
        facts: what its header says.
        broken: what the decoder said last of what it could not decode; else nothing.
        failed: packets, of a frame each, that could not be decoded so far.

    Raises:
        BadClip: it cannot be opened, shows no pictures, or no times that can be.
    """

    def __init__(self, source: Path, longest: int = LONGEST) -> None:
        import av

        av.logging.set_level(None)
        if is_camera(source):
            opened = _open_camera(source)
        else:
            check_film(source)
            opened = open_film(source)
        self._container, self._stream = opened
        self._stream.thread_type = "AUTO"
        self._longest, self._source, self.broken = longest, source, ""
        self.failed = 0
        self._frames = self._decoded()
        self._first = next(self._frames, None)
        if self._first is None:
            raise BadClip(f"{source}: the video has no frames")
        _refuse_flipped(source, self._first)
        height, width = _turned(self._first)
        frames, length = (0, 0.0) if is_camera(source) else (int(self._stream.frames), self._length(self._first))
        self.facts = Facts(width, height, self._rate(), frames, length)

    def __iter__(self) -> Iterator[tuple[int, float, np.ndarray]]:
        """Number, seconds since the first frame, and (h, w, 3) uint8 RGB of each; what cannot be decoded is passed by.

        Frames that say no time lie a frame of the header's rate behind the one before.
        """
        step, begin, last = 1 / (self.facts.rate or USUAL_RATE), None, None
        frame, number = self._first, 0
        while frame is not None:
            if begin is None and frame.time is not None:
                begin = frame.time - number * step
            seconds = 0.0 if last is None else last + step
            if frame.time is not None and (last is None or frame.time - begin > last):  # some repeat times, or go back
                seconds = frame.time - begin
            yield number, seconds, self._picture(frame)
            last, number, frame = seconds, number + 1, next(self._frames, None)

    def close(self) -> None:
        """Let go of the file or camera."""
        self._container.close()

    def _decoded(self) -> Iterator[Any]:
        import av

        try:
            for packet in self._container.demux(self._stream):
                try:
                    frames = packet.decode()
                except av.FFmpegError as error:  # of this packet alone: those behind it may be whole
                    self.failed, self.broken = self.failed + 1, _words(error)
                    continue
                yield from frames
        except av.FFmpegError as error:
            self.broken = _words(error)

    def _rate(self) -> float:
        """Frames a second by the header, 0 where that says nothing.

        Where a film counts no mean rate, FFmpeg's guess may be the unit of its times; where it says no times, the mean
        is FFmpeg's own, and the guess that of the pictures.

        Raises:
            BadClip: no camera takes so many, so that its times mean nothing.
        """
        mean, guess = (float(rate or 0) for rate in (self._stream.average_rate, self._stream.guessed_rate))
        if mean > MOST:
            raise BadClip(
                f"{self._source}: its header says {mean:.0f} frames a second, so its times are damaged: write it anew "
                "with its own rate (ffmpeg -r 30 -i OLD NEW)"
            )
        guess = guess if guess <= BELIEVED else 0.0
        timeless = self._first is not None and self._first.time is None
        return (guess or mean) if timeless else (mean or guess)

    def _length(self, first: Any) -> float:
        """Seconds from the first frame to the end that the header announces: that of the pictures, or else of all."""
        told = LENGTH.fullmatch(str(self._stream.metadata.get("DURATION", "")))  # Matroska's, which counts no frames
        begin, all_of_it = (float(value or 0) / 1e6 for value in (self._container.start_time, self._container.duration))
        seconds = (
            sum(float(part) * unit for part, unit in zip(told.groups(), (3600, 60, 1), strict=True)) if told else 0
        )
        return max(0.0, (seconds or all_of_it) - ((first.time or begin) - begin))

    def _picture(self, frame: Any) -> np.ndarray:
        share = min(1.0, self._longest / max(frame.width, frame.height))
        if share < 1:
            width, height = (max(2, round(side * share / 2) * 2) for side in (frame.width, frame.height))
            frame = frame.reformat(width=width, height=height)
        return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), _quarters(frame)))


def _words(error: Any) -> str:
    return " ".join(str(error.strerror or error).split())[:100]


def _refuse_flipped(source: Path, frame: Any) -> None:
    """Refuse a film whose header says that it is to be shown as in a mirror: PyAV tells rotations alone."""
    matrix = next((data for data in frame.side_data if data.type.name == "DISPLAYMATRIX"), None)
    if matrix is None:
        return
    a, b, _, c, d, *_ = np.frombuffer(bytes(matrix), dtype="<i4").astype(float)
    if a * d - b * c < 0:
        raise BadClip(
            f"{source}: its header says that it is to be shown in a mirror: write it anew with its pictures as they "
            "are to be seen (ffmpeg -i OLD NEW)"
        )


def _quarters(frame: Any) -> int:
    """Quarter turns by which a telephone says its picture is to be turned."""
    return round(getattr(frame, "rotation", 0) / 90)


def _turned(frame: Any) -> tuple[int, int]:
    """Height and width of a picture as it is to be shown."""
    return (frame.width, frame.height) if _quarters(frame) % 2 else (frame.height, frame.width)


def _open_camera(source: Path) -> tuple[Any, Any]:
    import av

    kind, name = DEVICES.get(sys.platform, DEVICES["linux"])
    found = CAMERA.fullmatch(str(source))
    assert found is not None
    try:
        return with_pictures(av.open(name.format(found.group(1) or found.group(2) or 0), format=kind), source)
    except (av.FFmpegError, ValueError, OSError) as error:
        raise BadClip(f"{source}: not a readable camera ({error})") from error
