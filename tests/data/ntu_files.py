"""Recordings in the form of NTU RGB+D, made up on the spot."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

# 25 joints of a person who stands 3 m before the camera, x, y, z in metres: the order of the Kinect v2.
STANDING = np.array(
    [
        *[(0.0, 0.0, 3.0), (0.0, 0.3, 3.0), (0.0, 0.6, 3.0), (0.0, 0.75, 3.0)],
        *[(-0.18, 0.5, 3.0), (-0.22, 0.25, 3.0), (-0.24, 0.02, 3.0), (-0.24, -0.05, 3.0)],
        *[(0.18, 0.5, 3.0), (0.22, 0.25, 3.0), (0.24, 0.02, 3.0), (0.24, -0.05, 3.0)],
        *[(-0.09, -0.02, 3.0), (-0.1, -0.42, 3.0), (-0.1, -0.8, 3.0), (-0.1, -0.85, 2.9)],
        *[(0.09, -0.02, 3.0), (0.1, -0.42, 3.0), (0.1, -0.8, 3.0), (0.1, -0.85, 2.9)],
        *[(0.0, 0.52, 3.0), (-0.24, -0.12, 3.0), (-0.2, -0.06, 2.98), (0.24, -0.12, 3.0), (0.2, -0.06, 2.98)],
    ]
)
FIRST_ID = 72057594037931101  # beyond 2^53, as the sensor's are

Bodies = dict[int, np.ndarray]  # body id -> (25, 3), of one frame


def person(frames: int, move: float = 0.3, x: float = 0.0, wide: bool = False, seed: int = 0) -> np.ndarray:
    """(T, 25, 3): somebody at ``x`` who raises the right arm by ``move`` metres; or a table, wider than tall."""
    joints = STANDING + np.random.default_rng(seed).normal(0, 0.003, (frames, 25, 3))
    joints[:, 9:12, 1] += move * np.abs(np.sin(np.linspace(0, 3, frames)))[:, None]
    if wide:
        joints[..., [0, 1]] = joints[..., [1, 0]]
    return joints + (x, 0, 0)


def pixels(joints: np.ndarray) -> np.ndarray:
    """(…, 3) metres -> (…, 2) in a 1920x1080 picture."""
    with np.errstate(invalid="ignore"):
        return np.array([960, 540]) + joints[..., :2] * (1060, -1060) / np.abs(joints[..., 2:])


def frames_of(total: int, *tracks: tuple[int, int, np.ndarray]) -> list[Bodies]:
    """Frames of a recording from its tracks: body id, first frame, (n, 25, 3)."""
    frames: list[Bodies] = [{} for _ in range(total)]
    for body, start, joints in tracks:
        for offset, pose in enumerate(joints):
            frames[start + offset][body] = pose
    return frames


def text(frames: list[Bodies], newline: str = "\n") -> str:
    """The content of a ``.skeleton`` file."""
    lines = [str(len(frames))]
    for bodies in frames:
        lines.append(str(len(bodies)))
        for body, joints in bodies.items():
            lines += [f"{body} 0 1 1 1 1 0 0.0276 -0.0574 2", str(len(joints))]
            for (x, y, z), (u, v) in zip(joints, pixels(joints), strict=True):
                lines.append(f"{x:.7g} {y:.7g} {z:.7g} 277.419 191.8218 {u:.7g} {v:.7g} -0.2 0.05 0.96 -0.12 2")
    return newline.join(lines) + newline


def name(action: int = 1, performer: int = 1, setup: int = 1, camera: int = 1, replication: int = 1) -> str:
    return f"S{setup:03d}C{camera:03d}P{performer:03d}R{replication:03d}A{action:03d}"


def write(folder: Path, clip: str, frames: list[Bodies] | None = None, newline: str = "\n") -> Path:
    """Write one recording (by default one person in 20 frames); returns its file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{clip}.skeleton"
    frames = frames_of(20, (FIRST_ID, 0, person(20))) if frames is None else frames
    path.write_bytes(text(frames, newline).encode())
    return path


def zip_folder(folder: Path, path: Path, inner: str = "nturgb+d_skeletons/") -> Path:
    """Pack a folder's files the way the official archives are packed."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, inner + file.name)
    return path
