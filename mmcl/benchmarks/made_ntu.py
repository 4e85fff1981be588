"""Clip stores as large as NTU RGB+D 60 and 120, without a recording in them: random joints, labels in turn."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from mmcl.data.preparation.finish import finish
from mmcl.data.preparation.parts import Parts
from mmcl.data.prompts import class_names
from mmcl.data.protocols import load_protocol
from mmcl.skeletons.layout import load_layout

# Clips of the training and of the test side, cross-subject, without the recordings whose skeletons are missing.
SIDES = {"ntu60": (40_091, 16_487), "ntu120": (63_026, 50_919)}
CLASSES = {"ntu60": 60, "ntu120": 120}
CAMERAS, SETUPS = 3, 32
DISTINCT, FRAMES, BODIES = 16, 2, 2  # different clips; so short that many cost little disk: encoders get their window
AT_ONCE = 4096  # clips that are written together


def make_ntu(folder: Path, dataset: str) -> None:
    """Write a store of as many clips as a data set has, with its people, cameras, setups and classes.

    Every clip has two bodies, the most that there are, and one tiny picture, so that every recipe opens it.

    Args:
        folder: to be made.
        dataset: ntu60 or ntu120.
    """
    layout = load_layout("kinect_v2_25")
    rows = _rows(dataset, layout.joint_count)
    starts = range(0, len(rows), AT_ONCE)
    parts = Parts(folder, ["made up"] * len(starts))
    for start in starts:
        parts.append(rows[start : start + AT_ONCE], [])
    about = {
        "dataset": dataset, "title": f"made up, of the size of {dataset}", "fps": 30.0, "layout": layout.to_dict(),
        "class_names": class_names(dataset), "plan": {},
    }  # fmt: skip
    finish(folder, about, parts.facts, [], [])


def _rows(dataset: str, joints: int) -> list[dict[str, Any]]:
    """A row a clip: people and classes take turns, so that all classes have as many clips."""
    rng = np.random.default_rng(0)
    poses = rng.normal(0, 0.3, (DISTINCT, BODIES, FRAMES, joints, 3)).astype(np.float32)
    poses += np.array([0, 0, 3], dtype=np.float32)
    rule, picture = load_protocol(f"{dataset}/xsub"), _picture()
    rows = []
    for side, count in zip(("train", "test"), SIDES[dataset], strict=True):
        people = getattr(rule, side)["subject"]
        for number in range(count):
            turn = number // CLASSES[dataset]
            rows.append({
                "id": f"{side}{number:06d}", "label": number % CLASSES[dataset], "subject": people[turn % len(people)],
                "camera": 1 + turn % CAMERAS, "setup": 1 + turn % SETUPS, "trial": 1, "splits": [], "bodies": BODIES,
                "frames": FRAMES, "video_frames": FRAMES, "joints": poses[number % DISTINCT].reshape(-1),
                "confidence": np.zeros(0), "frame_indices": np.zeros(1), "crops": [picture], "boxes": np.zeros(4),
                "pixels": np.zeros(0),
            })  # fmt: skip
    return rows


def _picture() -> bytes:
    """A grey JPEG of a few pixels."""
    from PIL import Image

    file = BytesIO()
    Image.new("RGB", (16, 16), (128, 128, 128)).save(file, "JPEG")
    return file.getvalue()
