"""The embedded demo dataset: synthetic people who act out twelve classes, their skeletons and their video.

Nothing in it was recorded. Bodies are posed by two-bone inverse kinematics from named motion primitives, watched by a
pinhole camera with a Kinect's geometry and noise, and drawn. Two pairs of classes share their movement and differ in
the object that is held, which the video shows and the skeleton does not.

Protocol ``demo/cross_subject``: odd subjects train, even subjects test. Subjects differ in proportions, speed,
amplitude, habits, preferred hand and clothes; a subject's companion in the two-person classes appears with no other
subject. For transfer to another layout, generate a second set with ``layout="kinect_v1_20"``, another seed and
``first_subject=101``: other people, other cameras, more noise, 20 joints.
"""

from __future__ import annotations

from mmcl.data.demo.build import Options, ensure_generated, generate

__all__ = ["Options", "ensure_generated", "generate"]
