"""Checks of geometry: metres, which way is up, and whether left is left."""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from mmcl.data.inspection.findings import BAD, WARN, Report
from mmcl.data.inspection.measures import column
from mmcl.data.readers import READERS
from mmcl.data.readers.options import options_type

HEIGHT = (0.3, 1.0)  # metres from hips to head that a data set's median person has
OFF, FAR_OFF = 2.0, 10.0  # times the median height: odd clip, other unit
UPRIGHT = 0.5  # share of an axis in the direction from hips to head that makes it the vertical
FAR = 0.8  # metres by which people keep away from a sensor, and from its middle line do not
ORDINAL = ("first", "second", "third")


def geometry(report: Report) -> None:
    """Look at scale, axes and sides."""
    _scale(report)
    if _axes(report):
        _side(
            report,
            "handedness",
            "left is left",
            "left and right swapped",
            "swap the joints' sides, or negate x if one axis is mirrored",
            "feet, hips and shoulders",
        )
    else:
        report.unchecked.append("left is left (put the axes right first)")
    _side(
        report,
        "agreement",
        "hips and shoulders agree on left and right",
        "hips and shoulders disagree on left and right",
        "the legs or the arms are swapped: correct the joint order",
        "hips and shoulders",
    )


def _scale(report: Report) -> None:
    height = column(report.measures, "height")
    if not np.isfinite(height).any():
        planar = column(report.measures, "planar").all()
        reason = "planar keypoints have no metres" if planar else "the layout names no head and hips"
        report.unchecked.append(f"body scale ({reason})")
        return
    usual = float(np.nanmedian(height))
    factor = np.where(height > 0, height / usual, np.nan)
    far = (factor >= FAR_OFF) | (factor <= 1 / FAR_OFF)
    odd = ((factor >= OFF) | (factor <= 1 / OFF)) & ~far
    unit, words = ("mm", "millimetres (divide by 1000)") if usual > 100 else ("cm", "centimetres (divide by 100)")
    again = f"; prepare again with --unit {unit}" if _takes(report, "unit") else ""
    unit, again = (words, again) if usual > 10 else ("no metres", "")
    report.settle(
        f"body scale (hips to head {usual:.2f} m)",
        report.whole(
            BAD,
            f"hips to head {usual:.3g} 'metres' in the median clip",
            not HEIGHT[0] <= usual <= HEIGHT[1],
            [],
            f"these look like {unit}, or they are normalised; a store wants metres{again}",
        ),
        report.clips(BAD, "body of another unit than most", np.flatnonzero(far), "convert these clips to metres"),
        report.clips(
            WARN, "body twice or half the usual size", np.flatnonzero(odd), "bad tracking: look at these clips"
        ),
    )


def _axes(report: Report) -> bool:
    """Find the vertical. Returns whether it is where it belongs, the second axis, pointing up or down."""
    shares = column(report.measures, "up")
    if not np.isfinite(shares).any():
        report.unchecked.append("y points up (the layout names no head and hips)")
        return True
    up = np.nanmedian(shares, axis=0)
    vertical = int(np.abs(up).argmax())
    if abs(up[vertical]) < UPRIGHT:
        what = "no axis is the vertical"
        report.whole(WARN, what, True, [], "people lie, or the coordinates are turned: see the contact sheet")
        return False
    direction = "points down" if up[vertical] < 0 else "points up"
    if vertical != 1:
        what = f"the second axis is not the vertical; the {ORDINAL[vertical]} looks like it, and {direction}"
        report.whole(BAD, what, True, [], _reorder(report, vertical))
        return False
    report.settle(
        "y points up",
        report.whole(BAD, "bodies stand on their heads", up[1] < 0, [], _turn(report)),
    )
    return True


def _reorder(report: Report, vertical: int) -> str:
    """What to do about a vertical that is another axis than the second."""
    store = report.store
    place = np.abs(np.nanmedian(column(report.measures, "place"), axis=0))
    depth, across = sorted({0, 1, 2} - {vertical}, key=lambda axis: -place[axis])
    if place[depth] < FAR or place[depth] < 2 * place[across]:  # centred on the body, say
        return "reorder the coordinates: x to the right, y up, z away from the sensor"
    letters = {vertical: "y", depth: "z", across: "x"}
    order = "".join(letters[axis] for axis in range(3))
    if not _takes(report, "axes"):
        return f"reorder the coordinates: the three are {', '.join(order)}"
    # The store's axes are the file's columns as they were taken to be: look through that to the columns themselves.
    taken = store.info["plan"].get("axes", "xyz")
    return f"prepare again with --axes={''.join(order['xyz'.index(a)] if a in 'xyz' else a for a in taken)}"


def _turn(report: Report) -> str:
    """What to do about y that points down: with x turned as well where left is left, or else everybody is mirrored."""
    handed = column(report.measures, "handedness")
    mirrored = bool(np.isfinite(handed).any() and np.nanmedian(handed) < 0)
    if _takes(report, "axes") and report.store.info["plan"].get("axes", "xyz") == "xyz":
        return f"y points down: prepare again with --axes={'x-yz' if mirrored else '-x-yz'}"
    return "y points down: negate it" if mirrored else "y points down: negate x and y"


def _takes(report: Report, option: str) -> bool:
    """Whether the reader that the store was prepared by has an option."""
    name = report.store.info["plan"].get("dataset")
    return name in READERS and option in (entry.name for entry in fields(options_type(READERS[name])))


def _side(report: Report, measure: str, passed: str, what: str, advice: str, needs: str) -> None:
    """Look at a number that is negative where sides are swapped.

    In 861 UTD-MHAD and 1483 NW-UCLA clips the median handedness is 0.5 and 0.6, and one clip in a hundred falls below
    zero, to -0.4 at most: so a few slightly negative clips are noise, and many are a mistake.
    """
    values = column(report.measures, measure)
    if not np.isfinite(values).any():
        planar = measure == "handedness" and column(report.measures, "planar").all()
        reason = "planar keypoints have no depth" if planar else f"the layout does not name {needs}"
        report.unchecked.append(f"{passed} ({reason})")
        return
    most = np.nanmedian(values) < 0
    wrong = np.flatnonzero(values < (0 if most else -0.3))
    report.settle(passed, report.clips(BAD if most else WARN, what, wrong, advice))
