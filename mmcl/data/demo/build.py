"""Generating the demo dataset: every clip from its own numbers, all clips in parallel, the folder in one go.

The folder holds ``skeletons/<id>.npy`` (M, T, V, 3) float32 in camera space, ``videos/<id>.mp4`` with one frame for
each skeleton frame, ``clips.csv`` and ``demo.json`` (layout, classes, camera, options).
"""

from __future__ import annotations

import csv
import json
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mmcl.common.errors import UserError
from mmcl.common.files import atomic_folder, write_json
from mmcl.data.demo.actions import ACTIONS, CLASS_NAMES
from mmcl.data.demo.camera import SENSORS
from mmcl.data.demo.props import FRAME_RATE
from mmcl.data.demo.recording import frames, observe, write_video
from mmcl.data.demo.scene import make_scene
from mmcl.data.readers.options import option

FORMAT = 1  # of the folder and of what is in it: raise it when the same options give other clips
COLUMNS = ("id", "label", "class", "subject", "camera", "trial", "bodies", "frames")


@dataclass(frozen=True)
class Options:
    """What determines a demo dataset, to the last bit.

    Attributes:
        subjects: how many people act.
        clips_per_subject: takes of each class by each of them.
        seed: of everything random.
        layout: which sensor watches: "kinect_v2_25", or "kinect_v1_20" (other views, more noise, 20 joints).
        first_subject: number of the first subject; another range gives other people.
    """

    subjects: int = option(8, "people", "N")
    clips_per_subject: int = option(3, "takes of each class by each of them", "N")
    seed: int = option(0, "of everything random", "N")
    layout: str = option("kinect_v2_25", "which sensor watches: kinect_v2_25 or kinect_v1_20", "NAME")
    first_subject: int = option(1, "number of the first person", "N")

    def __post_init__(self) -> None:
        for name in ("subjects", "clips_per_subject", "first_subject"):
            if getattr(self, name) < 1:
                raise UserError(f"demo: {name} is {getattr(self, name)}, it must be at least 1")
        if self.seed < 0:
            raise UserError(f"demo: seed is {self.seed}, it must not be negative")
        if self.layout not in SENSORS:
            raise UserError(f"demo: no sensor with layout '{self.layout}'; choose one of {', '.join(SENSORS)}")

    def takes(self) -> list[tuple[int, int, int]]:
        """(label, subject, trial) of every clip."""
        people = range(self.first_subject, self.first_subject + self.subjects)
        trials = range(1, self.clips_per_subject + 1)
        return [(label, who, trial) for label in range(len(ACTIONS)) for who in people for trial in trials]


def clip_name(label: int, subject: int, trial: int) -> str:
    """Id of a clip: action (from 1), subject, trial."""
    return f"a{label + 1:02d}_s{subject:03d}_t{trial}"


def write_clip(folder: Path, options: Options, take: tuple[int, int, int]) -> dict[str, Any]:
    """Make one clip's skeleton and video; returns its row of ``clips.csv``."""
    label, subject, trial = take
    scene = make_scene(label, subject, trial, options.seed, SENSORS[options.layout])
    name, joints = clip_name(*take), observe(scene)
    np.save(folder / "skeletons" / f"{name}.npy", joints)
    write_video(folder / "videos" / f"{name}.mp4", frames(scene))
    row = (name, label, scene.action.name, subject, scene.camera, trial, len(joints), joints.shape[1])
    return dict(zip(COLUMNS, row, strict=True))


def generate(
    out: Path,
    *,
    subjects: int = Options.subjects,
    clips_per_subject: int = Options.clips_per_subject,
    seed: int = Options.seed,
    layout: str = Options.layout,
    first_subject: int = Options.first_subject,
    workers: int = 2,
    progress: bool = True,
) -> None:
    """Write a demo dataset to ``out``, which appears when it is complete.

    The clips depend on the options of :class:`Options` alone, not on ``workers``. With more than one worker, a script
    must call this under ``if __name__ == "__main__":``, since worker processes import the script.

    Raises:
        UserError: an option is out of range, or ``out`` holds something already.
    """
    options = Options(subjects, clips_per_subject, seed, layout, first_subject)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is there already and is not empty; give another folder, or delete it")
    with atomic_folder(out, "demo.json") as folder:
        for part in ("skeletons", "videos"):
            (folder / part).mkdir()
        rows = list(_work(folder, options, workers, progress))
        with open(folder / "clips.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
        sensor = SENSORS[layout]
        write_json(folder / "demo.json", {
            "format": FORMAT, "options": asdict(options), "layout": layout, "fps": FRAME_RATE, "classes": CLASS_NAMES,
            "camera": asdict(sensor.intrinsics), "views": [asdict(view) for view in sensor.views],
        })  # fmt: skip


def _work(folder: Path, options: Options, workers: int, progress: bool) -> Iterator[dict[str, Any]]:
    from tqdm import tqdm

    takes, job = options.takes(), partial(write_clip, folder, options)
    bar = partial(tqdm, total=len(takes), desc="generating", unit="clip", disable=not progress)
    if workers <= 1:
        yield from bar(map(job, takes))
        return
    # Never forked: the caller may have threads (torch, pyarrow) that a forked child would wait for without end.
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            yield from bar(pool.map(job, takes, chunksize=4))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def ensure_generated(source: Path, *, workers: int = 2, progress: bool = True, **options: Any) -> Path:
    """Generate ``source`` unless it is there, complete and made with the same options; returns ``source``.

    Raises:
        UserError: the folder is a demo dataset of other options or of another version, or something else.
    """
    wanted = asdict(Options(**options))
    facts = source / "demo.json"
    if not facts.is_file():
        generate(source, **wanted, workers=workers, progress=progress)
        return source
    try:
        found = json.loads(facts.read_text(encoding="utf-8"))
        made, version = dict(found["options"]), found["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{facts}: damaged; delete the folder {source} and run the same command again") from error
    if version != FORMAT:
        raise UserError(f"{source}: made by another version of mmcl; delete the folder, or give another one")
    if differences := [f"{k} {made.get(k)} instead of {v}" for k, v in wanted.items() if made.get(k) != v]:
        raise UserError(f"{source}: a demo dataset with {', '.join(differences)}; delete it, or give another folder")
    return source
