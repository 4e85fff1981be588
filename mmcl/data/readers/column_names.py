"""What the name of a column says: a coordinate of a joint, a frame, a time, a person.

``left_hip_x``, ``x0``, ``Head.Z``, ``3_y`` and ``visibility_5`` belong to a joint; ``frame``, ``Time (seconds)`` and
``person_id`` stand aside.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

WORDS = re.compile(r"[A-Za-z]+|\d+")
FRAMES = {"frame", "frames", "frameid", "framenumber", "frameno", "frameindex", "frameidx"}
TIMES = {"time", "times", "timestamp", "timestamps", "timestampms", "timems", "t", "seconds", "ms"}
PEOPLE = {"id", "person", "personid", "people", "body", "bodyid", "track", "trackid", "player", "playerid", "actor",
          "actorid", "skeleton", "skeletonid", "subject", "subjectid"}  # fmt: skip
PIVOT = "one joint a line: pivot it, so that a line is a frame and has the columns of all joints"
_JOINTS = {"joint", "jointname", "jointid", "jointindex", "jointnumber", "keypoint", "keypointname", "keypointid",
           "landmark", "landmarkname", "landmarkid", "bodypart", "marker", "markername"}  # fmt: skip
_COUNTS = {"index", "idx", "unnamed", "row"}
_SCORES = {"c", "s", "v", "w", "conf", "confidence", "score", "visibility", "vis", "likelihood", "prob", "p"}
_INSIDE = re.compile(r"\(.*?\)|\[.*?\]|\{.*?\}")  # units


@lru_cache(maxsize=4096)  # it is asked of every cell
def aside(name: str) -> str:
    """The plain name of a column that belongs to no joint, "" for any other; one without a name is ``index``."""
    words = _words(name)
    if not words:
        return "index"
    for said in (words, _words(_INSIDE.sub(" ", name))):
        plain = "".join(word for word in said if not word.isdigit())
        if plain in FRAMES | TIMES | PEOPLE | _COUNTS and not (plain == "t" and len(said) > 1):
            return plain
    return ""


def one_joint_a_line(header: Sequence[str]) -> bool:
    """Whether the lines of a table are single joints, each with its name or number and its x and y."""
    plain = {"".join(_words(name)) for name in header}
    return plain >= {"x", "y"} and not plain.isdisjoint(_JOINTS)


def coordinate(name: str) -> tuple[str, str] | None:
    """(joint, one of x, y, z, c) of a column; None where its name does not say."""
    words = _words(name)
    for at in (-1, 0):
        letter = words[at] if words else ""
        letter = "c" if letter in _SCORES else letter
        if letter in ("x", "y", "z", "c") and len(words) > 1:
            return "_".join(words[:-1] if at else words[1:]), letter
    return None


def _words(name: str) -> list[str]:
    return [word.lower() for word in WORDS.findall(re.sub(r"([a-z])([A-Z])", r"\1 \2", name))]
