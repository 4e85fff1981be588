"""Is a store fit to train on? Each check looks at one side of it and notes what it finds in a report."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np

from mmcl.common.errors import UserError
from mmcl.data.apply_protocol import split
from mmcl.data.inspection.findings import BAD, WARN, Report, Splits
from mmcl.data.inspection.geometry import geometry
from mmcl.data.inspection.measures import column, gather
from mmcl.data.preparation.finish import read_skipped, unmatched
from mmcl.data.protocols import list_names, load_protocol, protocol_names
from mmcl.data.readers.naming import alike
from mmcl.data.store import ClipStore

FEW_FRAMES = 8  # a shorter clip is hardly an action
CONTENT = "content as it was prepared"  # the check without which nothing else is looked at
MISSING = 0.05  # share of a clip's joints; single ones are missing now and then in any recording


def check(store: ClipStore, splits: Splits | None = None, progress: bool = True, full: bool = False) -> Report:
    """Look a store over.

    Where clips or files are not what they were when the store was made, nothing else is looked at.

    Args:
        store: the clips.
        splits: protocol -> side ("train", "test") -> clip positions, to be counted and compared.
        progress: show a progress bar on stderr.
        full: also read every byte of the store's files and compare it with what was written.
    """
    damaged_files = store.parts.damaged_files() if full else []
    measures, damaged = gather(store, progress)
    report = Report(store, measures, splits or {}, read_skipped(store)[2])
    advice = "a damaged disk or copy: prepare the store again with --overwrite, or copy it again"
    found = report.whole(BAD, "files whose bytes have changed", bool(damaged_files), damaged_files, advice)
    if report.clips(BAD, "not what was prepared", damaged, advice) or found:
        report.unchecked.append("everything else (the content is damaged)")
        return report
    report.passed.append(CONTENT)
    for part in (_identity, _values, _still, geometry, _video, _coverage):
        part(report)
    report.sort()
    return report


def _identity(report: Report) -> None:
    ids = Counter(report.store.ids)
    twice = [index for index, name in enumerate(report.store.ids) if ids[name] > 1]
    found = report.clips(BAD, "same id twice", twice, "scores are joined by id: give every clip its own")
    groups = defaultdict(list)
    for index, entry in enumerate(report.measures):
        groups[entry.content].append(index)
    copies = [group for group in groups.values() if len(group) > 1]
    report.settle("unique ids", found)
    advice = "remove copies, above all across train and test"
    report.settle("no copies", report.clips(WARN, "same joints as another clip", sorted(sum(copies, [])), advice))
    for protocol, sides in report.splits.items():
        train, test = (set(sides[side].tolist()) for side in ("train", "test"))
        leaked = sorted(index for group in copies if train & set(group) for index in test & set(group))
        advice = "these test clips were trained on: report accuracy without them, too"
        report.clips(WARN, f"{protocol}: test clips with the joints of a training clip", leaked, advice)


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
    missing = column(report.measures, "missing")
    many = np.flatnonzero(missing > MISSING)
    advice = "the tracker did not see them: interpolate, or leave such clips out"
    report.settle("joints seen", report.clips(WARN, f"more than {MISSING:.0%} of the joints missing", many, advice))
    report.settle(
        "length",
        report.clips(
            WARN, f"shorter than {FEW_FRAMES} frames", np.flatnonzero(store.frames < FEW_FRAMES), "look at these clips"
        ),
    )


def _still(report: Report) -> None:
    planar = bool(column(report.measures, "planar").all())
    for kind, what, advice in (
        ("dead", "joints that are always zero", "missing joints, or a wrong layout: is the joint count the sensor's?"),
        ("frozen", "joints that never move", "the sensor or an export lost them: repair or leave these clips out"),
    ):
        joints = [getattr(entry, kind) for entry in report.measures]
        affected = [index for index, members in enumerate(joints) if members]
        names = Counter(report.store.layout.joints[joint] for members in joints for joint in members)
        listed = f"{what} ({', '.join(name for name, _ in names.most_common(3))})"
        found = report.clips(BAD if kind == "frozen" else WARN, listed, affected, advice)
        if kind == "frozen" and planar:
            report.unchecked.append(f"{what} (planar keypoints may rest on a pixel)")
        else:
            report.settle(f"no {what}", found)


def _video(report: Report) -> None:
    store = report.store
    if not store.has_video:
        report.unchecked.append("video against skeleton (no video)")
        return
    have = store.video_frames > 0
    report.settle("video everywhere", report.clips(WARN, "without video", np.flatnonzero(~have), "find these files"))
    gap = np.where(have, store.video_frames - store.frames, 0)
    allowed = np.maximum(2, 0.05 * store.frames)
    report.settle(
        "video as long as skeleton",
        report.clips(
            WARN,
            "video shorter than the skeleton",
            np.flatnonzero(gap < -allowed),
            "another frame rate (harmless), or a video that ends early: look at one of them",
        ),
        report.clips(
            WARN,
            "video longer than the skeleton",
            np.flatnonzero(gap > allowed),
            "frames without a body left out, or another frame rate (both harmless); or the wrong video",
        ),
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


def _lists(report: Report) -> None:
    """Do the lists that clips bring along divide them, and is every list one that some protocol goes by?"""
    store = report.store
    for words in unmatched(store):
        report.whole(WARN, words, True, [], "spell the names on the list as the clips are called, and prepare again")
    own = [name for name in protocol_names(store) if name.startswith("own/")]
    for name in own:
        try:
            split(store, load_protocol(name), needed=())
        except UserError as error:
            report.whole(BAD, name, True, [], str(error))
    lists = {name for clip in store.splits for name in clip}
    strange = lists.difference(*(list_names(name.removeprefix("own/")) for name in own))
    if not own:
        advice = "no protocol goes by them: call them train, val and test (or X_train, X_test), or write a protocol"
        report.whole(WARN, "lists of clips", bool(lists - {"test"}), sorted(lists), advice)
        return
    lost = [index for index, names in enumerate(store.splits) if names and strange.issuperset(names)]
    what = f"clips on no list but {', '.join(sorted(strange))}"
    report.clips(WARN, what, lost, f"no side of {', '.join(own)}: the lists are called train, val and test")
    blank = [index for index, names in enumerate(store.splits) if not names]
    report.clips(WARN, "clips on no list", blank, f"no side of {', '.join(own)}: they train and test nothing there")


def _spellings(report: Report) -> None:
    """Classes whose names are one to a reader, and two to a computer."""
    twice = sorted({name for names in alike(report.store.class_names) for name in names})
    advice = "if they are one class, make them one in the list of clips, and prepare again"
    what = "class names that differ in case, separators, accents, quotes, zeros or a number in front alone"
    report.settle("class names", report.whole(WARN, what, bool(twice), twice, advice))


def _coverage(report: Report) -> None:
    store = report.store
    names = store.class_names
    _spellings(report)
    subjects = [set(store.subjects[store.labels == label].tolist()) for label in range(len(names))]
    empty = [name for name, people in zip(names, subjects, strict=True) if not people]
    complete = report.whole(
        WARN, "classes without a clip", bool(empty), empty, "incomplete download, or labels with gaps?"
    )
    if store.subjects.any():
        single = [name for name, people in zip(names, subjects, strict=True) if len(people) == 1]
        advice = "cannot be judged across subjects"
        alone = report.whole(WARN, "classes by one subject only", bool(single), single, advice)
        report.settle("every class by several subjects", complete, alone)
    else:
        report.unchecked.append("every class by several subjects (these files do not say who acts)")
        report.settle("every class has clips", complete)
    advice = "nothing to tell apart: others can be judged on these clips, none be trained on them"
    report.whole(WARN, "one class alone", len(names) == 1, names, advice)
    _lists(report)
    for protocol, sides in report.splits.items():
        train, test = (set(store.labels[sides[side]].tolist()) for side in ("train", "test"))
        unseen = [names[label] for label in sorted(test - train)]
        what = f"{protocol}: tested, never trained"
        report.settle(protocol, report.whole(WARN, what, bool(unseen), unseen, "accuracy there can only be zero"))
