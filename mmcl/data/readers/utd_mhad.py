"""UTD-MHAD (Chen, Jafari, Kehtarnavaz, ICIP 2015): 27 actions, 8 subjects, 4 trials, one Kinect v1.

``ROOT/Skeleton/aX_sY_tZ_skeleton.mat`` holds ``d_skel``, (20 joints, 3, T) float64 in metres, camera space with y up
and z away from the camera, 30 fps. The video of the same take is ``ROOT/RGB/aX_sY_tZ_color.avi`` (the official
640x480 colour file) or ``ROOT/Video/aX_sY_tZ_color.mp4`` (320x240, as the depth camera sees it).
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from mmcl.common.errors import UserError
from mmcl.common.files import absolute
from mmcl.data.clip import ClipSource, RawClip
from mmcl.data.prompts import class_names
from mmcl.data.readers.matlab import load_mat

ACTIONS = 27
JOINTS = 20
NAME = re.compile(r"(a(\d{1,9})_s(\d{1,9})_t(\d{1,9}))_skeleton\.mat")
VIDEO_FOLDERS = ("RGB", "Video")
VIDEO_SUFFIXES = (".avi", ".mp4")

# Pinhole cameras of the Kinect v1: focal length in pixels of a picture that many pixels wide, centre in its middle.
DEPTH_WIDTH, DEPTH_FOCAL = 320, 285.6
# The usual figure for the colour camera. No colour file was at hand to verify it on this dataset, and the 2.5 cm
# between the two cameras are left out (about 5 pixels at 2.5 m): good for a person box, not for measuring.
COLOUR_WIDTH, COLOUR_FOCAL = 640, 525.0


class UTDMHAD:
    """Reader of the official folder.

    Args:
        source: the dataset's own folder, holding ``Skeleton/`` and, if there, ``RGB/`` or ``Video/``.
        video: folder of the ``*_color.avi`` / ``*_color.mp4`` files, where it lies elsewhere.

    Raises:
        UserError: there is no ``Skeleton`` folder, or the video folder does not exist.
    """

    name = "utd-mhad"
    dataset = "utd_mhad"
    title = "UTD-MHAD"
    layout = "utd_mhad_20"
    fps = 30.0

    def __init__(self, source: Path, video: Path | None = None) -> None:
        self.source, self.skeletons = source, source / "Skeleton"
        if not self.skeletons.is_dir():
            raise UserError(f"{source}: no folder 'Skeleton' in it; {_guess(source)}")
        if video is not None and not video.is_dir():
            raise UserError(f"{video}: the video folder does not exist")
        self.video_folders = [video] if video else [source / name for name in VIDEO_FOLDERS]
        self.class_names = class_names("utd_mhad")

    def scan(self) -> list[ClipSource]:
        """All takes, sorted by id. Files of any other name are left alone.

        Raises:
            UserError: no file has the name of a take.
        """
        videos = self._videos()
        clips = []
        for path in self.skeletons.iterdir():
            match = NAME.fullmatch(path.name)
            if match is None or not 1 <= int(match[2]) <= ACTIONS:
                continue
            clips.append(
                ClipSource(
                    id=match[1],
                    label=int(match[2]) - 1,
                    subject=int(match[3]),
                    trial=int(match[4]),
                    skeleton=str(path),
                    video=videos.get(match[1]),
                )
            )
        if not clips:
            raise UserError(f"{self.skeletons}: no aX_sY_tZ_skeleton.mat in it; unpack Skeleton.zip there")
        return sorted(clips, key=lambda clip: clip.id)

    def _videos(self) -> dict[str, str]:
        """Clip id -> video file. One listing a folder, since a look-up for each clip is slow on network disks."""
        found: dict[str, str] = {}
        for folder in self.video_folders:
            if folder.is_dir():
                for path in sorted(folder.iterdir()):
                    if path.suffix.lower() in VIDEO_SUFFIXES and path.stem.endswith("_color"):
                        found.setdefault(path.stem.removesuffix("_color"), str(path))
        return found

    def read(self, source: ClipSource) -> RawClip:
        """Read one take; see :func:`read_mat`."""
        return RawClip(joints=read_mat(source.skeleton))

    def pixels(self, joints: np.ndarray, width: int, height: int) -> np.ndarray:
        """Joints in the picture: (M, T, V, 3) metres -> (M, T, V, 2) pixels; NaN for joints behind the camera.

        The size of the picture tells which camera took it: 640 pixels and more are the colour camera's.
        """
        focal = COLOUR_FOCAL * width / COLOUR_WIDTH if width >= COLOUR_WIDTH else DEPTH_FOCAL * width / DEPTH_WIDTH
        depth = np.where(joints[..., 2] > 0, joints[..., 2], np.nan)
        u = width / 2 + focal * joints[..., 0] / depth
        v = height / 2 - focal * joints[..., 1] / depth
        return np.stack([u, v], axis=-1).astype(np.float32)


def read_mat(path: str | Path) -> np.ndarray:
    """Read one ``.mat`` file of the data set: (1, T, 20, 3) float32 metres.

    Raises:
        BadClip: not a MATLAB file, cut off, no ``d_skel`` in it, or not (20, 3, T) numbers.
    """
    return load_mat(path, "d_skel", JOINTS)


def _guess(source: Path) -> str:
    """What the user probably meant, by what lies where they pointed."""
    expected = "--source is the dataset's own folder, holding Skeleton/ and, if there, RGB/ or Video/"
    if not source.exists():
        return f"{source} does not exist ({expected})"
    if not source.is_dir():
        return f"it is a file ({expected})"
    names = sorted(path.name for path in source.iterdir())
    if any(NAME.fullmatch(name) for name in names):
        return f"this is the folder of the skeleton files: give its parent, {absolute(source).parent} ({expected})"
    if inner := [name for name in names if (source / name / "Skeleton").is_dir()]:
        return f"did you mean {source / inner[0]}? ({expected})"
    if "Skeleton.zip" in names:
        return f"unpack Skeleton.zip first ({expected})"
    return f"found {', '.join(names[:5]) or 'nothing'}{' …' if len(names) > 5 else ''} ({expected})"
