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
from collections.abc import Iterator
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
_NUMBER = re.compile(r"([0-9]+)[^0-9]*$")
Found = dict[int, list[np.ndarray]]  # frame -> people, each (V, 3): column, row, confidence


@dataclass(frozen=True)
class KeypointFilesOptions:
    """Options of :class:`KeypointFiles`.

    Attributes:
        weights: file of the keypoints of a video, or a folder that holds ``<video>.json``, or a folder ``<video>`` of
            one file a frame, for each.
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
        sample = self._sample()
        try:
            count = next((len(person) for people in read(sample).values() for person in people), 0)
        except BadClip as error:
            raise UserError(f"{sample}: {error}") from error
        if count not in LAYOUTS:
            known = ", ".join(map(str, LAYOUTS))
            raise UserError(f"{sample}: people of {count} keypoints; known are those of {known}")
        self.layout, self.joint_count = LAYOUTS[count], count
        self._found: Found = {}

    def _sample(self) -> Path:
        """A file, or a folder of one file a frame, that says how many keypoints there are."""
        if self.place.is_file() or any(self.place.glob("*_keypoints.json")):
            return self.place
        inner = sorted(self.place.glob("*.json")) or sorted(self.place.glob("*/"))
        if not inner:
            raise UserError(f"{self.place}: no keypoint files (.json) in it")
        return inner[0]

    def files(self, source: Path) -> list[Path]:
        """The file of a video's keypoints, or the folder of one file a frame; nothing where there is neither."""
        places = [self.place / f"{source.stem}.json", self.place / source.stem, self.place]
        return [place for place in places if place.is_file() or any(place.glob("*_keypoints.json"))][:1]

    def open(self, source: Path) -> None:
        """Read the keypoints of one video.

        Raises:
            BadClip: there are none, or they are damaged.
        """
        if not (places := self.files(source)):
            raise BadClip(f"{self.place} holds neither {source.stem}.json nor a folder {source.stem} of keypoints")
        self._found = read(places[0])

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


def read(place: Path) -> Found:
    """All people of a file, or of a folder of one file a frame.

    Raises:
        BadClip: no such JSON.
    """
    found: Found = {}
    if place.is_dir():
        for number, file in enumerate(sorted(place.glob("*_keypoints.json"))):
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
