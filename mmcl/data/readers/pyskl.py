"""Pickles of PYSKL and MMAction2: ``ntu60_3danno.pkl``, ``ntu120_hrnet.pkl``, ``gym_2d.pkl``, ``ucf101_2d.pkl``, ….

The lists under ``split`` become protocols: xsub_train and xsub_val (NTU's files) are ``own/xsub``, train and val
(``gym_2d.pkl``) ``own/split``, train1 and test1 (the first of the three splits of ``ucf101_2d.pkl``) ``own/1``.

Accepted are PYSKL's form, which MMAction2 1.x took over, a dictionary with ``annotations`` (a list) and ``split`` (name
-> list of clips); and MMAction2 0.x's, the bare list, one file a side. An annotation is a dictionary of

- ``frame_dir`` (or ``filename``): name of the clip;
- ``label``: class from 0, as any kind of number; a clip without one is skipped;
- ``keypoint``: (M, T, V, C) of any float type, or another order of these. C = 3: metres, y up, as the sensor has them,
  or pixels and a score from 0 to 1 where the picture has a size. C = 2: pixels;
- ``keypoint_score``, if any: (M, T, V), or in the order of ``keypoint``, 0 where a joint was not found; it is kept as
  the joints' confidence;
- ``img_shape`` or ``original_shape``, for C = 2: height and width of the picture.

Where ``total_frames`` is less than T, what follows is padding and is cut. Kinetics, whose joints lie in files of their
own (``raw_file``), is not read. Pickles are programs; :mod:`mmcl.data.readers.safe_pickle` sees to it that none of this
one is run.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mmcl.common.errors import BadClip, UserError
from mmcl.data.clip import ClipSource, RawClip
from mmcl.data.prompts import class_names
from mmcl.data.readers.files import find_videos, require_folder
from mmcl.data.readers.joints import check_fps, clip_in_plane, clip_in_space
from mmcl.data.readers.naming import plain_classes, safe_name, unique_ids
from mmcl.data.readers.options import option
from mmcl.data.readers.pyskl_content import clip_name, content_of, coordinates_of, label_of, most_dimensions, payload_of
from mmcl.skeletons.layout import layout_names, load_layout

NTU = re.compile(r"S(\d{3})C(\d{3})P(\d{3})R(\d{3})A(\d{3})")
MOST_BODIES = 100  # in an annotation: films of crowds have more than one's own clips
LAYOUTS = {
    17: "coco_17", 18: "openpose_18", 20: "kinect_v1_20", 25: "kinect_v2_25", 26: "halpe_26",
    65: "coco_wholebody_65", 133: "coco_wholebody_133",
}  # fmt: skip


@dataclass(frozen=True)
class PySKLOptions:
    """Options of the reader."""

    layout: str | None = option(
        None, "which joints the file holds: a layout's name or .yaml file; by default their number says it", "NAME"
    )
    fps: float = option(30.0, "frames per second of the recordings", "F")


class PySKL:
    """Reader of one pickle.

    Args:
        source: the ``.pkl`` file.
        video: folder of videos, or of folders of pictures, named ``<frame_dir>`` or ``<frame_dir>_rgb``.
        options: see :class:`PySKLOptions`.

    Attributes:
        dataset: "ntu60" or "ntu120" where every clip is called as NTU's are and labelled with the action of its name
            (ntu120 where a setup or an action is one that only it has), else the file's name.
        dimensions: coordinates of a joint, by most annotations; others are refused.
        unmatched: list -> names on it that no clip has.

    Raises:
        UserError: no such file, it is no such pickle, it asks for code, or its joints are of no known layout.
    """

    name = "pyskl"
    options_type = PySKLOptions

    def __init__(self, source: Path, video: Path | None = None, options: PySKLOptions = PySKLOptions()) -> None:
        require_folder(video, "the video folder")
        check_fps(options.fps)
        self.source, self.video, self.options, self.fps = source, video, options, options.fps
        self.annotations, self.lists = content_of(source)
        self.names = [clip_name(entry, row) for row, entry in enumerate(self.annotations)]
        known = set(self.names)
        strangers = {listed: [name for name in names if name not in known] for listed, names in self.lists.items()}
        self.unmatched = {safe_name(listed): names for listed, names in strangers.items() if names}
        self.stems = [name.replace("\\", "/").rpartition("/")[2].removesuffix("_rgb") for name in self.names]
        self.is_ntu = all(map(NTU.fullmatch, self.stems))
        self.layout = str(options.layout or self._guess_layout())
        self.joints = load_layout(self.layout)
        self.dimensions = most_dimensions(self.annotations, self.joints, MOST_BODIES)
        labels = {row: label for row, entry in enumerate(self.annotations) if (label := label_of(entry)) is not None}
        count = max(labels.values(), default=0) + 1
        # A selection of NTU's classes may be numbered anew, and then NTU's names of classes are not its own.
        if (
            self.is_ntu
            and count <= 120
            and all(label == int(self.stems[row][-3:]) - 1 for row, label in labels.items())
        ):
            setups = max(int(stem[1:4]) for stem in self.stems)
            self.dataset = "ntu120" if setups > 17 or count > 60 else "ntu60"
            self.title = f"NTU RGB+D {self.dataset[3:]}"
            self.class_names = class_names(self.dataset)
        else:
            self.dataset = self.title = safe_name(source.stem)
            self.class_names = plain_classes(count)

    def __getstate__(self) -> dict[str, Any]:
        # Worker processes get each clip with its source; the whole file, they need not.
        return self.__dict__ | {"annotations": [], "lists": {}, "names": [], "stems": [], "unmatched": {}}

    def _guess_layout(self) -> str:
        found = [entry.get("keypoint") for entry in self.annotations if isinstance(entry, dict)]
        counts = Counter(array.shape[-2] for array in found if isinstance(array, np.ndarray) and array.ndim in (3, 4))
        joints = counts.most_common(1)[0][0] if counts else None
        if joints is None:
            raise UserError(f"{self.source}: no 'keypoint' of shape (bodies, frames, joints, coordinates) in it")
        if joints not in LAYOUTS:
            raise UserError(
                f"{self.source}: {joints} joints, of no layout known by that: add --layout NAME "
                f"({', '.join(layout_names())}) or your own layout file, --layout FILE.yaml"
            )
        return LAYOUTS[joints]

    def scan(self) -> list[ClipSource]:
        """All annotations, sorted by id, each with its arrays.

        Raises:
            UserError: there are none.
        """
        videos = find_videos(self.video)
        on: dict[str, list[str]] = {}
        for listed, names in self.lists.items():
            for name in dict.fromkeys(names):
                on.setdefault(name, []).append(safe_name(listed))
        ids = unique_ids(self.stems if self.is_ntu else self.names)
        clips = []
        for entry, name, stem, clip_id in zip(self.annotations, self.names, self.stems, ids, strict=True):
            match = NTU.fullmatch(stem) if self.is_ntu else None
            setup, camera, subject, trial = map(int, match.groups()[:4]) if match else (1, 1, 0, 1)
            clips.append(
                ClipSource(
                    id=clip_id,
                    label=label_of(entry) or 0,
                    subject=subject,
                    camera=camera,
                    setup=setup,
                    trial=trial,
                    skeleton=str(self.source),
                    member=safe_name(name),
                    video=videos.get(stem) or videos.get(f"{stem}_rgb"),
                    splits=tuple(on.get(name, ())),
                    payload=payload_of(entry),
                )
            )
        return sorted(clips, key=lambda clip: clip.id)

    def read(self, source: ClipSource) -> RawClip:
        """The clip that came with the source: joints (M, T, V, C) float32, in two dimensions pixels, too.

        Raises:
            BadClip: no label, no joints, not the layout's, or no size of the picture for joints in pixels.
        """
        if not isinstance(source.payload, dict):
            raise BadClip(str(source.payload))
        keypoint, score, remarks = coordinates_of(source.payload, self.joints, MOST_BODIES)
        if keypoint.shape[3] != self.dimensions:
            raise BadClip(f"{keypoint.shape[3]} coordinates a joint, most other clips have {self.dimensions}")
        if source.payload["frames"]:
            keypoint, score = keypoint[:, : source.payload["frames"]], _first(score, source.payload["frames"])
        if self.dimensions == 3:
            return replace(clip_in_space(keypoint, score), remarks=tuple(remarks))
        if source.payload["shape"] is None:
            raise BadClip("joints in pixels need the picture's 'img_shape' (height, width)")
        height, width = source.payload["shape"]
        return replace(clip_in_plane(keypoint, (width, height), score), remarks=tuple(remarks))

    def pixels(self, joints: np.ndarray, width: int, height: int) -> None:
        """None: joints in pixels bring them along, and for others the file says nothing about the camera."""
        return None


def _first(score: np.ndarray | None, frames: int) -> np.ndarray | None:
    """Scores (M, T, V) of the first frames."""
    return None if score is None else score[:, :frames] if score.ndim >= 2 else score
