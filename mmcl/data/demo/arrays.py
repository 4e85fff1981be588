"""The demo's people as plain arrays, without videos: what examples take for somebody's own recordings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from mmcl.data.demo.actions import CLASS_NAMES
from mmcl.data.demo.build import Options, clip_name
from mmcl.data.demo.camera import SENSORS
from mmcl.data.demo.recording import observe
from mmcl.data.demo.scene import make_scene


class Take(NamedTuple):
    """One clip.

    Attributes:
        name: unique among the clips of a call.
        joints: (M, T, V, 3) float32, metres.
        action: name of its class.
        subject: number of the person.
    """

    name: str
    joints: np.ndarray
    action: str
    subject: int


def act(subjects: int, takes: int, seed: int = 0, layout: str = "kinect_v2_25") -> Iterator[Take]:
    """Let people act out the demo's twelve classes: the clips that ``mmcl prepare demo`` would make.

    Args:
        subjects: how many people.
        takes: of each class by each of them.
        seed: of everything random.
        layout: which sensor watches, kinect_v2_25 or kinect_v1_20.

    Raises:
        UserError: numbers below 1, or another layout.
    """
    options = Options(subjects=subjects, clips_per_subject=takes, seed=seed, layout=layout)
    for label, subject, trial in options.takes():
        joints = observe(make_scene(label, subject, trial, seed, SENSORS[layout]))
        yield Take(clip_name(label, subject, trial), joints, CLASS_NAMES[label], subject)
