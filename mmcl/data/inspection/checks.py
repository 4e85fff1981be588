"""Is a store fit to train on? Each check looks at one side of it and notes what it finds in a report."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np

from mmcl.data.inspection.findings import BAD, WARN, Report, Splits
from mmcl.data.inspection.measures import column, gather
from mmcl.data.store import ClipStore

FEW_FRAMES = 8  # a shorter clip is hardly an action
HEIGHT = (0.3, 1.0)  # metres from hips to head that a data set's median person has
OFF, FAR_OFF = 2.0, 10.0  # times the median height: odd clip, other unit


def check(store: ClipStore, splits: Splits | None = None, progress: bool = True) -> Report:
    """Look a store over.

    Args:
        store: the clips.
        splits: protocol -> side ("train", "test") -> clip positions, to be counted and compared.
        progress: show a progress bar on stderr.
    """
    report = Report(store, gather(store, progress), splits or {})
    for part in (_identity, _values, _still, _scale, _sides, _video, _coverage):
        part(report)
    report.findings.sort(key=lambda finding: finding.level != BAD)
    return report


def _identity(report: Report) -> None:
    ids = Counter(report.store.ids)
    twice = [index for index, name in enumerate(report.store.ids) if ids[name] > 1]
    found = report.clips(BAD, "same id twice", twice, "scores are joined by id: give every clip its own")
    groups = defaultdict(list)
    for index, entry in enumerate(report.measures):
        groups[entry.content].append(index)
    copies = [index for group in groups.values() if len(group) > 1 for index in group]
    report.settle("unique ids", found)
    report.settle(
        "no copies",
        report.clips(WARN, "same joints as another clip", copies, "remove copies, above all across train and test"),
    )


def _values(report: Report) -> None:
    store = report.store
    nan = column(report.measures, "nan_frames")
    report.settle("no NaN", report.clips(BAD, "NaN or infinity", np.flatnonzero(nan), "repair or remove these clips"))
    zero = column(report.measures, "zero_frames")
    report.settle(
        "no zero frames",
        report.clips(BAD, "nothing but zeros", np.flatnonzero(zero == store.frames), "remove these clips"),
        report.clips(
            WARN,
            "frames without any body",
            np.flatnonzero((zero > 0) & (zero < store.frames)),
            "the tracker lost the person there: cut or interpolate those frames if there are many",
        ),
    )
    report.settle(
        "length",
        report.clips(
            WARN, f"shorter than {FEW_FRAMES} frames", np.flatnonzero(store.frames < FEW_FRAMES), "look at these clips"
        ),
    )


def _still(report: Report) -> None:
    for kind, what, advice in (
        ("dead", "joints that are always zero", "missing joints, or a wrong layout: is the joint count the sensor's?"),
        ("frozen", "joints that never move", "the sensor or an export lost them: repair or leave these clips out"),
    ):
        joints = [getattr(entry, kind) for entry in report.measures]
        affected = [index for index, members in enumerate(joints) if members]
        names = Counter(report.store.layout.joints[joint] for members in joints for joint in members)
        listed = f"{what} ({', '.join(name for name, _ in names.most_common(3))})"
        report.settle("no " + what, report.clips(BAD if kind == "frozen" else WARN, listed, affected, advice))


def _scale(report: Report) -> None:
    height = column(report.measures, "height")
    if not np.isfinite(height).any():
        report.unchecked.append("body scale (the layout names no head and hips)")
        return
    usual = float(np.nanmedian(height))
    factor = np.where(height > 0, height / usual, np.nan)
    far = (factor >= FAR_OFF) | (factor <= 1 / FAR_OFF)
    odd = ((factor >= OFF) | (factor <= 1 / OFF)) & ~far
    unit = (
        "millimetres (divide by 1000)" if usual > 100 else "centimetres (divide by 100)" if usual > 10 else "no metres"
    )
    report.settle(
        f"body scale (hips to head {usual:.2f} m)",
        report.whole(
            BAD,
            f"hips to head {usual:.3g} 'metres' in the median clip",
            not HEIGHT[0] <= usual <= HEIGHT[1],
            [],
            f"these look like {unit}, or they are normalised; a store wants metres",
        ),
        report.clips(BAD, "body of another unit than most", np.flatnonzero(far), "convert these clips to metres"),
        report.clips(
            WARN, "body twice or half the usual size", np.flatnonzero(odd), "bad tracking: look at these clips"
        ),
    )
    upright = column(report.measures, "upright")
    report.settle(
        "y points up",
        report.whole(BAD, "bodies stand on their heads", np.nanmedian(upright) < -0.5, [], "y points down: negate it"),
        report.whole(
            WARN,
            "y is not the vertical",
            -0.5 <= np.nanmedian(upright) < 0.5,
            [],
            "put the vertical into the second axis",
        ),
    )


def _sides(report: Report) -> None:
    _side(
        report,
        "handedness",
        "left is left",
        "left and right swapped",
        "swap the joints' sides, or negate x if one axis is mirrored",
        "feet, hips and shoulders",
    )
    _side(
        report,
        "agreement",
        "hips and shoulders agree on left and right",
        "hips and shoulders disagree on left and right",
        "the legs or the arms are swapped: correct the joint order",
        "hips and shoulders",
    )


def _side(report: Report, measure: str, passed: str, what: str, advice: str, needs: str) -> None:
    """Look at a number that is negative where sides are swapped.

    In 861 UTD-MHAD and 1483 NW-UCLA clips the median handedness is 0.5 and 0.6, and one clip in a hundred falls below
    zero, to -0.4 at most: so a few slightly negative clips are noise, and many are a mistake.
    """
    values = column(report.measures, measure)
    if not np.isfinite(values).any():
        report.unchecked.append(f"{passed} (the layout does not name {needs})")
        return
    most = np.nanmedian(values) < 0
    wrong = np.flatnonzero(values < (0 if most else -0.3))
    report.settle(passed, report.clips(BAD if most else WARN, what, wrong, advice))


def _video(report: Report) -> None:
    store = report.store
    if not store.has_video:
        report.unchecked.append("video against skeleton (no video)")
        return
    have = store.video_frames > 0
    report.settle("video everywhere", report.clips(WARN, "without video", np.flatnonzero(~have), "find these files"))
    gap = np.abs(store.video_frames - store.frames)
    far = have & (gap > np.maximum(2, 0.05 * store.frames))
    advice = "another frame rate (harmless), or a video that ends early: look at one of them"
    report.settle(
        "video as long as skeleton",
        report.clips(WARN, "video and skeleton differ in length", np.flatnonzero(far), advice),
    )
    inside = column(report.measures, "inside")
    if not np.isfinite(inside).any():
        report.unchecked.append("joints inside the crops (no camera known: crops show the whole picture)")
        return
    advice = "the projection does not fit this video, or people leave the picture: see the contact sheet"
    report.settle(
        f"joints inside the crops ({np.nanmean(inside):.1%})",
        report.clips(WARN, "more than 10 % of the joints outside the crop", np.flatnonzero(inside < 0.9), advice),
    )


def _coverage(report: Report) -> None:
    store = report.store
    names = store.class_names
    subjects = [set(store.subjects[store.labels == label].tolist()) for label in range(len(names))]
    empty = [name for name, people in zip(names, subjects, strict=True) if not people]
    single = [name for name, people in zip(names, subjects, strict=True) if len(people) == 1]
    report.settle(
        "every class by several subjects",
        report.whole(WARN, "classes without a clip", bool(empty), empty, "incomplete download?"),
        report.whole(WARN, "classes by one subject only", bool(single), single, "cannot be judged across subjects"),
    )
    for protocol, sides in report.splits.items():
        train, test = (set(store.labels[sides[side]].tolist()) for side in ("train", "test"))
        unseen = [names[label] for label in sorted(test - train)]
        what = f"{protocol}: tested, never trained"
        report.settle(protocol, report.whole(WARN, what, bool(unseen), unseen, "accuracy there can only be zero"))
