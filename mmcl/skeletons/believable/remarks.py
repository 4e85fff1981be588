"""What is said about a clip: what was mended, and what is hard to believe, with the remedy."""

from __future__ import annotations

from dataclasses import dataclass

NOTE, WARN, BAD = "NOTE", "WARN", "BAD"


@dataclass(frozen=True)
class Remark:
    """One thing about one clip.

    Attributes:
        kind: which of :data:`KINDS`.
        what: what was seen, in words, with numbers.
        remedy: what to do about it; "" where it was mended.
        axes: for ``--axes``, where other axes are the remedy.
        unit: for ``--unit``, where another unit is.
    """

    kind: str
    what: str
    remedy: str = ""
    axes: str = ""
    unit: str = ""

    @property
    def level(self) -> str:
        """NOTE where it was mended, else what its kind says: WARN, or BAD where no label can be trusted."""
        return KINDS[self.kind].level if self.remedy else NOTE

    def __str__(self) -> str:
        return f"{self.what}: {self.remedy}" if self.remedy else self.what


@dataclass(frozen=True)
class Kind:
    """A kind of remark.

    Attributes:
        level: of one that was not mended.
        many: what is said of all clips that have it.
        advice: what to do about them.
    """

    level: str
    many: str
    advice: str


LOOK = "look at these clips (`mmcl show`), repair them or leave them out"
# Those that are mended come first, in the order in which that is done.
KINDS = {
    "order": Kind(WARN, "arrays or lines in another order than (persons, frames, joints, coordinates)",
                  "nothing: they were read in the order that shows people"),
    "placeholder": Kind(WARN, "joints at one and the same place, a placeholder for missing ones",
                        "write NaN or leave the cell empty where a joint was not seen"),
    "outlier": Kind(WARN, "limbs metres long: joints far from their body", "bad tracking: " + LOOK),
    "jump": Kind(WARN, "bodies that jump", "two people in one slot, or bad tracking: " + LOOK),
    "exchange": Kind(WARN, "bodies that change places between two frames",
                     "give each person one slot from the first frame to the last"),
    "copy": Kind(WARN, "one body in two slots", "leave the copy out"),
    "ghost": Kind(WARN, "bodies that are there in few frames", "leave them out, or put them behind the others"),
    "statue": Kind(WARN, "bodies that never move beside one that does", "leave them out if they are nobody: " + LOOK),
    "ends": Kind(WARN, "empty frames in front or behind", "cut them"),
    "gap": Kind(WARN, "frames without anybody", "the tracker lost the person: cut or interpolate these frames"),
    "missing": Kind(WARN, "many joints missing", "the tracker did not see them: interpolate, or leave such clips out"),
    "scarce": Kind(WARN, "frames in which hardly a joint of a body is seen",
                   "leave such frames empty (NaN), so that they are cut or interpolated"),
    "shaking": Kind(WARN, "joints that shake from frame to frame",
                    "bad tracking: smooth them, or leave such clips out"),
    "sides change": Kind(WARN, "left and right that change places between two frames",
                         "the joints are exchanged in the frames between: " + LOOK),
    "numbering": Kind(WARN, "numbers of frames that go back or jump",
                      "if they are of two people or recordings, give each a file of its own"),
    "score": Kind(BAD, "a third number that is a score, not a coordinate",
                  "give x and y alone, with width and height of the picture, the score as confidence (--columns xyc)"),
    "flat": Kind(BAD, "flat bodies: keypoints of a picture posing as joints in space",
                 "give x and y alone, in pixels, with width and height of the picture"),
    "normalised": Kind(BAD, "coordinates that look normalised", "multiply them by the picture's width and height"),
    "picture": Kind(BAD, "bodies larger than their picture", "width and height are another picture's"),
    "scale": Kind(BAD, "bodies that are not of a person's size in metres", "say in which unit they are (--unit)"),
    "upside down": Kind(BAD, "bodies upside down", "turn them"),
    "turned": Kind(BAD, "bodies whose vertical is another axis than the second", "reorder the coordinates"),
    "lying": Kind(WARN, "no axis is the vertical", "people lie, or the coordinates are turned: " + LOOK),
    "mirrored": Kind(BAD, "left and right swapped", "negate x if one axis is mirrored, or swap the joints' sides"),
    "sides": Kind(BAD, "hips and shoulders disagree on left and right",
                  "the legs or the arms are swapped: correct the joint order"),
    "still": Kind(WARN, "nothing moves in most of the clip", "the tracker was lost, or frames were repeated: " + LOOK),
    "repeated": Kind(WARN, "every other frame is a copy", "leave the copies out, and halve the frame rate (--fps)"),
    "rate": Kind(WARN, "faster than people move", "the frame rate is another one (--fps), or the tracking is bad"),
}  # fmt: skip
READ = "numbering"  # the kind that is seen in a file alone, and not mended


def worst(remarks: list[Remark]) -> str:
    """The highest level among remarks; NOTE where there are none."""
    levels = {remark.level for remark in remarks}
    return BAD if BAD in levels else WARN if WARN in levels else NOTE
