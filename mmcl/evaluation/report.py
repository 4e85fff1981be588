"""A report folder: what was judged, by which rule, and how it came out. No number without its protocol."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmcl.common.errors import UserError
from mmcl.common.files import atomic_folder, write_json
from mmcl.data.store import ClipStore
from mmcl.evaluation.calibration import calibration
from mmcl.evaluation.metrics import classification_metrics, most_confused, per_class, softmax
from mmcl.evaluation.reporting.page import PAIRS, report_page
from mmcl.evaluation.reporting.pictures import draw_classes, draw_confusion, draw_reliability
from mmcl.evaluation.reporting.wrong_clips import COLUMNS, draw_sheets, wrong_clips


def write_report(
    out: Path,
    scores: np.ndarray,
    labels: np.ndarray,
    ids: list[str],
    names: list[str],
    facts: Mapping[str, Any],
    store: ClipStore | None = None,
) -> dict[str, Any]:
    """Write a report folder in one go.

    It holds report.json and report.md; per_class.csv and wrong.csv; confusion.png, classes.png and reliability.png;
    scores.npz (ids, scores, labels, class_names); and, where the clips are at hand, ``wrong/`` with a picture of each
    of the most confidently wrong ones.

    Args:
        out: folder to write; an older report there is replaced.
        scores: (n, K), unnormalised: their softmax is what the model believes.
        labels: (n,).
        ids: n clip names; scores are joined by them, never by row order.
        names: K class names.
        facts: protocol, data fingerprint, checkpoint, split used for selection, whatever else identifies the number.
        store: where the clips are, to draw some of them.

    Returns:
        The content of report.json.

    Raises:
        UserError: ``out`` holds something else than a report, or scores are not finite.
    """
    if bad := int((~np.isfinite(scores)).any(axis=1).sum()):
        raise UserError(f"the scores of {bad} of {len(ids)} clips are not finite: the training of this model diverged")
    found, predicted = calibration(scores, labels), scores.argmax(axis=1)
    report = {**facts, **classification_metrics(scores, labels), "ece": found.ece, "nll": found.nll}
    classes = per_class(scores, labels, names)
    wrong = wrong_clips(softmax(scores), predicted, labels, ids, names)
    title = " ".join(str(facts[key]) for key in ("protocol", "split") if facts.get(key))
    with atomic_folder(out, "report.json") as folder:
        undrawn = draw_sheets(wrong, store, folder) if store is not None else ""
        write_json(folder / "report.json", report)
        _write_csv(folder / "per_class.csv", classes, list(classes[0]))
        _write_csv(folder / "wrong.csv", wrong, COLUMNS)
        np.savez(
            folder / "scores.npz", ids=np.array(ids), scores=scores.astype(np.float32), labels=labels,
            class_names=np.array(names),
        )  # fmt: skip
        draw_confusion(folder / "confusion.png", predicted, labels, names, title)
        draw_classes(folder / "classes.png", classes, report["mean_class_accuracy"], title)
        draw_reliability(folder / "reliability.png", found, title)
        page = report_page(report, classes, most_confused(predicted, labels, PAIRS), wrong, undrawn)
        (folder / "report.md").write_text(page, encoding="utf-8")
    return report


def _write_csv(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        for row in rows:
            writer.writerow({key: f"{v:.4f}" if isinstance(v, float) else v for key, v in row.items()})
