"""A folder of one's own clips, made up on the spot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from mmcl.data.readers.folder import Folder
from mmcl.data.readers.folder_options import FolderOptions

RNG = np.random.default_rng(0)
LAYOUT = "kinect_v1_20"


def listed(folder: Path, *lines: str, header: str = "id,label") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "clips.csv").write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return folder


def made(bodies: int = 1, frames: int = 6, joints: int = 20, coordinates: int = 3) -> np.ndarray:
    return RNG.normal(size=(bodies, frames, joints, coordinates))


def person(frames: int = 30, x: float = 0.0, seed: int = 0) -> np.ndarray:
    """(T, 20, 3): somebody who stands and whose arms move."""
    rng = np.random.default_rng(seed)
    middle = [(0.0, 0.0), (0.0, 0.25), (0.0, 0.5), (0.0, 0.7)]
    arm = [(0.2, 0.45), (0.25, 0.2), (0.27, 0.0), (0.28, -0.08)]
    leg = [(0.1, -0.05), (0.11, -0.45), (0.12, -0.8), (0.13, -0.85)]
    places = middle + [(side * a, b) for limb in (arm, leg) for side in (-1, 1) for a, b in limb]
    joints = np.array([(a + x, b, 2.5) for a, b in places]) + rng.normal(0, 0.004, (frames, 20, 3))
    joints[:, [6, 7, 10, 11], 1] += 0.3 * np.sin(np.linspace(seed, 6, frames))[:, None]
    joints[:, [15, 19], 2] -= 0.1
    return joints


def text(joints: np.ndarray, separator: str = ",", header: str = "") -> str:
    rows = [separator.join(repr(float(value)) for value in frame.ravel()) for frame in joints]
    return "\n".join([*([header] if header else []), *rows])


def write(path: Path, joints: np.ndarray) -> None:
    """One clip as its suffix says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, joints)
    elif path.suffix == ".npz":
        np.savez_compressed(path, anything=joints)
    elif path.suffix == ".json":
        path.write_text(json.dumps(joints.tolist()))
    else:
        path.write_text(text(joints))


def read(root: Path, name: str, **options: Any) -> np.ndarray:
    reader = Folder(root, options=FolderOptions(**{"layout": LAYOUT, **options}))
    return reader.read(next(clip for clip in reader.scan() if clip.id == name)).joints
