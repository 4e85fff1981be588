"""A report folder: what was judged, by which rule, and how it came out. No number without its protocol."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mmcl.evaluation.metrics import classification_metrics, per_class, softmax
from mmcl.files import atomic_folder, write_json


def write_report(
    out: Path, scores: np.ndarray, labels: np.ndarray, ids: list[str], names: list[str], facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Write report.json, report.md, per_class.csv, wrong.csv, confusion.png and scores.npz in one go.

    Args:
        out: folder to write; an older report there is replaced.
        scores: (n, K).
        labels: (n,).
        ids: n clip names; scores are joined by them, never by row order.
        names: K class names.
        facts: protocol, data fingerprint, checkpoint, split used for selection, whatever else identifies the number.

    Returns:
        The content of report.json.
    """
    report = {**facts, **classification_metrics(scores, labels)}
    rows = per_class(scores, labels, names)
    probabilities = softmax(scores)
    predicted = scores.argmax(axis=1)
    with atomic_folder(out, "report.json") as folder:
        write_json(folder / "report.json", report)
        _write_csv(folder / "per_class.csv", rows)
        wrong = [
            {
                "id": ids[i], "label": names[labels[i]], "predicted": names[predicted[i]],
                "probability": f"{probabilities[i, predicted[i]]:.4f}",
                "probability_of_label": f"{probabilities[i, labels[i]]:.4f}",
            }
            for i in np.flatnonzero(predicted != labels)
        ]  # fmt: skip
        _write_csv(folder / "wrong.csv", wrong, ["id", "label", "predicted", "probability", "probability_of_label"])
        np.savez(folder / "scores.npz", ids=np.array(ids), scores=scores.astype(np.float32), labels=labels)
        draw_confusion(folder / "confusion.png", predicted, labels, names, str(report.get("protocol", "")))
        (folder / "report.md").write_text(_markdown(report, rows, len(wrong)), encoding="utf-8")
    return report


def _write_csv(path: Path, rows: list[dict[str, Any]], columns: list[str] | None = None) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns or list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def draw_confusion(path: Path, predicted: np.ndarray, labels: np.ndarray, names: list[str], title: str) -> None:
    """Draw the confusion matrix, rows (true classes) summing to one."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from sklearn.metrics import ConfusionMatrixDisplay

    side = max(4.0, 0.32 * len(names) + 2.0)
    figure, axes = plt.subplots(figsize=(side, side))
    display = ConfusionMatrixDisplay.from_predictions(
        labels, predicted, labels=np.arange(len(names)), display_labels=names, normalize="true",
        xticks_rotation="vertical", include_values=len(names) <= 15, values_format=".2f", cmap="Blues",
        colorbar=False, ax=axes,
    )  # fmt: skip
    display.ax_.set_title(title)
    figure.savefig(path, dpi=110, bbox_inches="tight", format="png")
    plt.close(figure)


def _markdown(report: Mapping[str, Any], rows: list[dict[str, Any]], wrong: int) -> str:
    top5 = f", top-5 {report['top5']:.2%}" if report["top5"] is not None else ""
    facts = "\n".join(
        f"| {key.replace('_', ' ')} | {value} |"
        for key, value in report.items()
        if key not in ("top1", "top5", "mean_class_accuracy", "n", "correct") and value is not None
    )
    worst = sorted((row for row in rows if row["clips"]), key=lambda row: row["recall"])
    table = "\n".join(
        f"| {row['name']} | {row['correct']} / {row['clips']} | {row['recall']:.1%} | {row['mostly_taken_for']} |"
        for row in worst
    )
    return f"""# {report["top1"]:.2%} top-1 on {report["protocol"]}

{report["correct"]} of {report["n"]} clips right{top5}, mean class accuracy {report["mean_class_accuracy"]:.2%}.

| | |
|---|---|
{facts}

![confusion](confusion.png)

## Classes, the hardest first

| class | right | recall | mostly taken for |
|---|---|---|---|
{table}

{wrong} wrong clips are in `wrong.csv`, all scores by clip id in `scores.npz`.
"""
