"""The page that ``mmcl check`` writes and the lines that it prints."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mmcl.common.files import atomic_file, write_text
from mmcl.common.printing import page_cell, safe_page
from mmcl.data.clip_parts import DamagedClip
from mmcl.data.inspection.findings import BAD, OK, WARN, Report

MEANING = {
    OK: "nothing found that stands against training on it",
    WARN: "usable, after a look at the clips that this report names",
    BAD: "do not train on it before the BAD lines are dealt with",
}


def facts(report: Report) -> list[tuple[str, str]]:
    """(name, value) of what the store holds."""
    store = report.store
    used, clips = np.unique(store.labels, return_counts=True)
    video = int((store.video_frames > 0).sum())
    people, takes = np.unique(store.subjects, return_counts=True)
    crowds = np.unique(store.bodies, return_counts=True)
    lines = [
        ("dataset", f"{store.title}, layout {store.layout.name}, {store.fps:g} fps"),
        ("clips", f"{len(store)}, and {store.info['skipped']} skipped while preparing; {video} with video"),
        ("classes", f"{len(used)} of {len(store.class_names)}, {_spread(clips)} clips each"),
        ("subjects", f"{len(people)}, {_spread(takes)} clips each" if people.any() else "not named by these files"),
        ("frames", f"{_spread(store.frames)} (min / median / max)"),
        ("bodies", ", ".join(f"{_clips(count)} with {bodies}" for bodies, count in zip(*crowds, strict=True))),
    ]
    for protocol, sides in report.splits.items():
        lines.append((protocol, " / ".join(f"{len(members)} {side}" for side, members in sides.items())))
        if protocol in report.floors:
            lines.append(("  without a network", report.floors[protocol]))
    return [*lines, ("fingerprint", store.fingerprint)]


def _clips(count: int) -> str:
    return f"{count} clip{'s' if count != 1 else ''}"


def _spread(values: np.ndarray) -> str:
    return f"{values.min()} / {np.median(values):g} / {values.max()}"


def as_text(report: Report) -> str:
    """For the terminal: facts, findings, verdict."""
    known = facts(report)
    width = max(len(name) for name, _ in known)
    lines = [f"{name:<{width}}  {value}" for name, value in known]
    lines += [str(finding) for finding in report.findings]
    if report.unchecked:
        lines.append(f"not checked: {'; '.join(report.unchecked)}")
    lines.append(f"passed: {'; '.join(report.passed)}")
    return "\n".join([*lines, f"verdict: {report.verdict} ({MEANING[report.verdict]})"])


def as_markdown(report: Report) -> str:
    """For ``check.md``: the same, and a table of the classes."""
    store = report.store
    lines = [f"# {page_cell(store.title)}: {report.verdict}", "", f"{MEANING[report.verdict]}.".capitalize(), ""]
    lines += ["| | |", "|---|---|", *(f"| {name} | {page_cell(value)} |" for name, value in facts(report)), ""]
    if report.findings:
        lines += ["| level | what | how many | which | what to do |", "|---|---|---|---|---|"]
        for finding in report.findings:
            shown = ", ".join(finding.names[:20]) + (" …" if len(finding.names) > 20 else "")
            cells = (finding.level, finding.what, finding.count, shown, finding.advice)
            lines.append(f"| {' | '.join(map(page_cell, cells))} |")
        lines.append("")
    lines += [f"Passed: {'; '.join(report.passed)}.", ""]
    if report.unchecked:
        lines += [f"Not checked: {'; '.join(report.unchecked)}.", ""]
    lines += ["![contact sheet](contact_sheet.png)", "", "| label | class | clips | subjects | frames (median) |"]
    lines += ["|---|---|---|---|---|"]
    for label, name in enumerate(store.class_names):
        mine = store.labels == label
        frames = f"{np.median(store.frames[mine]):g}" if mine.any() else "-"
        people = len(np.unique(store.subjects[mine])) if store.subjects.any() else "-"
        lines.append(f"| {label} | {page_cell(name)} | {mine.sum()} | {people} | {frames} |")
    return "\n".join([*lines, ""])


def write(report: Report, folder: Path) -> tuple[Path, Path | None]:
    """Write ``check.md`` and ``contact_sheet.png`` into a folder; their paths. Damaged clips cannot be drawn."""
    from mmcl.data.inspection.contact_sheet import contact_sheet

    folder.mkdir(parents=True, exist_ok=True)
    page, sheet = folder / "check.md", folder / "contact_sheet.png"
    write_text(page, safe_page(as_markdown(report)))
    try:
        picture = contact_sheet(report.store)
    except DamagedClip:
        return page, None
    with atomic_file(sheet) as temporary:
        picture.save(temporary, format="png")
    return page, sheet
