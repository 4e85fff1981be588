"""The ``.skeleton`` text files of NTU RGB+D: frames, the bodies the Kinect v2 saw in each, 25 joints a body.

    103                            frames
    1                              bodies in this frame
    72057594037931101 0 1 … 2      body id and nine more numbers about the body
    25                             joints
    0.218 0.172 3.785 277.4 …      x y z (metres), depth x y, colour x y (pixels), orientation w x y z, tracking state

Body ids are larger than 2^53, so they are compared as text: two of them may differ in a digit that a float64 lacks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mmcl.common.errors import BadClip

JOINTS = 25
BODY_NUMBERS = 10
JOINT_NUMBERS = 12
PICTURE = (1920, 1080)  # that colour x y refer to
WANTED = (0, 1, 2, 5, 6)  # x y z in metres, x y in the colour picture


@dataclass(frozen=True)
class Track:
    """What the sensor saw under one body id: n frames, not always consecutive.

    Attributes:
        frames: (n,) int64, increasing frame numbers from 0.
        joints: (n, 25, 3) float32, metres; all-zero where a joint is missing, but never all of a frame's.
        pixels: (n, 25, 2) float32, in the colour picture; NaN where unknown.
    """

    frames: np.ndarray
    joints: np.ndarray
    pixels: np.ndarray


def parse(data: bytes) -> tuple[int, list[Track]]:
    """Read one file: the number of frames it holds, and its bodies in order of appearance.

    A joint with NaN or infinite coordinates is one the sensor did not find: it counts as missing. A body without any
    joint in a frame is not there in that frame.

    Raises:
        BadClip: not text, cut off, more in it than announced, a wrong number of joints, or no numbers where numbers
            belong; or no body in any frame.
    """
    try:
        lines = data.decode("ascii").rstrip().splitlines()
    except UnicodeDecodeError as error:
        raise BadClip(f"not a text file (byte {error.start} is no ASCII)") from error
    if not lines:
        raise BadClip("the file is empty")
    total, seen, rows = _walk(lines)
    values = _numbers(rows)
    points, known = values[..., :3], np.isfinite(values[..., :3]).all(-1) & values[..., :3].any(-1)
    points[~known] = 0
    values[..., 3:][~(known & np.isfinite(values[..., 3:]).all(-1))] = np.nan
    tracks: dict[tuple[str, int], list[int]] = {}
    for place in np.flatnonzero(known.any(-1)).tolist():
        tracks.setdefault(seen[place][1:], []).append(place)
    if not tracks:
        raise BadClip(f"no body in any of its {total} frames")
    frames = np.array([frame for frame, *_ in seen])
    return total, [Track(frames[at], points[at], values[at, :, 3:]) for at in tracks.values()]


def _walk(lines: list[str]) -> tuple[int, list[tuple[int, str, int]], list[str]]:
    """Follow the announced counts through the file; nothing is allocated on their word.

    Returns:
        The number of frames; for each body of each frame: frame, body id, and how often the same id came before it in
        that frame (two bodies must not become one); the text rows of their joints.
    """
    total, at = _count(lines, 0, "frames"), 1
    seen: list[tuple[int, str, int]] = []
    rows: list[str] = []
    for frame in range(total):
        if at >= len(lines):
            raise BadClip(f"announces {total} frames, ends after frame {frame}")
        bodies, at = _count(lines, at, "bodies"), at + 1
        ids: dict[str, int] = {}
        for _ in range(bodies):
            if at + 2 + JOINTS > len(lines):
                raise BadClip(f"announces {total} frames, ends in frame {frame + 1}")
            header = lines[at].split()
            if len(header) != BODY_NUMBERS or not header[0].isdigit():
                raise BadClip(f"line {at + 1} is not the {BODY_NUMBERS} numbers of a body")
            if (count := _count(lines, at + 1, "joints")) != JOINTS:
                raise BadClip(f"line {at + 2} announces {count} joints, expected {JOINTS}")
            seen.append((frame, header[0], ids.get(header[0], 0)))
            ids[header[0]] = ids.get(header[0], 0) + 1
            rows += lines[at + 2 : at + 2 + JOINTS]
            at += 2 + JOINTS
    if at < len(lines):
        raise BadClip(f"announces {total} frames, goes on after them in line {at + 1}")
    return total, seen, rows


def _count(lines: list[str], at: int, what: str) -> int:
    """The whole number that a line says; ten digits are more than any file holds."""
    text = lines[at].strip()
    if not (text.isdecimal() and len(text) <= 10):
        raise BadClip(f"line {at + 1} is not a number of {what}: '{text[:20]}'")
    return int(text)


def _numbers(rows: list[str]) -> np.ndarray:
    """Text rows -> (bodies, 25, 5) float32: the wanted numbers of every joint."""
    if not rows:
        return np.zeros((0, JOINTS, len(WANTED)), dtype=np.float32)
    if any(row.count(" ") != JOINT_NUMBERS - 1 for row in rows):  # tabs, or blanks at the end
        rows = [" ".join(row.split()) for row in rows]
        for row in rows:
            if (count := len(row.split())) != JOINT_NUMBERS:
                raise BadClip(f"a joint has {count} numbers, expected {JOINT_NUMBERS}")
    try:
        # One pass in C, converting only these columns: here the time of reading a clip is spent.
        values = np.loadtxt(rows, dtype=np.float32, delimiter=" ", comments=None, usecols=WANTED, ndmin=2)
    except ValueError as error:
        raise BadClip(f"something else than a number among the joints ({error})") from error
    return values.reshape(-1, JOINTS, len(WANTED))
