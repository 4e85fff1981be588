"""Keypoints that another program has written: JSON of OpenPose, AlphaPose and COCO.

- OpenPose writes a file a frame, ``NAME_000000000012_keypoints.json``, with ``people``, each with
  ``pose_keypoints_2d``.
- AlphaPose writes one list of people for a video; ``image_id`` is a picture's name, ``12.jpg``.
- COCO is such a list with whole numbers as ``image_id``, or ``images`` and ``annotations``.

The number of keypoints says which layout they are in.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mmcl.common.errors import BadClip, UserError
from mmcl.data.readers.clip_file import TEXT_LIMIT
from mmcl.data.readers.files import read_bytes
from mmcl.pose.base import Estimator, Poses, nobody

LAYOUTS = {17: "coco_17", 18: "openpose_18", 25: "openpose_25", 26: "halpe_26", 133: "coco_wholebody_133"}
DIGITS = 18  # of a frame's number at most
FRAMES = "*_keypoints.json"  # OpenPose's files, one a frame
FOLDERS = 4  # that a video may be in, which the name of its keypoints may repeat
_NUMBER = re.compile(r"([0-9]+)[^0-9]*$")
Found = dict[int, list[np.ndarray]]  # frame -> people, each (V, 3): column, row, confidence


@dataclass(frozen=True)
class KeypointFilesOptions:
    """Options of :class:`KeypointFiles`.

    Attributes:
        weights: file of the keypoints of a video, or a folder that holds ``<video>.json``, or a folder ``<video>`` of
            one file a frame, for each. Of videos in folders, ``wave/01.mp4`` has ``wave/01.json`` or ``wave_01.json``;
            ``01.json`` is taken where there is neither.
        first: number that the first frame has in these files.
    """

    weights: str | None = None
    first: int = 0


class KeypointFiles(Estimator):
    """Looks up what was found in each frame; pictures are not looked at."""

    options_type: ClassVar[type] = KeypointFilesOptions

    def __init__(self, options: KeypointFilesOptions) -> None:
        super().__init__(options)
        if options.weights is None:
            raise UserError("the estimator file needs the keypoints: --weights FILE.json, or a folder of such files")
        self.place = Path(options.weights)
        self.joint_count = self._count()
        self.layout = LAYOUTS[self.joint_count]
        self._found: Found = {}

    def _count(self) -> int:
        """Keypoints of the first person that there is in the files."""
        files = [self.place] if _holds(self.place) else sorted(self.place.rglob("*.json"))
        samples = dict.fromkeys(file.parent if file.match(FRAMES) else file for file in files)
        if not samples:
            raise UserError(f"{self.place}: no keypoint files (.json) in it")
        for sample in samples:
            try:
                found = read(sample)
            except BadClip as error:
                raise UserError(f"{sample}: {error}") from error
            for person in (person for people in found.values() for person in people):
                if len(person) not in LAYOUTS:
                    known = ", ".join(map(str, LAYOUTS))
                    raise UserError(f"{sample}: people of {len(person)} keypoints; known are those of {known}")
                return len(person)
        raise UserError(f"{self.place}: nobody is in the keypoints of any video")

    def _place_of(self, source: Path) -> Path | None:
        """The file of a video's keypoints, or the folder of one file a frame; None where there is neither."""
        parts = [part for part in source.with_suffix("").parts if part not in (source.anchor, "..")]
        ends = [parts[-depth:] for depth in range(min(FOLDERS, len(parts)), 0, -1)]
        names = dict.fromkeys(mark.join(end) for end in ends for mark in "/_")
        places = [self.place / f"{name}{suffix}" for name in names for suffix in (".json", "")]
        return next((place for place in (*places, self.place) if _holds(place)), None)

    def files(self, source: Path) -> list[Path]:
        """The file of a video's keypoints, or all of the folder's; nothing where there is neither."""
        place = self._place_of(source)
        if place is None or place.is_file():
            return [] if place is None else [place]
        return sorted(place.glob(FRAMES))

    def check(self, sources: Sequence[Path]) -> None:
        """Whether each video has keypoints of its own.

        Raises:
            UserError: two would get the same.
        """
        owners: dict[Path, Path] = {}
        for source in sources:
            place = self._place_of(source)
            if place is not None and (other := owners.setdefault(place, source)) != source:
                raise UserError(
                    f"{place} would be the keypoints of two videos, {other} and {source}: name each after its video "
                    f"and folder, such as {source.parent.name}/{source.stem}.json"
                )

    def open(self, source: Path) -> None:
        """Read the keypoints of one video.

        Raises:
            BadClip: there are none, or they are damaged.
        """
        place = self._place_of(source)
        if place is None:
            raise BadClip(f"{self.place} holds neither {source.stem}.json nor a folder {source.stem} of keypoints")
        self._found = read(place)

    def find(self, picture: np.ndarray, frame: int, seconds: float) -> Poses:
        """The people of that frame; another number of keypoints than in the first file is a BadClip."""
        people = self._found.get(frame + self.options.first)
        if not people:
            return nobody(self.joint_count, depth=False)
        if any(len(person) != self.joint_count for person in people):
            raise BadClip(f"frame {frame}: people of other than {self.joint_count} keypoints")
        values = np.stack(people).astype(np.float32)
        missing = ~(values[..., 2] > 0) | ~np.isfinite(values).all(axis=-1)
        confidence = np.where(missing, 0, values[..., 2]).clip(0, 1).astype(np.float32)
        return Poses(np.where(missing[..., None], np.float32(np.nan), values[..., :2]), confidence)


