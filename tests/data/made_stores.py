"""Stores written directly, without recordings: any number of clips, quickly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from mmcl.data.preparation.finish import finish
from mmcl.data.preparation.parts import Parts, groups
from mmcl.data.store import ClipStore, open_store
from mmcl.skeletons.layout import Layout, load_layout

LAYOUT = load_layout("kinect_v2_25")


def row(number: int, frames: int, crops: int = 0, joint_count: int = 25) -> dict[str, object]:
    """One clip: every coordinate is its number plus a little that tells the frames apart."""
    joints = np.full((1, frames, joint_count, 3), number, dtype=np.float32) + np.arange(frames)[:, None, None] / 1024
    return {
        "id": f"clip{number:06d}", "label": number % 5, "subject": number % 7, "camera": 1, "setup": 1, "trial": 1,
        "splits": ["train"] if number % 2 else ["test", "odd"][: 1 + number % 4], "bodies": 1, "frames": frames,
        "video_frames": frames if crops else 0, "joints": joints.astype(np.float32).reshape(-1),
        "confidence": np.zeros(0), "frame_indices": np.arange(2),
        "crops": [b"%d-%d" % (number, i) for i in range(crops)],
        "boxes": np.zeros(4 * crops), "pixels": np.zeros(0),
    }  # fmt: skip


def write_store(
    folder: Path, clips: int, frames: int = 20, crops: int = 0, dataset: str = "made", layout: Layout = LAYOUT,
    make: Callable[..., dict[str, object]] = row, fps: float = 30.0,
) -> ClipStore:  # fmt: skip
    """Make a store of that many clips, each of which `make` makes."""
    numbers = groups(range(clips))
    parts = Parts(folder, ["x"] * len(numbers))
    for group in numbers:
        parts.append([make(number, frames, crops, layout.joint_count) for number in group], [])
    about = {
        "dataset": dataset, "title": "Made up", "fps": fps, "layout": layout.to_dict(), "class_names": list("abcde"),
        "plan": {},
    }  # fmt: skip
    finish(folder, about, parts.facts, [], [])
    return open_store(folder)
