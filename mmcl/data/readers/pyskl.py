"""Pickles of PYSKL and MMAction2: ``ntu60_3danno.pkl``, ``ntu120_hrnet.pkl``, ``gym_2d.pkl``, ``ucf101_2d.pkl``, ….

The lists under ``split`` become protocols: xsub_train and xsub_val (NTU's files) are ``own/xsub``, train and val
(``gym_2d.pkl``) ``own/split``, train1 and test1 (the first of the three splits of ``ucf101_2d.pkl``) ``own/1``.

Accepted are PYSKL's form, which MMAction2 1.x took over, a dictionary with ``annotations`` (a list) and ``split`` (name
-> list of clips); and MMAction2 0.x's, the bare list, one file a side. An annotation is a dictionary of

- ``frame_dir`` (or ``filename``): name of the clip;
- ``label``: class from 0; a clip without one is skipped;
- ``keypoint``: (M, T, V, C) of any float type, or another order of these. C = 3: metres, y up, as the sensor has them,
  or pixels and a score from 0 to 1 where the picture has a size. C = 2: pixels;
- ``keypoint_score``, if any: (M, T, V), 0 where a joint was not found; it is kept as the joints' confidence;
- ``img_shape`` or ``original_shape``, for C = 2: height and width of the picture.

Where ``total_frames`` is less than T, what follows is padding and is cut. Kinetics, whose joints lie in files of their
own (``raw_file``), is not read. Pickles are programs; :mod:`mmcl.data.readers.safe_pickle` sees to it that none of this
one is run.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mmcl.common.errors import BadClip, UserError
from mmcl.common.printing import complain
from mmcl.data.clip import ClipSource, RawClip
from mmcl.data.prompts import class_names
from mmcl.data.readers.array_order import arranged
from mmcl.data.readers.files import find_videos, require_folder
from mmcl.data.readers.joints import check_fps, clip_in_plane, clip_in_space
from mmcl.data.readers.naming import MAX_CLASSES, plain_classes, safe_name, unique_ids
from mmcl.data.readers.options import option
from mmcl.data.readers.safe_pickle import load_pickle
from mmcl.skeletons.believable import Remark
from mmcl.skeletons.layout import layout_names, load_layout

PIXELS = 20.0  # a coordinate beyond that is no metre
NTU = re.compile(r"S(\d{3})C(\d{3})P(\d{3})R(\d{3})A(\d{3})")
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
        self.annotations, self.lists = _content(source)
        self.names = [_name(entry, row) for row, entry in enumerate(self.annotations)]
        known = set(self.names)
        strangers = {listed: [name for name in names if name not in known] for listed, names in self.lists.items()}
        self.unmatched = {safe_name(listed): names for listed, names in strangers.items() if names}
        self.stems = [name.replace("\\", "/").rpartition("/")[2].removesuffix("_rgb") for name in self.names]
        self.is_ntu = all(map(NTU.fullmatch, self.stems))
        self.layout = str(options.layout or self._guess_layout())
        self.dimensions = 3 if self._most_common(3) == 3 else 2
        self.joints = load_layout(self.layout)
        labels = {row: label for row, entry in enumerate(self.annotations) if (label := _label(entry)) is not None}
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
        joints = self._most_common(2)
        if joints is None:
            raise UserError(f"{self.source}: no 'keypoint' of shape (bodies, frames, joints, coordinates) in it")
        if joints not in LAYOUTS:
            raise UserError(
                f"{self.source}: {joints} joints, of no layout known by that: add --layout NAME "
                f"({', '.join(layout_names())}) or your own layout file, --layout FILE.yaml"
            )
        return LAYOUTS[joints]

    def _most_common(self, axis: int) -> int | None:
        """The size that most arrays of keypoints have along an axis; None where there are no such arrays."""
        found = [_numbers(entry)[0] for entry in self.annotations if isinstance(entry, dict)]
        counts = Counter(array.shape[axis] for array in found if isinstance(array, np.ndarray) and array.ndim == 4)
        return counts.most_common(1)[0][0] if counts else None

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
                    label=_label(entry) or 0,
                    subject=subject,
                    camera=camera,
                    setup=setup,
                    trial=trial,
                    skeleton=str(self.source),
                    member=safe_name(name),
                    video=videos.get(stem) or videos.get(f"{stem}_rgb"),
                    splits=tuple(on.get(name, ())),
                    payload=_payload(entry),
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
        keypoint, score = source.payload["keypoint"], source.payload["score"]
        if keypoint.dtype.kind not in "fiu":
            raise BadClip(f"'keypoint' holds {keypoint.dtype}, not numbers")
        keypoint, remarks = arranged(keypoint, self.joints)
        if keypoint.shape[3] != self.dimensions:
            raise BadClip(f"{keypoint.shape[3]} coordinates a joint, most other clips have {self.dimensions}")
        if source.payload["frames"]:
            keypoint, score = keypoint[:, : source.payload["frames"]], _first(score, source.payload["frames"])
        remarks += source.payload["remarks"]
        if self.dimensions == 3:
            return replace(clip_in_space(keypoint, score), remarks=tuple(remarks))
        if source.payload["shape"] is None:
            raise BadClip("joints in pixels need the picture's 'img_shape' (height, width)")
        height, width = source.payload["shape"]
        return replace(clip_in_plane(keypoint, (width, height), score), remarks=tuple(remarks))

    def pixels(self, joints: np.ndarray, width: int, height: int) -> None:
        """None: joints in pixels bring them along, and for others the file says nothing about the camera."""
        return None


def _content(source: Path) -> tuple[list[Any], dict[str, list[str]]]:
    """Annotations and split lists of a file, whichever form it has."""
    content = load_pickle(source)
    lists: dict[str, list[str]] = {}
    if isinstance(content, dict):
        given, content = content.get("split", content.get("splits")), content.get("annotations")
        lists, unread = _lists(given)
        if unread:
            complain("warning", f"{source}: no lists of names, and not read: {', '.join(unread)[:80]} in 'split'")
    if not isinstance(content, list) or not any(isinstance(entry, dict) for entry in content):
        raise UserError(f"{source}: no list of annotations in it; expected PYSKL's or MMAction2's form of skeletons")
    return content, lists


def _lists(given: Any) -> tuple[dict[str, list[str]], list[str]]:
    """Lists of names, those in a dictionary of their own as ``outer_inner``, and what else there is."""
    if not isinstance(given, Mapping):
        return {}, [] if given is None else [type(given).__name__]
    lists: dict[str, list[str]] = {}
    unread = []
    for key, names in given.items():
        listed = _called(key)
        if isinstance(names, np.ndarray) and names.ndim == 1:
            names = names.tolist()
        if listed and isinstance(names, (list, tuple, set, frozenset)):
            said = [name for name in map(_called, names) if name]
            lists[listed] = said
            unread += [listed] * (len(said) < len(names))
        elif listed and isinstance(names, Mapping):
            inner, rest = _lists(names)
            lists |= {f"{listed}_{name}": members for name, members in inner.items()}
            unread += [f"{listed}_{name}" for name in rest]
        else:
            unread.append(listed or type(key).__name__)
    return lists, unread


def _called(name: Any) -> str:
    """A name of a clip or a list, which may be text, bytes or a number; "" where it is none of these."""
    if isinstance(name, bytes):
        return name.decode(errors="replace")
    number = isinstance(name, (int, np.integer)) and not isinstance(name, bool)
    return str(name) if number or isinstance(name, str) else ""


def _name(entry: Any, row: int) -> str:
    """What the file calls a clip; its place in the file where it has no name."""
    name = entry.get("frame_dir", entry.get("filename")) if isinstance(entry, dict) else None
    return _called(name) or f"annotation_{row:06d}"


def _label(entry: Any) -> int | None:
    label = entry.get("label") if isinstance(entry, dict) else None
    return int(label) if isinstance(label, (int, np.integer)) and 0 <= label < MAX_CLASSES else None


def _payload(entry: Any) -> dict[str, Any] | str:
    """What a worker needs of a clip, or why the clip cannot be used."""
    if not isinstance(entry, dict):
        return f"the annotation is a {type(entry).__name__}, not a dictionary"
    if _label(entry) is None:
        return "no 'label' that is a class number"
    keypoint, score, remarks = _numbers(entry)
    if not isinstance(keypoint, np.ndarray):
        return "no array 'keypoint'" + " (it lies in a file of its own, 'raw_file')" * ("raw_file" in entry)
    if score is not None and not (isinstance(score, np.ndarray) and score.dtype.kind in "fiu"):
        return "'keypoint_score' is not an array of numbers"
    total = entry.get("total_frames")
    frames = int(total) if isinstance(total, (int, np.integer)) and total > 0 else 0
    return {"keypoint": keypoint, "score": score, "shape": _shape(entry), "frames": frames, "remarks": remarks}


def _numbers(entry: dict[str, Any]) -> tuple[Any, Any, list[Remark]]:
    """Coordinates and scores of an annotation. Pixels may have their score as a third number."""
    keypoint, score = entry.get("keypoint"), entry.get("keypoint_score")
    if not isinstance(keypoint, np.ndarray) or score is not None or _shape(entry) is None:
        return keypoint, score, []
    if keypoint.ndim != 4 or keypoint.shape[3] != 3 or keypoint.dtype.kind != "f" or not keypoint.size:
        return keypoint, score, []
    third = keypoint[..., 2]
    sure, pixels = third[np.isfinite(third)], np.abs(keypoint[..., :2])
    if not (len(sure) and sure.min() >= 0 and sure.max() <= 1.001 and np.nanmax(pixels, initial=0) > PIXELS):
        return keypoint, score, []
    return keypoint[..., :2], third, [Remark("order", "the third number of each joint, beside pixels, is its score")]


def _first(score: np.ndarray | None, frames: int) -> np.ndarray | None:
    """Scores (M, T, V) of the first frames."""
    return None if score is None else score[:, :frames] if score.ndim >= 2 else score


def _shape(entry: dict[str, Any]) -> tuple[int, int] | None:
    """Height and width of the picture, where the annotation says them."""
    for key in ("img_shape", "original_shape"):
        shape = entry.get(key)
        if isinstance(shape, (tuple, list, np.ndarray)) and len(shape) >= 2:
            sides = list(shape[:2])
            if all(isinstance(side, (int, float, np.number)) and 0 < side < 1 << 16 for side in sides):
                return int(sides[0]), int(sides[1])
    return None