def _holds(place: Path) -> bool:
    """Whether a file or folder is the keypoints of one video."""
    return place.is_file() or any(place.glob(FRAMES))


def read(place: Path) -> Found:
    """All people of a file, or of a folder of one file a frame.

    Raises:
        BadClip: no such JSON.
    """
    found: Found = {}
    if place.is_dir():
        for number, file in enumerate(sorted(place.glob(FRAMES))):
            named = re.search(r"_([0-9]+)_keypoints$", file.stem)
            content = _json(file)
            people = content.get("people") if isinstance(content, dict) else None
            if not isinstance(people, list | None):
                raise BadClip(f"{file.name}: 'people' is no list")
            rows = [_person(person, "pose_keypoints_2d") for person in people or []]
            found[int(named.group(1)) if named else number] = [row for row in rows if row is not None]
        return found
    for frame, person in _listed(_json(place)):
        if (row := _person(person, "keypoints")) is not None:
            found.setdefault(frame, []).append(row)
    if flags := [row for people in found.values() for row in people]:
        third = np.concatenate([row[:, 2] for row in flags])
        if third.max() == 2 and np.isin(third, (0, 1, 2)).all():  # COCO's flags: missing, hidden, seen
            for row in flags:
                row[:, 2] /= 2
    return found


def _listed(content: Any) -> Iterator[tuple[int, Any]]:
    """(frame, person) of AlphaPose's and COCO's lists."""
    numbers: dict[Any, int] = {}
    if isinstance(content, dict) and isinstance(content.get("annotations"), list):
        listed = content.get("images")
        images = [image for image in listed if isinstance(image, dict)] if isinstance(listed, list) else []
        numbers = {_name(image.get("id")): _frame(image.get("file_name", image.get("id"))) for image in images}
        content = content["annotations"]
    if not isinstance(content, list):
        raise BadClip("neither a list of people with image_id and keypoints, nor images and annotations")
    for person in content:
        if not isinstance(person, dict) or "image_id" not in person:
            raise BadClip("a person without image_id")
        frame = _name(person["image_id"])
        yield numbers[frame] if frame in numbers else _frame(frame), person


def _name(name: Any) -> int | str:
    """What a list calls a picture."""
    if isinstance(name, float) and name.is_integer():
        return int(name)
    if not isinstance(name, int | str):
        raise BadClip(f"a picture is called {str(name)[:40]}, which is neither a number nor a name")
    return name


def _frame(name: Any) -> int:
    """The number of a frame by a picture's name or number."""
    name = _name(name)
    if isinstance(name, int):
        return name
    found = _NUMBER.search(Path(name).stem)
    if found is None or len(found.group(1)) > DIGITS:
        raise BadClip(f"the picture '{name:.40}' has no number of a frame")
    return int(found.group(1))


def _person(person: Any, key: str) -> np.ndarray | None:
    """(V, 3), or None for a person of no keypoints."""
    try:
        values = np.array(person[key], dtype=np.float64).reshape(-1, 3)
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        raise BadClip(f"a person without {key} of three numbers each ({error})") from error
    return values if len(values) else None


def _json(file: Path) -> Any:
    try:
        return json.loads(read_bytes(file, TEXT_LIMIT))
    except (ValueError, RecursionError) as error:
        raise BadClip(f"{file.name} is not JSON ({error})") from error
