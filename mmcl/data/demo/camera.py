"""The sensors that watch the demo's people: pinhole intrinsics, views of the stage, and measuring noise.

Camera space follows the Kinect: metres, y up, z away from the sensor, x growing to the *right of the image*. Kinect
images are mirrored, so somebody who faces the sensor shows their right hand at +x and on the right of the image;
right, up and facing then obey ``cross(right, up) . facing < 0``, as in NTU RGB+D and UTD-MHAD.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mmcl.data.demo.body import Array


@dataclass(frozen=True)
class Intrinsics:
    """A pinhole camera: image size, focal length and principal point in pixels."""

    width: int = 320
    height: int = 240
    focal: float = 285.6
    centre_x: float = 160.0
    centre_y: float = 120.0

    def project(self, points: Array) -> Array:
        """Camera space (..., 3) in metres -> pixels (..., 2), x to the right and y down."""
        depth = np.maximum(points[..., 2], 1e-3)
        u = self.centre_x + self.focal * points[..., 0] / depth
        v = self.centre_y - self.focal * points[..., 1] / depth
        return np.stack([u, v], -1)


@dataclass(frozen=True)
class View:
    """Where a camera stands: it looks at the middle of the stage.

    Attributes:
        yaw: degrees round the stage; 0 is in front.
        pitch: degrees that the camera looks down.
        height, distance: metres above the floor, and from the middle of the stage.
        tint: colour of the wall, RGB.
    """

    yaw: float
    pitch: float
    height: float
    distance: float
    tint: tuple[int, int, int]

    def to_camera(self, points: Array) -> Array:
        """Stage (..., 3) -> camera space (..., 3), metres."""
        yaw = np.radians(self.yaw)
        around = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
        return self.tilt(points @ around.T + np.array([0.0, -self.height, self.distance]))

    def tilt(self, points: Array) -> Array:
        """Level axes at the camera (..., 3) -> camera space (..., 3): the effect of the pitch."""
        pitch = np.radians(self.pitch)
        down = np.array([[1, 0, 0], [0, np.cos(pitch), np.sin(pitch)], [0, -np.sin(pitch), np.cos(pitch)]])
        return points @ down.T


@dataclass(frozen=True)
class Sensor:
    """What one model of Kinect delivers.

    Attributes:
        layout: the joints it reports.
        noise: standard deviation of a joint across the line of sight, metres; along it the double.
        views: the cameras of a recording, numbered from 1.
    """

    layout: str
    noise: float
    views: tuple[View, ...]
    intrinsics: Intrinsics = Intrinsics()


SENSORS = {
    "kinect_v2_25": Sensor("kinect_v2_25", 0.004, (
        View(0, 2, 1.05, 3.0, (150, 172, 190)), View(-32, 4, 1.15, 3.05, (190, 172, 142)),
        View(32, 4, 1.15, 3.05, (156, 182, 152)),
    )),
    "kinect_v1_20": Sensor("kinect_v1_20", 0.008, (
        View(-16, 8, 1.4, 3.2, (178, 160, 178)), View(18, 10, 1.5, 3.3, (172, 178, 180)),
    )),
}  # fmt: skip
