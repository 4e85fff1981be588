"""Which of the bodies in a recording are the one or two people: the Kinect also sees chairs and tables as bodies.

The rules are those that the data set's authors recommend (Y spread against X spread, motion) with the thresholds of
the preparation behind SGN, CTR-GCN and their successors. As there, the class of the clip plays no part: to keep one
body in single-person actions and two in mutual ones would tell the test clips' labels.
"""

from __future__ import annotations

import numpy as np

from mmcl.data.clip import RawClip
from mmcl.data.readers.ntu_skeleton import JOINTS, PICTURE, Track

PEOPLE = 2
# A body seen in fewer frames (0.4 s) is a flicker of the tracker.
SHORTEST = 12
# A person is taller than wide: beyond this ratio of x extent to y extent a frame shows furniture, or a person lying.
WIDE = 0.8
# People bend, fall and spread their arms; a body that is wide in this share of its frames never stood.
MOSTLY = 0.69754


def choose(total: int, tracks: list[Track]) -> RawClip:
    """The people of a recording, the one who moves most first, in the frames in which one of them is there.

    A tracker that loses a person finds them again under a new id: a track that shares no frame with the tracks before
    it in a person's place joins them there. What fits in neither place is left out.

    Args:
        total: frames of the recording.
        tracks: its bodies; at least one.

    Returns:
        joints (M, T, 25, 3) with M 1 or 2, pixels, and ``recorded`` where frames were left out.
    """
    there = np.zeros((PEOPLE, total), dtype=bool)
    placed = []
    for track in _people(tracks):
        place = next((place for place in range(PEOPLE) if not there[place, track.frames].any()), None)
        if place is not None:
            there[place, track.frames] = True
            placed.append((place, track))
    kept = np.flatnonzero(there.any(axis=0))
    shape = (int(there.any(axis=1).sum()), len(kept), JOINTS)  # not `total`: a damaged file may announce millions
    joints, pixels = np.zeros((*shape, 3), dtype=np.float32), np.full((*shape, 2), np.nan, dtype=np.float32)
    for place, track in placed:
        at = np.searchsorted(kept, track.frames)
        joints[place, at], pixels[place, at] = track.joints, track.pixels
    if len(kept) == total:
        return RawClip(joints, pixels, picture=PICTURE)
    return RawClip(joints, pixels, kept.astype(np.int32), total, PICTURE)


def _people(tracks: list[Track]) -> list[Track]:
    """Tracks that are people, by motion; where a rule would leave nobody, the track that comes nearest to it stays."""
    if len(tracks) == 1:
        return tracks
    tracks = [track for track in tracks if len(track.frames) >= SHORTEST] or [max(tracks, key=lambda t: len(t.frames))]
    wide = [_wide(track) for track in tracks]
    standing = [place for place, frames in enumerate(wide) if frames.mean() < MOSTLY]
    standing = standing or [min(range(len(tracks)), key=lambda place: wide[place].mean())]
    motion = {place: _motion(tracks[place], wide[place]) for place in standing}
    return [tracks[place] for place in sorted(standing, key=lambda place: -motion[place])]


def _wide(track: Track) -> np.ndarray:
    """(n,) bool: frames in which the body is no upright shape."""
    missing = ~track.joints.any(axis=-1, keepdims=True)
    low = np.where(missing, np.inf, track.joints[..., :2]).min(axis=1)
    high = np.where(missing, -np.inf, track.joints[..., :2]).max(axis=1)
    extent = high - low
    return np.asarray(extent[:, 0] > WIDE * extent[:, 1])


def _motion(track: Track, wide: np.ndarray) -> float:
    """Variance of all coordinates over the frames that show an upright shape, summed over x, y and z; metres²."""
    points = track.joints if wide.all() else track.joints[~wide]
    return float(points[points.any(axis=-1)].astype(np.float64).var(axis=0).sum())
