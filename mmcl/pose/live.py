"""People in the frames of a camera, as they come: who each is, and where their joints are in the room."""

from __future__ import annotations

import numpy as np

from mmcl.pose.path import DEPTH, SIDEWAYS, places
from mmcl.pose.recording import Refinement, exchanged, upright
from mmcl.pose.tracking import Tracker
from mmcl.pose.worker import Glance
from mmcl.skeletons.layout import Layout


class Live:
    """Follows people.

    Nothing is known of the next frame, so places are smoothed backwards alone, and gaps stay.

    Args:
        layout: of the estimator's joints.
        picture: width and height of the film.
        how: what is made of what the estimator finds.
    """

    def __init__(self, layout: Layout, picture: tuple[int, int], how: Refinement) -> None:
        self.layout, self.picture, self.how = layout, picture, how
        self._tracker = Tracker(how.longest_gap)
        self._ways: dict[int, tuple[float, np.ndarray]] = {}  # person -> seconds, and the smoothed (x/z, y/z, log z)

    def step(self, glance: Glance) -> dict[int, np.ndarray]:
        """Number of each person of a frame -> (V, 4) float32: joints in metres, y up, and confidence; missing: zero."""
        poses, numbers = self._tracker.follow(glance.seconds, glance.poses)
        found = {}
        for row, number in enumerate(numbers):
            assert poses.space is not None
            joints = poses.space[row].astype(np.float64)
            if self.how.path:
                joints = joints + self._place(number, glance.seconds, joints, poses.pixels[row], poses.confidence[row])
            joints = upright(joints, self.layout, self.how.mirrored)
            sure = poses.confidence[row][exchanged(self.layout) if self.how.mirrored else slice(None)]
            there = (sure > 0) & np.isfinite(joints).all(axis=-1)
            found[number] = np.where(there[:, None], np.c_[joints, sure], 0).astype(np.float32)
        return found

    def _place(
        self, number: int, seconds: float, joints: np.ndarray, pixels: np.ndarray, confidence: np.ndarray
    ) -> np.ndarray:
        """(3,) where a person stands; where this frame does not show it, as before."""
        place = places(joints[None], pixels[None], confidence[None], self.picture, self.how.angle)[0]
        before = self._ways.get(number)
        if np.isfinite(place).all():
            now = np.array([place[0] / place[2], place[1] / place[2], np.log(place[2])])
            if before is not None:
                spans = np.array([SIDEWAYS, SIDEWAYS, DEPTH])
                share = 1 - np.exp(-(seconds - before[0]) / spans)
                now = share * now + (1 - share) * before[1]
            self._ways[number] = seconds, now
        elif before is None:
            return np.zeros(3)
        else:
            now = before[1]
        depth = float(np.exp(now[2]))
        return np.array([now[0] * depth, now[1] * depth, depth])
