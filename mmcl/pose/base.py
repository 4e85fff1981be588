"""What every pose estimator is: a picture goes in, the people in it come out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mmcl.common.options import build
from mmcl.pose import ESTIMATORS


@dataclass(frozen=True)
class Poses:
    """The P people found in one picture.

    Attributes:
        pixels: (P, V, 2) float32, column and row of each joint in the picture that was given; NaN where it is missing.
        confidence: (P, V) float32, how sure the estimator is of each joint, 0 to 1; 0 where it is missing.
        space: (P, V, 3) float32, metres, x to the right of the picture, y down, z away from the camera; the origin is
            anywhere in the body. None from estimators that know no depth.
    """

    pixels: np.ndarray
    confidence: np.ndarray
    space: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.pixels)

    def kept(self, people: list[int]) -> Poses:
        """Some of them, in that order."""
        space = None if self.space is None else self.space[people]
        return Poses(self.pixels[people], self.confidence[people], space)


class Estimator(ABC):
    """A pose estimator.

    It is made in one process and sent to another, in which :meth:`open` loads its weights: whoever makes one learns at
    once that an option or a file is wrong, and native code that hangs can be ended.

    A subclass sets ``options_type`` to its frozen dataclass of options, every field with a default.

    Args:
        options: of the subclass.

    Attributes:
        layout: name of the layout in which joints come.
        dimensions: 3 where :attr:`Poses.space` is given, else 2.
    """

    options_type: ClassVar[type]
    layout: str
    dimensions: int = 2

    def __init__(self, options: Any) -> None:
        self.options = options

    def files(self, source: Path) -> list[Path]:
        """Files that the result for a recording depends on, beside the recording itself."""
        weights = getattr(self.options, "weights", None)
        return [] if weights is None else [Path(weights)]

    def check(self, sources: Sequence[Path]) -> None:  # noqa: B027
        """Whether these recordings can be looked at together.

        Raises:
            UserError: what is there for one of them cannot be told from what is there for another.
        """

    def open(self, source: Path) -> None:  # noqa: B027
        """Make ready for a recording, in the process that looks at it.

        Args:
            source: the video, or whatever else is looked at.

        Raises:
            BadClip: there is nothing to be had for this recording.
        """

    @abstractmethod
    def find(self, picture: np.ndarray, frame: int, seconds: float) -> Poses:
        """Find the people in one picture.

        Args:
            picture: (H, W, 3) uint8 RGB.
            frame: number of the frame in its recording, from 0; increasing.
            seconds: since the first frame; increasing.
        """

    def close(self) -> None:  # noqa: B027
        """Let go of what :meth:`open` loaded."""


def build_estimator(name: str, options: Any = None) -> Estimator:
    """An estimator by name.

    Args:
        name: a name in ``ESTIMATORS``.
        options: its own dataclass, or a mapping with any of its fields.

    Raises:
        UserError: unknown name, options that are wrong, or a package or file that is missing.
    """
    found: Estimator = build(ESTIMATORS, name, options)
    return found


def nobody(joint_count: int, depth: bool) -> Poses:
    """What an estimator says of a picture without people."""
    space = np.zeros((0, joint_count, 3), dtype=np.float32) if depth else None
    return Poses(np.zeros((0, joint_count, 2), np.float32), np.zeros((0, joint_count), np.float32), space)


def check_poses(poses: Poses, joint_count: int) -> None:
    """Whether an estimator found bodies of as many joints as its layout has.

    Raises:
        ValueError: it found something else.
    """
    people = (len(poses.pixels), joint_count)
    shapes = [poses.pixels.shape == (*people, 2), poses.confidence.shape == people]
    shapes.append(poses.space is None or poses.space.shape == (*people, 3))
    if not all(shapes):
        found = f"pixels {poses.pixels.shape} and confidences {poses.confidence.shape}"
        raise ValueError(f"found {found}, and its layout has {joint_count} joints")
