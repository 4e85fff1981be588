"""Checks of geometry: what is hard to believe about each clip, and what the clips together say of scale and sides."""

from __future__ import annotations

import numpy as np

from mmcl.data.inspection.advice import advice
from mmcl.data.inspection.findings import BAD, NOTE, WARN, Report
from mmcl.data.inspection.measures import column
from mmcl.skeletons.believable import KINDS, READ, Remark
from mmcl.skeletons.believable.names import of_a_body, places

HEIGHT = (0.3, 1.0)  # metres from hips to head that a data set's median person has
OFF = 2.0  # times the median size: an odd clip
FEW = 0.05  # share of the clips up to which people who lie, or one odd recording, are an explanation
PASSED = {  # check -> kinds of remarks that stand against it
    "every clip shows people": ("score", "flat", "normalised", "picture"),
    "y points up": ("upside down", "turned", "lying"),
    "left is left": ("mirrored",),
    "hips and shoulders agree on left and right": ("sides",),
    "bodies stay who and where they are": ("jump", "outlier", "exchange", "ghost", "copy", "statue"),
    "bodies move": ("still", "repeated", "rate"),
}
AGREE = "hips and shoulders agree on left and right"
OF_A_BODY = ("y points up", "left is left", AGREE)
AGREEING = ("left_hip", "right_hip", "left_shoulder", "right_shoulder")
NUMBERS = ("score", "flat", "normalised", "picture", "scale")  # no metres
ELSEWHERE = ("gap", "missing")  # looked at by measures of their own, which are stricter
HARMLESS = ("ends", "order")  # mended without a doubt: no reason to look at the clips


def geometry(report: Report) -> None:
    """Look at scale, axes, sides and motion."""
    changed = _mended(report)
    doubted = _doubted(report)
    _scale(report)
    unknown = _sides(report)
    joints = report.store.layout.joints
    for name, kinds in PASSED.items():
        if name in OF_A_BODY and not of_a_body(joints):
            continue
        if name == AGREE and (lacking := [part for part in AGREEING if part not in places(joints)]):
            report.unchecked.append(f"{name} (the layout names no {' and '.join(lacking)})")
            continue
        if name not in unknown:
            report.settle(name, *(kind in changed | doubted for kind in kinds))


def _mended(report: Report) -> set[str]:
    """Say what was mended while the store was prepared; returns the kinds."""
    places = {name: index for index, name in enumerate(report.store.ids)}
    kinds: dict[str, dict[int, None]] = {}  # a clip may have several remarks of a kind
    for name, _, kind in report.mended:
        if name in places and kind in KINDS:
            kinds.setdefault(kind, {})[places[name]] = None
    for kind, clips in kinds.items():
        level = NOTE if kind in HARMLESS else WARN
        done = "" if kind == READ else "mended in the store; better at the source: "
        report.clips(level, KINDS[kind].many, clips, done + KINDS[kind].advice)
    return set(kinds) - set(HARMLESS)


def _doubted(report: Report) -> set[str]:
    """Say what is hard to believe about clips as they are; returns the kinds."""
    kinds: dict[str, dict[int, Remark]] = {}
    for index, entry in enumerate(report.measures):
        for remark in entry.remarks:
            if remark.kind not in ELSEWHERE:
                kinds.setdefault(remark.kind, {})[index] = remark
    for kind in KINDS:
        if kind in kinds:
            clips = kinds[kind]
            few = len(clips) < FEW * len(report.measures) and kind in ("upside down", "turned", "mirrored", "sides")
            report.clips(WARN if few else KINDS[kind].level, KINDS[kind].many, clips, advice(report, kind, clips))
    return set(kinds)


def _scale(report: Report) -> None:
    """Compare bodies with people, and with each other."""
    planar = bool(column(report.measures, "planar").all())
    size, height = column(report.measures, "size"), column(report.measures, "height")
    if planar or not np.isfinite(size).any():
        report.unchecked.append("metres (planar keypoints have none)")
        return
    odd_numbers = np.array([any(remark.kind in NUMBERS for remark in entry.remarks) for entry in report.measures])
    found = bool(odd_numbers.any())
    usual = float(np.nanmedian(size if odd_numbers.all() else size[~odd_numbers]))  # those of another unit tell nothing
    if np.isfinite(height).any() and not found:
        median = float(np.nanmedian(height))
        what = f"hips to head {median:.3g} 'metres' in the median clip"
        advice = "a store wants metres: say which unit these are (--unit), or undo what normalised them"
        found |= report.whole(BAD, what, not HEIGHT[0] <= median <= HEIGHT[1], [], advice)
    factor = np.where(size > 0, size, np.nan) / usual
    odd = ((factor >= OFF) | (factor <= 1 / OFF)) & ~odd_numbers
    advice = "bad tracking, or somebody who crouches: look at these clips"
    found |= report.clips(WARN, "body twice or half the usual size", np.flatnonzero(odd), advice)
    report.settle(f"body scale (bodies of {usual:.2f} m)", found)


def _sides(report: Report) -> set[str]:
    """Say what could not be looked at; where single clips tell little about left and right, ask all of them.

    Returns the checks that cannot pass: what they ask could not be measured, or the clips together speak against it.
    """
    unknown: set[str] = set()
    up, handedness = column(report.measures, "up"), column(report.measures, "handedness")
    planar = bool(column(report.measures, "planar").all())
    if not of_a_body(report.store.layout.joints):
        report.unchecked.append("size, which way is up, left and right (the layout is of a hand or a face)")
        return unknown
    if not np.isfinite(up).any():
        what = "y points up could not be checked: neither names of joints nor the tree show head and hips"
        report.whole(WARN, what, True, [], "call them head, base_spine, left_hip … in the layout")
        unknown.add("y points up")
    if planar:
        report.unchecked.append("left is left (planar keypoints have no depth)")
        unknown.add("left is left")
    elif not np.isfinite(handedness).any():
        what = "left and right could not be checked: it takes both hips or shoulders, and hands or feet"
        report.whole(WARN, what, True, [], "name them left_hip, right_hip, left_hand … in the layout")
        unknown.add("left is left")
    elif not column(report.measures, "sure").any() and np.nanmedian(handedness) < 0:
        what = "left and right swapped: hands are mostly behind the body"
        report.whole(BAD, what, True, [], KINDS["mirrored"].advice)
        unknown.add("left is left")
    return unknown
