"""A folder of one's own clips, made up on the spot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from mmcl.data.readers.folder import Folder, FolderOptions

RNG = np.random.default_rng(0)
LAYOUT = "kinect_v1_20"


def listed(folder: Path, *lines: str, header: str = "id,label") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "clips.csv").write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return folder


def made(bodies: int = 1, frames: int = 6, joints: int = 20, coordinates: int = 3) -> np.ndarray:
    return RNG.normal(size=(bodies, frames, joints, coordinates))


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
