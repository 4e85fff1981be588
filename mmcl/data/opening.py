"""Opens films by their place on this machine: FFmpeg takes a name such as ``http:/host/x`` for an address."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from mmcl.common.errors import BadClip
from mmcl.common.files import exists, is_file, is_folder


def local_name(path: str | Path) -> str:
    """A file's name as native libraries are to be given it.

    They look for ``protocol:`` at the beginning of a name. A relative one that begins so, out of a data set of
    strangers, would be asked for over the network, and ``12:30.mp4`` would be found nowhere; an absolute one is a file.
    """
    return os.path.abspath(path)


def check_film(path: Path) -> None:
    """Whether a path is that of a regular file: opening a pipe would wait for somebody who writes into it.

    Raises:
        BadClip: it is something else, or nothing.
    """
    if is_file(path):
        return
    if is_folder(path):
        what = "a folder, not a video file"
    elif exists(path):
        what = "a pipe or a device, not a video file"
    elif os.path.islink(path):
        what = "no such video file (a link that leads to nothing)"
    else:
        what = "no such video file"
    raise BadClip(f"{path}: {what}")


def open_film(path: Path) -> tuple[Any, Any]:
    """The opened container of a film, and the stream of its pictures.

    Raises:
        BadClip: it cannot be opened, or has no pictures.
    """
    import av

    try:
        return with_pictures(av.open(local_name(path), metadata_errors="ignore"), path)
    except (av.FFmpegError, ValueError, OSError) as error:
        raise BadClip(f"{path}: not a readable video ({error})") from error


def with_pictures(container: Any, path: str | Path) -> tuple[Any, Any]:
    """A container with the stream of its pictures.

    Raises:
        BadClip: it has none; the container is closed then.
    """
    if container.streams.video:
        return container, container.streams.video[0]
    heard = bool(container.streams.audio)
    container.close()
    raise BadClip(f"{path}: {'it has sound and no pictures' if heard else 'it has no pictures'}")
