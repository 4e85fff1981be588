"""Frames of a video by their index: decord, or PyAV where decord is missing or cannot open the file.

decord can wait forever in native code for frames that a container announces and does not have, and no Python code runs
meanwhile. So this function is called in a worker process that can be killed (``mmcl.data.preparation.build``), never in
the parent; readers are made inside the call, because a decord reader does not survive a fork.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmcl.errors import BadClip

Indices = Sequence[int] | np.ndarray
# decord asks the decoder this many times for a frame after the end of the file before it gives up.
os.environ.setdefault("DECORD_EOF_RETRY_MAX", "1024")


def read_frames(path: str | Path, indices: Indices | Callable[[int], Indices]) -> tuple[np.ndarray, int]:
    """Decode chosen frames.

    Args:
        path: video file.
        indices: which frames, from 0; or a function that is told how many there are and says which. Indices beyond
            the ends mean the first and the last frame.

    Returns:
        (n, H, W, 3) uint8 RGB in the order of ``indices``, and the number of frames the file has.

    Raises:
        BadClip: not a video, empty, cut off, or it ends before a frame it announces.
    """
    if not Path(path).is_file():
        raise BadClip(f"{path}: no such video file")
    reader = _open_decord(path)
    if reader is None:
        return _read_av(path, indices)
    total = len(reader)
    if total == 0:
        raise BadClip(f"{path}: the video has no frames")
    wanted = _clamped(indices, total)
    try:
        frames = reader.get_batch(wanted).asnumpy()
    except Exception as error:  # decord's own classes, which are not exported
        raise BadClip(f"{path}: the video ends or breaks before frame {max(wanted)} of {total}") from error
    finally:
        del reader  # ends its decoding threads now, not when the garbage collector comes round
    return frames, total


def _clamped(indices: Indices | Callable[[int], Indices], total: int) -> list[int]:
    wanted = indices(total) if callable(indices) else indices
    return [min(max(int(index), 0), total - 1) for index in wanted]


def _open_decord(path: str | Path) -> Any:
    """A decord reader, or None where decord is not installed or does not take the file."""
    try:
        import decord
    except (ImportError, OSError):  # OSError: its native library does not load on this machine
        return None
    decord.logging.set_level(decord.logging.QUIET)
    try:
        # One thread: more of them decode ahead of the reader and hold those frames in memory.
        return decord.VideoReader(str(path), ctx=decord.cpu(0), num_threads=1)
    except Exception:  # PyAV says better what is wrong, and knows codecs that decord does not
        return None


def _read_av(path: str | Path, indices: Indices | Callable[[int], Indices]) -> tuple[np.ndarray, int]:
    """The same with PyAV. Packets are counted rather than believed, then frames are decoded in order."""
    import av

    av.logging.set_level(None)
    try:
        with av.open(str(path)) as container:
            total = sum(packet.size > 0 for packet in container.demux(container.streams.video[0]))
        if total == 0:
            raise BadClip(f"{path}: the video has no frames")
        wanted = _clamped(indices, total)
        frames = {}
        with av.open(str(path)) as container:
            for index, frame in enumerate(container.decode(video=0)):
                if index in wanted:
                    frames[index] = frame.to_ndarray(format="rgb24")
                if index >= max(wanted):
                    break
    except (av.FFmpegError, IndexError, ValueError, OSError) as error:
        raise BadClip(f"{path}: not a readable video ({error})") from error
    if missing := sorted(set(wanted) - set(frames)):
        raise BadClip(f"{path}: the video ends or breaks before frame {missing[0]} of {total}")
    return np.stack([frames[index] for index in wanted]), total
