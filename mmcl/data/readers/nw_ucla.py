"""Northwestern-UCLA Multiview Action 3D (Wang et al., CVPR 2014): 10 actions, 10 subjects, 3 views, Kinect v1.

The form that CTR-GCN's authors distribute: one JSON file a clip, ``aAA_sSS_eEE_vVV.json``, with ``skeletons`` (T, 20,
3) in metres and ``label`` from 1. ``ROOT`` is the folder of these files (``all_sqe``) or the archive they came in.
Clips of one frame and joints of all zeros occur and are kept: zero means missing everywhere in mmcl.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from mmcl.common.errors import BadClip, UserError
from mmcl.data.clip import ClipSource, RawClip
from mmcl.data.prompts import class_names
from mmcl.data.readers.files import Archive, find_videos, require_folder
from mmcl.data.readers.joints import zero_where_missing

JOINTS = 20
NAME = re.compile(r"(a(\d{1,9})_s(\d{1,9})_e(\d{1,9})_v(\d{1,9}))\.json")
# The a-numbers have gaps (7 and 10 were never released); their order is the order of the labels.
ACTIONS = (1, 2, 3, 4, 5, 6, 8, 9, 11, 12)


class NWUCLA:
    """Reader of the JSON files.

    Args:
        source: folder (any depth), ``.zip`` or ``.tar.gz`` of the files.
        video: folder of videos, or folders of pictures, named like the clips; the views' cameras are not known, so
            crops show the whole picture.

    Raises:
        UserError: the source or the video folder does not exist.
    """

    name = "nw-ucla"
    dataset = "nw_ucla"
    title = "NW-UCLA"
    layout = "kinect_v1_20"
    fps = 30.0

    def __init__(self, source: Path, video: Path | None = None) -> None:
        require_folder(video, "the video folder")
        self.files, self.video = Archive(source), video
        self.class_names = class_names(self.dataset)

    def scan(self) -> list[ClipSource]:
        """All clips, sorted by id; files of any other name are left alone.

        Where a clip is there twice, in two folders, the first in the order of their names counts.

        Raises:
            UserError: no file has the name of a clip.
        """
        videos = find_videos(self.video)
        clips: dict[str, ClipSource] = {}
        for member in self.files.names():
            match = NAME.fullmatch(member.rpartition("/")[2])
            if match is None or match[1] in clips or int(match[2]) not in ACTIONS:
                continue
            clips[match[1]] = ClipSource(
                id=match[1],
                label=ACTIONS.index(int(match[2])),
                subject=int(match[3]),
                camera=int(match[5]),
                trial=int(match[4]),
                skeleton=str(self.files.path),
                member=member,
                video=videos.get(match[1]),
            )
        if not clips:
            raise UserError(
                f"{self.files.path}: no aAA_sSS_eEE_vVV.json in it; --source is the folder all_sqe, or its archive"
            )
        return [clips[name] for name in sorted(clips)]

    def read(self, source: ClipSource) -> RawClip:
        """Read one file: joints (1, T, 20, 3) float32; one with a NaN is missing.

        Raises:
            BadClip: no such JSON, not (T, 20, 3) finite numbers, or the label in the file is not the one of its name.
        """
        content = _parse(self.files.read(source.member))
        if content.get("label") != source.label + 1:
            raise BadClip(f"its 'label' is {content.get('label')!r:.40}, its name says {source.label + 1}")
        try:
            joints = np.array(content["skeletons"], dtype=np.float32)
        except KeyError as error:
            raise BadClip("no 'skeletons' in the file") from error
        except (TypeError, ValueError, OverflowError) as error:
            raise BadClip(f"'skeletons' is no array of numbers ({error})") from error
        if joints.ndim != 3 or joints.shape[1:] != (JOINTS, 3):
            raise BadClip(f"'skeletons' has shape {joints.shape}, expected (frames, {JOINTS}, 3)")
        return RawClip(joints=zero_where_missing(joints)[None])

    def pixels(self, joints: np.ndarray, width: int, height: int) -> None:
        """None: where the three cameras look is not published."""
        return None


def _parse(raw: bytes) -> dict[str, Any]:
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError, too
        raise BadClip(f"not a JSON file ({type(error).__name__}: {error})") from error
    if not isinstance(content, dict):
        raise BadClip(f"the file holds a {type(content).__name__}, expected an object with 'skeletons' and 'label'")
    return content
