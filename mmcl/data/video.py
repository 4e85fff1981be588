"""Frames of a video by their index: decord, with PyAV to count them and to fall back on, or a folder of pictures.

decord can wait forever in native code for frames that a container announces and does not have, and no Python code runs
meanwhile. So this function is called in a worker process that can be killed (``mmcl.data.preparation.pool``), never in
the parent; readers are made inside the call, because a decord reader does not survive a fork.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmcl.common.errors import BadClip
from mmcl.common.files import is_folder
from mmcl.data.opening import check_film, local_name, open_film
from mmcl.data.readers.files import PICTURE_SUFFIXES

Indices = Sequence[int] | np.ndarray
ROOM = 512 << 20  # bytes that the frames of one clip may take: five of 8K, and two workers still fit into 4 GiB
FORMATS = ("JPEG", "PNG", "BMP", "WEBP")  # Pillow opens many more by content, some with programs of their own
# Other views of the same moments that datasets keep beside the colour pictures: flow_x_00001.jpg, frame_3_depth.png.
OTHER_VIEW = re.compile(r"(?<![a-z])(depth|flow|mask|ir)(?![a-z])", re.IGNORECASE)
# decord asks the decoder this many times for a frame after the end of the file before it gives up.
os.environ.setdefault("DECORD_EOF_RETRY_MAX", "1024")


def read_frames(
    path: str | Path, indices: Indices | Callable[[int], Indices], *, expected: int = 0, decord: bool = True
) -> tuple[np.ndarray, int]:
    """Decode chosen frames.

    Args:
        path: video file, or folder of pictures in the order of their numbers.
        indices: which frames, from 0; or a function that is told how many there are and says which. Indices beyond
            the ends mean the first and the last frame.
        expected: how many frames there should be. A file that holds fewer than it announces has been cut off; but
            where it holds as many as expected, it is only the announcement that is wrong.
        decord: use it where it is installed. False for a file that it did not return from: PyAV may still read it.

    Returns:
        (n, H, W, 3) uint8 RGB in the order of ``indices``, and the number of frames the file has.

    Raises:
        BadClip: no regular file or folder, not a video, empty, cut off, it ends before a frame it announces, or its
            pictures are too large.
    """
    path = Path(path)
    if is_folder(path):
        return _read_pictures(path, indices)
    check_film(path)
    total, size = _count(path, expected)
    wanted = _clamped(indices, total)
    _check_room(path, len(wanted), *size)
    frames = _read_decord(path, wanted, total) if decord else None
    return (_read_av(path, wanted, total) if frames is None else frames), total


def _clamped(indices: Indices | Callable[[int], Indices], total: int) -> list[int]:
    wanted = indices(total) if callable(indices) else indices
    return [min(max(int(index), 0), total - 1) for index in wanted]


def _check_room(path: Path, count: int, width: int, height: int) -> None:
    if min(width, height) < 1:
        raise BadClip(f"{path}: not a readable video (pictures of {width} x {height} pixels)")
    if count * width * height * 3 > ROOM:
        room = f"{count} of them take more than {ROOM >> 20} MB"
        raise BadClip(f"{path}: pictures of {width} x {height} pixels are too large ({room}); scale the video down")


def _count(path: Path, expected: int) -> tuple[int, tuple[int, int]]:
    """Frames that are shown, and width and height.

    Packets are counted, since headers lie: a millisecond or two for a clip. A video that was trimmed without being
    encoded anew still holds what lies before and after the cut, marked as not to be shown.
    """
    import av

    av.logging.set_level(None)
    container, stream = open_film(path)
    try:
        with container:
            hidden = [packet.is_discard for packet in container.demux(stream) if packet.size]
            kind, announced, size = container.format.name, stream.frames, (stream.width, stream.height)
    except (av.FFmpegError, ValueError, OSError) as error:
        raise BadClip(f"{path}: not a readable video ({error})") from error
    if kind == "image2" or kind.endswith("_pipe"):
        raise BadClip(f"{path}: not a readable video (a single picture)")
    if all(hidden):
        raise BadClip(f"{path}: the video has no frames")
    total = len(hidden) - sum(hidden)
    if not any(hidden) and _fewer(total, announced) and (_fewer(total, expected) or not expected):
        raise BadClip(f"{path}: the video ends or breaks before frame {total} of {announced}")
    return total, size


def _fewer(count: int, expected: int) -> bool:
    """Clearly fewer: the last frame or two are often lost, and one in twenty does no harm."""
    return expected - count > max(2, 0.05 * expected)


def _read_decord(path: Path, wanted: list[int], total: int) -> np.ndarray | None:
    """Frames by decord; None where it is not installed, counts other frames, or fails: PyAV has the last word."""
    try:
        import decord
    except (ImportError, OSError):  # OSError: its native library does not load on this machine
        return None
    decord.logging.set_level(decord.logging.QUIET)
    reader: Any = None
    try:
        # One thread: more of them decode ahead of the reader and hold those frames in memory.
        reader = decord.VideoReader(local_name(path), ctx=decord.cpu(0), num_threads=1)
        if len(reader) != total:  # it counts what is not to be shown, and numbers frames by that
            return None
        # One by one: it is quicker than get_batch, and free of its endless loop on some files.
        frames = ((index, reader[index].asnumpy()) for index in sorted(set(wanted)))
        return _gather(path, frames, wanted, total)
    except Exception:  # its own classes, which are not exported
        return None
    finally:
        del reader  # ends its decoding threads now, not when the garbage collector comes round


def _read_av(path: Path, wanted: list[int], total: int) -> np.ndarray:
    """Frames by PyAV, which decodes from the beginning up to the last one wanted."""
    import av

    def frames() -> Iterator[tuple[int, np.ndarray]]:
        # An error ends the file here: what comes after it could not be told by its number.
        with contextlib.suppress(av.FFmpegError), open_film(path)[0] as container:
            for index, frame in enumerate(container.decode(video=0)):
                if index in wanted:
                    # Telephones store how a picture is to be turned; decord turns it by itself.
                    quarters = round(getattr(frame, "rotation", 0) / 90)
                    yield index, np.rot90(frame.to_ndarray(format="rgb24"), quarters)
                if index >= max(wanted):
                    return

    return _gather(path, frames(), wanted, total)


def _read_pictures(folder: Path, indices: Indices | Callable[[int], Indices]) -> tuple[np.ndarray, int]:
    """The same of a folder, in which every picture is a frame. Only the wanted ones are opened."""
    from PIL import Image

    names = picture_names(folder)
    if not names:
        raise BadClip(f"{folder}: no pictures in this folder ({', '.join(PICTURE_SUFFIXES)})")
    wanted = _clamped(indices, len(names))

    def frames() -> Iterator[tuple[int, np.ndarray]]:
        for index in sorted(set(wanted)):
            path = folder / names[index]
            try:
                with Image.open(path, formats=FORMATS) as picture:
                    _check_room(path, len(wanted), *picture.size)
                    yield index, np.asarray(picture.convert("RGB"))
            except BadClip:
                raise
            except Exception as error:  # Pillow raises SyntaxError, struct.error and others on damaged files
                raise BadClip(f"{path}: not a readable picture ({error})") from error

    return _gather(folder, frames(), wanted, len(names)), len(names)


def picture_names(folder: Path) -> list[str]:
    """Pictures of a folder in the order of the numbers in their names (2 before 10); other views are left out."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.name.lower().endswith(PICTURE_SUFFIXES) and entry.is_file()]
    names = [name for name in names if not name.startswith(".")]
    coloured = [name for name in names if not OTHER_VIEW.search(name)] or names
    return sorted(coloured, key=_natural)


def _natural(name: str) -> tuple[list[str | int], str]:
    parts: list[str | int] = list(re.split(r"([0-9]+)", name.lower()))
    parts[1::2] = [int(number) for number in parts[1::2]]
    return parts, name


def _gather(path: Path, frames: Iterable[tuple[int, np.ndarray]], wanted: list[int], total: int) -> np.ndarray:
    """Put frames into the order of ``wanted``; BadClip where one is missing or of another size than the others."""
    rows: np.ndarray | None = None
    missing = set(wanted)
    for index, frame in frames:
        if rows is None:
            rows = np.empty((len(wanted), *frame.shape[:2], 3), dtype=np.uint8)
        if frame.shape != rows.shape[1:]:  # also decord's odd shapes for pictures of a few pixels
            raise BadClip(f"{path}: pictures of different sizes")
        rows[[row for row, number in enumerate(wanted) if number == index]] = frame
        missing.discard(index)
    if missing or rows is None:
        raise BadClip(f"{path}: the video ends or breaks before frame {min(missing)} of {total}")
    return rows
