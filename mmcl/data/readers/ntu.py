"""NTU RGB+D 60 (Shahroudy et al., CVPR 2016) and NTU RGB+D 120 (Liu et al., TPAMI 2019): three Kinects v2.

``SsssCcccPpppRrrrAaaa.skeleton`` is setup, camera, performer, replication and action of a recording; the 60 actions of
the first data set are setups 1 to 17, the second has 120 in setups 1 to 32. The colour video, 1920x1080, is
``SsssCcccPpppRrrrAaaa_rgb.avi``, one frame for each skeleton frame.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import ClassVar

import numpy as np

from mmcl.common.errors import UserError
from mmcl.data.clip import ClipSource, RawClip
from mmcl.data.prompts import class_names
from mmcl.data.readers.files import Archive, entries, find_videos, read_bytes, require_folder
from mmcl.data.readers.naming import safe_name
from mmcl.data.readers.ntu_bodies import choose
from mmcl.data.readers.ntu_skeleton import parse

MOST_SETUPS, MOST_ACTIONS = 32, 120
NAME = re.compile(r"(S(\d{3})C(\d{3})P(\d{3})R(\d{3})A(\d{3}))\.skeleton")
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
VIDEO_FOLDERS = ("nturgb+d_rgb", "rgb")
LARGEST = 16 << 20  # bytes; six bodies, all the Kinect can see, for half a minute
EXPECTED = "--source is a folder of .skeleton files, the folder around it, or the official zip files as downloaded"


class NTU:
    """What both data sets share.

    Args:
        source: folder of the ``.skeleton`` files; a folder around it; an archive of them; or the folder that holds
            the official archives (``nturgbd_skeletons_*.zip``), read without unpacking.
        video: folder of the ``*_rgb.avi`` files (any container; or a folder of pictures of that name for each clip).
            Otherwise ``nturgb+d_rgb/`` or ``rgb/`` is looked for in ``source`` and, where the skeletons lie right in
            it, beside it.

    Attributes:
        actions: the data set is actions 1 to this one.
        setups: … recorded in setups 1 to this one.
        left_out: (id, reason) of the recordings that are there but, by the authors' list, of no use; from ``scan``.

    Raises:
        UserError: source or video folder does not exist, or an archive is damaged.
    """

    name: ClassVar[str]
    dataset: str
    title: str
    layout = "kinect_v2_25"
    fps = 30.0
    actions: int
    setups: int

    def __init__(self, source: Path, video: Path | None = None) -> None:
        if not source.exists():
            raise UserError(f"{source} does not exist; {EXPECTED}")
        require_folder(video, "the video folder")
        self.source, self.video = source, video
        self.archives = {str(path): Archive(path) for path in _archives(source)}
        self.class_names = class_names(self.dataset)
        self.left_out: list[tuple[str, str]] = []

    def scan(self) -> list[ClipSource]:
        """All recordings of the data set but those on the missing-skeleton list, sorted by id.

        Where a recording is there twice, unpacked files come before archives.

        Raises:
            UserError: none is there, or none has a video in the folder given as ``video``.
        """
        videos = self._videos()
        clips: dict[str, ClipSource] = {}
        missing: set[str] = set()
        strange: set[str] = set()
        for name, skeleton, member in self._files():
            match = NAME.fullmatch(name)
            if match is None:
                if ".skeleton" in name.lower():
                    strange.add(safe_name(name))
                continue
            if match[1] in clips:
                continue
            setup, camera, performer, replication, action = (int(match[field]) for field in range(2, 7))
            if not (1 <= setup <= self.setups and 1 <= action <= self.actions):
                if not (1 <= setup <= MOST_SETUPS and 1 <= action <= MOST_ACTIONS):  # of neither data set
                    strange.add(match[1])
                continue
            if match[1] in missing_skeletons():
                missing.add(match[1])
                continue
            clips[match[1]] = ClipSource(
                id=match[1],
                label=action - 1,
                subject=performer,
                camera=camera,
                setup=setup,
                trial=replication,
                skeleton=skeleton,
                member=member,
                video=videos.get(f"{match[1]}_rgb", videos.get(match[1])),
            )
        if not clips:
            raise UserError(f"{self.source}: no .skeleton file of {self.title} in it; {EXPECTED}")
        if self.video is not None and not any(clip.video for clip in clips.values()):
            raise UserError(f"{self.video}: no {min(clips)}_rgb.avi, nor a video of any other clip in it")
        self.left_out = [(name, "on the data set's list of missing skeletons") for name in sorted(missing)]
        self.left_out += [(name, "no name of a recording (SsssCcccPpppRrrrAaaa.skeleton)") for name in sorted(strange)]
        return [clips[name] for name in sorted(clips)]

    def _files(self) -> Iterator[tuple[str, str, str]]:
        """File name, path and, where the path is an archive, name inside it, of all that may be a recording."""
        if self.source.is_dir():
            inner = []
            for entry in entries(self.source):
                if entry.is_dir():
                    inner.append(Path(entry.path))
                else:
                    yield entry.name, entry.path, ""
            yield from ((entry.name, entry.path, "") for folder in inner for entry in entries(folder))
        for place, archive in self.archives.items():
            yield from ((name.rpartition("/")[2], place, name) for name in archive.names())

    def _videos(self) -> dict[str, str]:
        """Name without suffix -> video."""
        if self.video is not None:
            return find_videos(self.video)
        flat = self.source.is_file() or any(NAME.fullmatch(entry.name) for entry in entries(self.source))
        found: dict[str, str] = {}
        for parent in (self.source, self.source.absolute().parent) if flat else (self.source,):
            for name in VIDEO_FOLDERS:
                found = {**find_videos(parent / name), **found}
        return found

    def read(self, source: ClipSource) -> RawClip:
        """Read one recording: one or two bodies, in the frames in which one of them is there.

        Raises:
            BadClip: the file has gone, is damaged, or holds no body.
        """
        if source.member:
            data = self.archives[source.skeleton].read(source.member, LARGEST)
        else:
            data = read_bytes(source.skeleton, LARGEST)
        return choose(*parse(data))

    def pixels(self, joints: np.ndarray, width: int, height: int) -> None:
        """None: the files say themselves where the joints are in the picture."""


class NTU60(NTU):
    """NTU RGB+D 60: 56,578 clips of 60 actions."""

    name, dataset, title = "ntu60", "ntu60", "NTU RGB+D 60"
    actions, setups = 60, 17


class NTU120(NTU):
    """NTU RGB+D 120: 113,945 clips of 120 actions."""

    name, dataset, title = "ntu120", "ntu120", "NTU RGB+D 120"
    actions, setups = 120, 32


@cache
def missing_skeletons() -> frozenset[str]:
    """Names of the recordings that every protocol leaves out (those of NTU RGB+D 60 are its setups 1 to 17)."""
    text = Path(__file__).with_name("ntu_missing.txt").read_text(encoding="ascii")
    takes = [line.split() for line in text.splitlines() if not line.startswith("#")]
    return frozenset(f"{take}A{int(action):03d}" for take, *actions in takes for action in actions)


def _archives(source: Path) -> list[Path]:
    """Archives to read from: the source itself, or those with "skeleton" in their name right in the folder."""
    if source.is_file():
        return [source]
    names = [entry.name for entry in entries(source) if entry.name.lower().endswith(ARCHIVES) and entry.is_file()]
    return [source / name for name in names if "skeleton" in name.lower()]
