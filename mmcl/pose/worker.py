"""A process of its own that decodes a film and looks for people in it, and that can be ended whatever it does.

Native decoders hang on some files, and native estimators write to stderr. The parent waits for one frame at a time,
with a limit, and ends the process where none comes.
"""

from __future__ import annotations

import io
import math
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from mmcl.common.errors import BadClip, UserError
from mmcl.pose import ESTIMATORS
from mmcl.pose.base import Estimator, Poses, check_poses
from mmcl.pose.film import LONGEST, Facts, Film
from mmcl.skeletons.layout import load_layout

TIMEOUT = 60.0  # seconds for one frame, or for opening a film and loading weights
TILE = 480  # pixels, height of the small pictures that are kept of a film
WIDE = 4  # heights that a small picture may be wide
KEPT = 16  # small pictures of a film; when there are more, every second one goes


@dataclass(frozen=True)
class Glance:
    """One frame that was looked at.

    Attributes:
        frame: its number in the film.
        seconds: since the first frame.
        poses: the people, in pixels of the film's own pictures.
        picture: (h, w, 3) uint8 RGB, where the pictures were asked for.
    """

    frame: int
    seconds: float
    poses: Poses
    picture: np.ndarray | None = None


@dataclass(frozen=True)
class End:
    """What there was of a film when it was over.

    Attributes:
        frames: that were decoded, looked at or not.
        seconds: of the last of them.
        failed: how many could not be decoded.
        broken: what the decoder said last of what it could not decode; else nothing.
    """

    frames: int = 0
    seconds: float = 0.0
    failed: int = 0
    broken: str = ""


@dataclass
class Watch:
    """How a film is to be watched.

    Attributes:
        estimator: finds the people.
        source: video file or camera.
        fps: frames a second that are enough; of a film with twice as many, every second one is looked at.
        timeout: seconds for one frame.
        pictures: hand on the pictures, too.
        facts: of the film, once the first frame has come.
        tiles: frame -> JPEG of small pictures, spread over the film, once it is over.
        end: what there was of it, once it is over.
    """

    estimator: Estimator
    source: Path
    fps: float = 30.0
    timeout: float = TIMEOUT
    pictures: bool = False
    facts: Facts = field(default_factory=lambda: Facts(0, 0, 0.0, 0))
    tiles: dict[int, bytes] = field(default_factory=dict)
    end: End = field(default_factory=lambda: End())

    def __iter__(self) -> Iterator[Glance]:
        """Frames as they come; ending the iteration ends the process.

        Raises:
            BadClip: the film cannot be read, or its process hangs or dies.
            UserError: the estimator cannot do what it was asked for.
        """
        methods = multiprocessing.get_all_start_methods()
        context: Any = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
        ours, theirs = context.Pipe(duplex=False)
        job = (theirs, self.estimator, self.source, self.fps, self.pictures)
        process = context.Process(target=_watch, args=job, daemon=True)
        process.start()
        theirs.close()
        try:
            yield from self._received(ours)
        finally:
            process.terminate()
            process.join(3)
            if process.is_alive():  # native code that holds the interpreter never sees SIGTERM
                process.kill()
                process.join()
            ours.close()

    def _received(self, pipe: Connection) -> Iterator[Glance]:
        while True:
            try:
                if not pipe.poll(self.timeout):
                    raise BadClip(f"{self.source}: no frame for {self.timeout:g} s; its process was ended")
                kind, content = pipe.recv()
            except EOFError as error:
                raise BadClip(f"{self.source}: the process that looked at it died") from error
            if kind == "glance":
                yield content
            elif kind == "facts":
                self.facts = content
            elif kind == "end":
                self.tiles, self.end = content
                return
            else:
                raise {"bad": BadClip, "user": UserError}[kind](content)


def _watch(pipe: Connection, estimator: Estimator, source: Path, fps: float, pictures: bool) -> None:
    """The process: send facts, glances, and at the end the small pictures."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears Ctrl-C, and ends this process
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    with suppress(BrokenPipeError):
        try:
            pipe.send(("end", _look(pipe, estimator, source, fps, pictures)))
        except BadClip as error:
            pipe.send(("bad", str(error)))
        except UserError as error:
            pipe.send(("user", str(error)))
        except BrokenPipeError:
            raise
        except Exception as error:  # of an estimator or a decoder: it costs this film
            pipe.send(("bad", f"{source}: unexpected {type(error).__name__}: {' '.join(str(error).split())[:300]}"))


def _look(
    pipe: Connection, estimator: Estimator, source: Path, fps: float, pictures: bool
) -> tuple[dict[int, bytes], End]:
    """Send what is found in a film; the small pictures, and what there was of it."""
    film = Film(source, LONGEST)
    pipe.send(("facts", film.facts))
    joint_count = load_layout(estimator.layout).joint_count
    estimator.open(source)
    tiles, spacing, looked, chosen = {}, 1, 0, Chosen(fps)
    number, seconds = -1, 0.0
    for number, seconds, picture in film:
        if not chosen(seconds):
            continue
        with ESTIMATORS.blamed(type(estimator)):
            poses = estimator.find(picture, number, seconds)
            check_poses(poses, joint_count)
        scale = film.facts.width / picture.shape[1]
        poses = replace(poses, pixels=np.asarray(poses.pixels * scale, dtype=np.float32))
        pipe.send(("glance", Glance(number, seconds, poses, picture if pictures else None)))
        if looked % spacing == 0:
            tiles[number] = _tile(picture)
            if len(tiles) > KEPT:
                tiles, spacing = dict(list(tiles.items())[::2]), spacing * 2
        looked += 1
    estimator.close()
    film.close()
    return tiles, End(number + 1, seconds, film.failed, film.broken)


class Chosen:
    """Chooses the frames of a film that are looked at, by their times alone, so that ``fps`` of a second are left.

    A frame is passed by where the one behind it, which comes as much later as this one came, is soon enough.
    """

    def __init__(self, fps: float) -> None:
        self._apart = 1 / fps + min(0.001, 0.05 / fps)  # many files count whole milliseconds
        self._last = self._before = -math.inf

    def __call__(self, seconds: float) -> bool:
        """Whether the frame of this time is looked at; times increase."""
        following = 2 * seconds - self._before
        self._before = seconds
        if following - self._last <= self._apart:
            return False
        self._last = seconds
        return True


def _tile(picture: np.ndarray) -> bytes:
    from PIL import Image

    height, width = picture.shape[:2]
    share = min(TILE / height, TILE * WIDE / width)
    small = Image.fromarray(picture).resize((max(1, round(width * share)), max(1, round(height * share))))
    content = io.BytesIO()
    small.save(content, "JPEG", quality=85)
    return content.getvalue()
