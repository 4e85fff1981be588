"""As many NTU recordings as a measurement needs: copies of real files by link, or made-up ones of the same form."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mmcl.common.errors import UserError
from mmcl.data.readers.ntu import NAME, missing_skeletons

# What the 120 classes' names may say: setup, camera, performer, replication.
SETUPS, CAMERAS, PERFORMERS, REPLICATIONS = 32, 3, 106, 2
MADE_UP = 24  # different made-up files
ACTIONS = range(1, 121)


def link_recordings(source: Path | None, folder: Path, count: int) -> list[Path]:
    """Fill a folder with ``count`` recordings under valid names, no two of them the same.

    Args:
        source: folder with real ``.skeleton`` files, of which each is linked as often as it takes and none is written
            to; None: made-up ones.
        folder: to be made and filled.
        count: recordings.

    Returns:
        For each of the different files behind them, the first recording that is a link to it.

    Raises:
        UserError: no ``.skeleton`` file in ``source``, or more copies wanted than there are names.
    """
    folder.mkdir(parents=True)
    files = make_up(folder.with_name(folder.name + "-made-up")) if source is None else _real(source)
    actions = {file: _action(file) for file in files}
    names = {action: _names(action) for action in set(actions.values())}  # files of an action share its names
    links = []
    for file in itertools.islice(itertools.cycle(files), count):
        name = next(names[actions[file]], None)
        if name is None:
            raise UserError(f"{count} clips are more than {len(files)} files have names for; take fewer clips")
        _link(file, folder / name)
        links.append(folder / name)
    return links[: len(files)]


def _real(source: Path) -> list[Path]:
    named = sorted(path.absolute() for path in source.glob("*.skeleton") if NAME.fullmatch(path.name))
    files = [path for path in named if _action(path) in ACTIONS and path.stem not in missing_skeletons()]
    if not files:
        raise UserError(f"{source}: no SsssCcccPpppRrrrAaaa.skeleton in it")
    return files


def _action(file: Path) -> int:
    return int(file.stem[-3:])


def _names(action: int) -> Iterator[str]:
    """Names of recordings of an action, those of the missing-skeleton list left out."""
    for take in itertools.product(
        range(1, REPLICATIONS + 1), range(1, CAMERAS + 1), range(1, SETUPS + 1), range(1, PERFORMERS + 1)
    ):
        replication, camera, setup, performer = take
        name = f"S{setup:03d}C{camera:03d}P{performer:03d}R{replication:03d}A{action:03d}"
        if name not in missing_skeletons():
            yield f"{name}.skeleton"


def _link(file: Path, to: Path) -> None:
    try:
        os.symlink(file, to)
    except FileExistsError:
        raise
    except (OSError, NotImplementedError):  # Windows, without the right to; file systems without links
        with open(file, "rb") as original, open(to, "xb") as copy:  # x: never into a file or through a link
            shutil.copyfileobj(original, copy)


def make_up(folder: Path) -> list[Path]:
    """Write made-up recordings: lengths, digits and noise as in the real ones, one in six with two bodies."""
    folder.mkdir()
    rng, files = np.random.default_rng(0), []
    for number in range(MADE_UP):
        frames = int(np.clip(rng.lognormal(4.4, 0.35), 32, 300))  # median 81 frames
        bodies = 2 if number % 6 == 5 else 1
        file = folder / f"S001C001P001R001A{5 * number % 120 + 1:03d}.skeleton"
        file.write_text(skeleton_text(rng, frames, bodies), encoding="ascii")
        files.append(file)
    return files


def skeleton_text(rng: np.random.Generator, frames: int, bodies: int) -> str:
    """One made-up ``.skeleton`` file: bodies that stand side by side and wander, with the sensor's jitter."""
    pose = rng.normal(0, (0.15, 0.45, 0.1), (bodies, 1, 25, 3)) + (0, 0.1, 3.2)  # taller than wide, as people are
    pose[..., 0] += np.arange(bodies)[:, None, None]
    path = np.cumsum(rng.normal(0, 0.01, (bodies, frames, 1, 3)), axis=1)
    points = pose + path + rng.normal(0, 0.004, (bodies, frames, 25, 3))
    depth = 366 * points[..., :2] / points[..., 2:] * (1, -1) + (256, 212)
    colour = 1060 * points[..., :2] / points[..., 2:] * (1, -1) + (960, 540)
    turn = rng.normal(0, 0.5, (bodies, frames, 25, 4))
    rows = np.concatenate([points, depth, colour, turn], axis=-1)
    lines = [str(frames)]
    for frame in range(frames):
        lines.append(str(bodies))
        for body in range(bodies):
            lines += [f"{72057594037931101 + body} 0 1 1 1 1 0 0.02764709 0.05745083 2", "25"]
            lines += [" ".join(f"{value:.7g}" for value in row) + " 2" for row in rows[body, frame]]
    return "\n".join(lines) + "\n"
