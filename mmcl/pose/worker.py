"""A process of its own that decodes a film and looks for people in it, and that can be ended whatever it does.

Native decoders hang on some files, and native estimators write to stderr. The parent waits for one frame at a time,
with a limit, and ends the process where none comes.
"""

from __future__ import annotations

import io
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
Looked = tuple[dict[int, bytes], str]
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
        broken: what the decoder said where it gave up before the film's end, once it is over; else nothing.
    """

    estimator: Estimator
    source: Path
    fps: float = 30.0
    timeout: float = TIMEOUT
    pictures: bool = False
    facts: Facts = field(default_factory=lambda: Facts(0, 0, 0.0, 0))
    tiles: dict[int, bytes] = field(default_factory=dict)
    broken: str = ""

    @property
    def every(self) -> int:
        """Every how manieth frame is looked at, once the facts are there."""
        return step_of(self.facts, self.fps)

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
                self.tiles, self.broken = content
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


def _look(pipe: Connection, estimator: Estimator, source: Path, fps: float, pictures: bool) -> Looked:
    """Send what is found in a film; the small pictures, and what its decoder said where it gave up."""
    film = Film(source, LONGEST)
    pipe.send(("facts", film.facts))
    every = step_of(film.facts, fps)
    joint_count = load_layout(estimator.layout).joint_count
    estimator.open(source)
    tiles, spacing = {}, 1
    for number, seconds, picture in film:
        if number % every:
            continue
        with ESTIMATORS.blamed(type(estimator)):
            poses = estimator.find(picture, number, seconds)
            check_poses(poses, joint_count)
        scale = film.facts.width / picture.shape[1]
        poses = replace(poses, pixels=np.asarray(poses.pixels * scale, dtype=np.float32))
        pipe.send(("glance", Glance(number, seconds, poses, picture if pictures else None)))
        if number // every % spacing == 0:
            tiles[number] = _tile(picture)
            if len(tiles) > KEPT:
                tiles, spacing = dict(list(tiles.items())[::2]), spacing * 2
    estimator.close()
    film.close()
    return tiles, film.broken


def step_of(facts: Facts, fps: float) -> int:
    """Every how manieth frame of a film is looked at, so that ``fps`` of them are left of a second."""
    return max(1, int(facts.rate / fps + 0.01)) if facts.rate else 1


def _tile(picture: np.ndarray) -> bytes:
    from PIL import Image

    height, width = picture.shape[:2]
    share = min(TILE / height, TILE * WIDE / width)
    small = Image.fromarray(picture).resize((max(1, round(width * share)), max(1, round(height * share))))
    content = io.BytesIO()
    small.save(content, "JPEG", quality=85)
    return content.getvalue()
