"""A report folder: what was judged, by which rule, and how it came out. No number without its protocol."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmcl.common.files import atomic_folder, write_json
from mmcl.common.printing import complain, csv_cell, safe_page
from mmcl.data.store import ClipStore
from mmcl.evaluation.base import Evaluation, Verdict
from mmcl.evaluation.calibration import calibration
from mmcl.evaluation.metrics import most_confused, per_class, softmax
from mmcl.evaluation.reporting.page import PAIRS, classification_page, plain_page
from mmcl.evaluation.reporting.pictures import draw_classes, draw_confusion, draw_reliability
from mmcl.evaluation.reporting.wrong_clips import COLUMNS, draw_sheets, wrong_clips
from mmcl.evaluation.reporting.wrong_page import WRONG_PAGE, write_wrong_page

CLASSIFICATION = {"scores", "labels", "class_names"}  # arrays with which a report shows how classes came out


def write_report(
    out: Path, verdict: Verdict, facts: Mapping[str, Any] | None = None, store: ClipStore | None = None,
    evaluation: Evaluation | None = None, turning: int = 0, video: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Write a report folder in one go.

    It holds report.json, report.md and scores.npz (ids, correct where there is such a thing, and the verdict's arrays).
    Of a classification there are also per_class.csv and wrong.csv; confusion.png, classes.png and reliability.png; and,
    where the clips are at hand, ``wrong/`` with a picture of each of the most confidently wrong ones.

    Args:
        out: folder to write; an older report there is replaced.
        verdict: how the model came out.
        facts: what else identifies the number: the model, its checkpoint, the split used for selection.
        store: where the clips are, to draw some of them.
        evaluation: that gave the verdict, for pictures of its own.
        turning: of so many of the most confidently wrong clips, write a page on which they move and can be turned.
        video: draw wrong clips on the pictures of their video; these are recordings of somebody, so only if asked.

    Returns:
        The content of report.json: the verdict's facts and those given, its metrics, and the name of the main one.

    Raises:
        UserError: ``out`` holds something else than a report.
    """
    report = {**verdict.facts, **(facts or {}), **verdict.metrics, "main": verdict.main}
    arrays: dict[str, Any] = {"ids": np.array(verdict.ids), **verdict.arrays}
    if verdict.correct is not None:
        arrays["correct"] = verdict.correct
    with atomic_folder(out, "report.json") as folder:
        write_json(folder / "report.json", report)
        np.savez(folder / "scores.npz", **arrays)
        blocks = [] if evaluation is None else evaluation.draw(verdict, folder, store)
        if verdict.arrays.keys() >= CLASSIFICATION:
            page = _write_classification(folder, verdict, report, blocks, store, turning, video)
        else:
            if turning:
                complain("note", "this evaluation names no wrong clips: there is none to show")
            page = plain_page(report, verdict.metrics, len(verdict.ids), blocks)
        (folder / "report.md").write_text(safe_page(page), encoding="utf-8")
    return report


def _write_classification(
    folder: Path, verdict: Verdict, report: Mapping[str, Any], blocks: Sequence[str], store: ClipStore | None,
    turning: int, video: bool,
) -> str:  # fmt: skip
    """Tables and pictures of a classification; returns its page."""
    scores, labels = verdict.arrays["scores"], verdict.arrays["labels"]
    names, predicted = verdict.arrays["class_names"].tolist(), scores.argmax(axis=1)
    title = " ".join(str(report[key]) for key in ("protocol", "split") if report.get(key))
    classes = per_class(scores, labels, names)
    wrong = wrong_clips(softmax(scores), predicted, labels, verdict.ids, names)
    undrawn = draw_sheets(wrong, store, folder, video) if store is not None else ""
    turned = turning > 0 and store is not None and write_wrong_page(folder, wrong[:turning], verdict, store, title)
    _write_csv(folder / "per_class.csv", classes, list(classes[0]))
    _write_csv(folder / "wrong.csv", wrong, COLUMNS)
    draw_confusion(folder / "confusion.png", predicted, labels, names, title)
    draw_classes(folder / "classes.png", classes, report["mean_class_accuracy"], title)
    draw_reliability(folder / "reliability.png", calibration(scores, labels), title)
    pairs = most_confused(predicted, labels, PAIRS)
    return classification_page(report, classes, pairs, wrong, undrawn, blocks, WRONG_PAGE if turned else "")


def _write_csv(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        for row in rows:
            writer.writerow({key: f"{v:.4f}" if isinstance(v, float) else csv_cell(v) for key, v in row.items()})
