"""What is printed of a zero-shot report: the number with its rule, and on lines of their own what it depends on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SHOWN = 12  # names of classes in a line


def report_lines(report: Mapping[str, Any], out: Path) -> list[str]:
    """Lines to print.

    Args:
        report: content of its ``report.json``.
        out: its folder.
    """
    top5 = f", top-5 {report['top5']:.2%}" if report["top5"] is not None else ""
    lines = [
        f"{report['protocol']} ({report['kind']}): top-1 {report['top1']:.2%} ({report['correct']} of {report['n']}; "
        f"most frequent class {report['majority_share']:.2%}, guessing {report['chance_uniform']:.2%}){top5}; "
        f"report in {out}"
    ]
    for key in ("generalised", "generalised_by_text_alone"):
        if sides := report.get(key):
            lines.append(
                f"{key.replace('_', ' ')}: seen {sides['seen']:.2%}, unseen {sides['unseen']:.2%}, "
                f"harmonic mean {sides['harmonic']:.2%}"
            )
    lines += [f"{key}: {report[key]}" for key in ("cycle", "by_cycle") if report.get(key)]
    if "unseen_classes" in report:
        lines.append(f"never trained: {_some(report['unseen_classes'])}")
    lines += [f"{key}: {report[key]}" for key in ("texts", "control", "note", "warning") if report.get(key)]
    if (gate := report.get("gate")) and gate.get("released"):
        lines.append(
            f"gate: as released, fitted on {gate['calibration_clips']} calibration clips by {gate['run']} (accuracy "
            f"{gate['accuracy']:.2%} on those held out; temperature {gate['temperature']:g}, threshold "
            f"{gate['threshold']:g})"
        )
    elif gate:
        lines.append(
            f"gate: fitted on {gate['fitted_on']} of {gate['calibration_clips']} calibration clips by {gate['run']} "
            f"(there seen {gate['seen']:.2%}, unseen {gate['unseen']:.2%}, harmonic mean {gate['harmonic']:.2%}; "
            f"temperature {gate['temperature']:g}, threshold {gate['threshold']:g})"
        )
    elif "generalised_by_text_alone" in report:
        lines.append("gate: none; a run of this protocol's /gate variant fits one (--gate RUN)")
    return lines


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:SHOWN]) or "none"
    return shown if len(names) <= SHOWN else f"{shown}, … ({len(names)} in all)"
