"""Videos in, a folder of skeleton clips out: the ``folder`` form, which ``mmcl prepare`` and ``mmcl predict`` read.

``clips.csv`` lists the clips, ``folder.yaml`` says how their files are to be read, ``skeletons/ID.npy`` holds (persons,
frames, joints, 4) metres and confidence, or 3 in pixels, ``recordings/ID.json`` says what was done and how good it is.
A video that has its record is not looked at again, unless it or the options have changed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from mmcl.common.errors import UserError
from mmcl.common.files import absolute, atomic_file, check_place, write_json, write_text
from mmcl.common.printing import complain
from mmcl.data.readers.clip_list import LIST
from mmcl.data.readers.folder_options import FACTS
from mmcl.data.readers.list_files import read_list
from mmcl.pose.base import Estimator
from mmcl.pose.film import Facts
from mmcl.pose.gathering import gather
from mmcl.pose.listing import CLIPS, free_name, write_list
from mmcl.pose.quality import Quality, judge
from mmcl.pose.recording import Recording, Refinement
from mmcl.pose.sheet import strip, write_sheet
from mmcl.pose.timing import runs
from mmcl.pose.videos import Video
from mmcl.pose.watching import share, watched
from mmcl.pose.worker import TIMEOUT, Glance, Watch
from mmcl.skeletons.layout import load_layout

RECORDS, PICTURES, SHEET = "recordings", "pictures", "contact_sheet.jpg"


@dataclass(frozen=True)
class Estimation:
    """How videos are looked at.

    Attributes:
        name: of the estimator.
        estimator: the same, made.
        how: what is made of what it finds.
        cut: a clip of each stretch with somebody in it, where nobody is seen for longer than a gap may be.
        timeout: seconds for one frame.
        sheet: keep small pictures, for the contact sheet.
    """

    name: str
    estimator: Estimator
    how: Refinement
    cut: bool = False
    timeout: float = TIMEOUT
    sheet: bool = True

    def key(self, video: Video) -> str:
        """Digest of all that a result depends on."""
        files = [os.stat(path) for path in (video.path, *self.estimator.files(video.path)) if path.exists()]
        states = [(state.st_size, state.st_mtime_ns) for state in files]
        facts = [self.name, asdict(self.estimator.options), asdict(self.how), self.cut, states]
        return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def record_of(
    watch: Watch, work: Estimation, title: str, progress: bool, enough: Callable[[Glance], bool] | None = None
) -> Recording:
    """Look at one film.

    Raises:
        BadClip: it cannot be read, or nobody is in it.
    """
    glances = list(watched(watch, title, progress, enough))
    facts: Facts = watch.facts
    return gather(glances, (facts.width, facts.height), load_layout(work.estimator.layout), work.how)


class PoseFolder:
    """The folder of results.

    Args:
        path: where it is, or shall be.
        work: how videos are looked at.
        progress: show bars.
        videos: those that will be looked at: no part of one gets the name of another.

    Raises:
        UserError: something else is there, results of another kind of joints, a list that cannot be read, or videos
            that the estimator cannot tell apart.
    """

    def __init__(self, path: Path, work: Estimation, progress: bool = True, videos: Sequence[Video] = ()) -> None:
        self.path, self.work, self.progress = path, work, progress
        work.estimator.check([video.path for video in videos])
        check_place(path)
        if path.exists() and not ((path / RECORDS).is_dir() or (path.is_dir() and not any(path.iterdir()))):
            raise UserError(f"{path} exists and holds something else: choose another --out")
        for inner in (RECORDS, CLIPS, *((PICTURES,) if work.sheet else ())):
            (path / inner).mkdir(parents=True, exist_ok=True)
        depth = work.estimator.dimensions == 3
        facts = {"layout": work.estimator.layout, "fps": work.how.fps, "columns": "xyzc" if depth else "xyc"}
        text = yaml.safe_dump(facts, sort_keys=False)
        if (path / FACTS).is_file() and (path / FACTS).read_text(encoding="utf-8") != text:
            raise UserError(f"{path} holds clips of other joints or another frame rate: choose another --out")
        if (path / LIST).exists():
            read_list(path / LIST)  # whoever wrote in it shall hear now that it cannot be read, and not after hours
        write_text(path / FACTS, text)
        self._told = {video.id for video in videos if video.told}
        self._owners = {video.id: video.id for video in videos}
        self._owners |= {clip["id"]: name for name, record in self._records() for clip in record["clips"]}

    def done(self, video: Video) -> dict[str, Any] | None:
        """The record of a video that has been looked at in this way."""
        try:
            record: dict[str, Any] = json.loads((self.path / RECORDS / f"{video.id}.json").read_text(encoding="utf-8"))
            clips, same = record["clips"], record["key"] == self.work.key(video)
            there = bool(clips) and all((self.path / clip["file"]).is_file() for clip in clips)
            return record if same and there else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def relabel(self, video: Video, record: dict[str, Any]) -> None:
        """Put a label that is told now into the record of a video that was done before."""
        if video.told and any(clip["label"] != video.label for clip in record["clips"]):
            record["clips"] = [clip | {"label": video.label} for clip in record["clips"]]
            write_json(self.path / RECORDS / f"{video.id}.json", record)

    def estimate(self, video: Video) -> dict[str, Any]:
        """Look at one video; the record that is kept.

        Raises:
            BadClip: it cannot be read, or nobody is in it.
        """
        watch = Watch(self.work.estimator, video.path, self.work.how.fps, self.work.timeout)
        recording = record_of(watch, self.work, video.id, self.progress)
        return self.keep(video, recording, watch, self.work.key(video))

    def keep(self, video: Video, recording: Recording, watch: Watch, key: str) -> dict[str, Any]:
        """Write a recording's clips and its record, the record last."""
        quality = judge(recording, share(watch.facts, watch.end))
        parts = runs(np.asarray(recording.there.any(axis=0))) if self.work.cut else [slice(None)]
        others = {name for name, owner in self._owners.items() if owner != video.id}
        clips: list[dict[str, Any]] = []
        place = _listed(video.path)
        for number, frames in enumerate(parts, 1):
            name = free_name(video.id if len(parts) == 1 else f"{video.id}-{number}", others)
            part = recording.part(frames)
            whole = len(part.frames) == len(recording.frames)  # pictures of a part would not be those of its joints
            with atomic_file(self.path / CLIPS / f"{name}.npy") as temporary, temporary.open("wb") as file:
                np.save(file, part.columns())
            clips.append({
                "id": name, "label": video.label, "file": f"{CLIPS}/{name}.npy", "persons": len(part.pixels),
                "video": place if whole else "",
                "begin": round(float(part.seconds[0]), 4), "end": round(float(part.seconds[-1]), 4),
                "width": recording.picture[0], "height": recording.picture[1],
            })  # fmt: skip
        if self.work.sheet:
            with atomic_file(self.path / PICTURES / f"{video.id}.jpg") as temporary:
                strip(recording, watch.tiles, video.id, str(quality)).save(temporary, "JPEG", quality=88)
        self._forget(video, {clip["id"] for clip in clips})
        record = {"key": key, "estimator": self.work.name, "clips": clips, "quality": quality.to_json()}
        write_json(self.path / RECORDS / f"{video.id}.json", record)
        self._owners |= {clip["id"]: video.id for clip in clips}
        return record

    def _forget(self, video: Video, kept: set[str]) -> None:
        """Remove clips that an earlier call made of a video and this one does not, before the new record is there."""
        for name in [name for name, owner in self._owners.items() if owner == video.id and name not in kept]:
            (self.path / CLIPS / f"{name}.npy").unlink(missing_ok=True)
            del self._owners[name]

    def finish(self) -> list[dict[str, Any]]:
        """Write the list of clips and the contact sheet from all records; what somebody wrote into the list stays.

        Raises:
            UserError: the list cannot be read.
        """
        records = self._records()
        told = {clip["id"] for name, record in records if name in self._told for clip in record["clips"]}
        write_list(self.path / LIST, [record for _, record in records], told)
        if self.work.sheet:
            write_sheet(sorted((self.path / PICTURES).glob("*.jpg")), self.path / SHEET)
        return [record for _, record in records]

    def _records(self) -> list[tuple[str, dict[str, Any]]]:
        """The recordings that have been looked at, by name; without those that are damaged, which is said."""
        found = []
        for path in sorted((self.path / RECORDS).glob("*.json")):
            try:
                record = json.loads(path.read_text(encoding="utf-8"))
                complete = all(isinstance(clip["id"], str) for clip in record["clips"])
            except (OSError, ValueError, KeyError, TypeError, RecursionError):
                complete = False
            if complete:
                found.append((path.stem, record))
            else:
                complain("warning", f"{path} is damaged: what it says is left out")
        return found


def _listed(path: Path) -> str:
    """A video as the list of clips names it; "" where that is no line of text, or the video is a camera's."""
    place = str(absolute(path)) if path.is_file() else ""
    if place.isprintable():
        return place
    complain("warning", f"{path}: its path has letters that no list can hold: its clips are listed without their video")
    return ""


def quality_of(record: dict[str, Any]) -> Quality:
    """The quality that a record holds."""
    facts = dict(record["quality"])
    return Quality(**{**facts, "reasons": tuple(facts["reasons"])})
