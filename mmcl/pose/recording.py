"""Holds the people of a film with their joints over time, one array a person, and brings them to a steady rate."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from mmcl.common.errors import BadClip, UserError
from mmcl.pose.path import ANGLE
from mmcl.pose.smoothing import OneEuro
from mmcl.pose.timing import at_times, steady_times
from mmcl.pose.tracking import GAP
from mmcl.skeletons.layout import Layout

LONGEST_FRAME = 10.0  # seconds from one frame to the next, in the mean, of what is still a film


@dataclass(frozen=True)
class Refinement:
    """What is made of what the estimator found.

    Attributes:
        fps: frames a second of the result.
        mirrored: the film shows left and right exchanged, as Kinect's and many webcams' do.
        longest_gap: seconds out of sight that are filled in, and after which somebody who comes is somebody new.
        smooth: filter of joints over time; None leaves them as found.
        path: put bodies where they stand in the room; without, they stay around their own middle.
        angle: degrees that the picture's longer side covers.
    """

    fps: float = 30.0
    mirrored: bool = False
    longest_gap: float = GAP
    smooth: OneEuro | None = None
    path: bool = True
    angle: float = ANGLE

    def __post_init__(self) -> None:
        for name, value, low, high in (("fps", self.fps, 0.1, 1000), ("angle", self.angle, 5, 170),
                                       ("gap", self.longest_gap, 0, 60)):  # fmt: skip
            if not low <= value <= high:
                raise UserError(f"{name} is {value:g}: it must be from {low:g} to {high:g}")


@dataclass(frozen=True)
class Recording:
    """The M people of a film.

    Attributes:
        pixels: (M, T, V, 2) in the film's own pictures; NaN where missing.
        confidence: (M, T, V); 0 where missing.
        joints: (M, T, V, 3) metres, y up, as seen by a camera that does not mirror; NaN where missing. None from
            estimators that know no depth.
        seconds: (T,) since the film's first frame.
        frames: (T,) of the film, the nearest ones.
        picture: width and height.
        layout: of the joints.
        mirrored: the film's pictures, and so ``pixels``, show left on the right; joints are named as people have them.
    """

    pixels: np.ndarray
    confidence: np.ndarray
    joints: np.ndarray | None
    seconds: np.ndarray
    frames: np.ndarray
    picture: tuple[int, int]
    layout: Layout
    mirrored: bool = False

    @property
    def there(self) -> np.ndarray:
        """(M, T) bool: in which frames each person is."""
        return np.asarray((self.confidence > 0).any(axis=2))

    def part(self, frames: slice) -> Recording:
        """Some of its frames, with the people who are in them."""
        people = self.there[:, frames].any(axis=1)
        cut = {key: getattr(self, key)[people][:, frames] for key in ("pixels", "confidence")}
        joints = None if self.joints is None else self.joints[people][:, frames]
        return replace(self, joints=joints, seconds=self.seconds[frames], frames=self.frames[frames], **cut)

    @property
    def flat(self) -> np.ndarray:
        """(M, T, V, 2) pixels as a camera that does not mirror would show them."""
        return self.pixels * (-1, 1) + (self.picture[0], 0) if self.mirrored else self.pixels

    def columns(self) -> np.ndarray:
        """(M, T, V, 3 or 4) float32 as the ``folder`` form has it: xyzc in metres, or xyc in pixels."""
        values = self.flat if self.joints is None else self.joints
        values = np.where(self.confidence[..., None] > 0, values, 0)
        return np.concatenate([values, self.confidence[..., None]], axis=-1).astype(np.float32)


def upright(joints: np.ndarray, layout: Layout, mirrored: bool) -> np.ndarray:
    """Joints (…, V, 3) from a picture's axes to mmcl's: a half turn, so that nobody is mirrored unless the film is."""
    if mirrored:
        return np.asarray((joints * (1, -1, 1))[..., exchanged(layout), :])
    return np.asarray(joints * (-1, -1, 1))


def at_steady_rate(recording: Recording, fps: float) -> Recording:
    """The same at so many frames a second; as it is where its frames come at that rate.

    Raises:
        BadClip: its times leap, as those of a damaged film do.
    """
    count, length = len(recording.seconds), float(recording.seconds[-1] - recording.seconds[0])
    if length > LONGEST_FRAME * count:
        raise BadClip(f"{count} frames in {length:.0f} s: their times are damaged, or it is no film of a movement")
    wanted = steady_times(recording.seconds, fps)
    if wanted is None:
        return recording

    def moved(values: np.ndarray) -> np.ndarray:
        return at_times(values.swapaxes(0, 1), recording.seconds, wanted).swapaxes(0, 1)

    between = (recording.seconds[1:] + recording.seconds[:-1]) / 2
    nearest = np.searchsorted(between, wanted)
    confidence = np.where(recording.confidence > 0, recording.confidence, np.nan)
    return replace(
        recording, pixels=moved(recording.pixels), confidence=np.nan_to_num(moved(confidence)), seconds=wanted,
        joints=None if recording.joints is None else moved(recording.joints), frames=recording.frames[nearest],
    )  # fmt: skip


def smoothed(recording: Recording, smooth: OneEuro | None) -> Recording:
    """The same with joints filtered over time: those in the room, or else those in the picture."""
    if smooth is None:
        return recording
    if recording.joints is not None:
        joints = np.stack([smooth(person, recording.seconds) for person in recording.joints])
        return replace(recording, joints=joints)
    half = recording.picture[1] / 2  # the unit of joints in a plane
    pixels = np.stack([smooth(person / half, recording.seconds) * half for person in recording.pixels])
    return replace(recording, pixels=pixels)


def exchanged(layout: Layout) -> list[int]:
    """Order of the joints in which left and right have changed places."""
    order = list(range(layout.joint_count))
    for left, right in layout.left_right:
        order[left], order[right] = right, left
    return order
