"""The YAML head of a model card on the hub: what a model is, what it learned from, and how it was judged."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mmcl.common.errors import UserError
from mmcl.models.description import Description
from mmcl.models.record import Record

TASK = {"type": "video-classification", "name": "Skeleton-based action recognition"}
METRICS = {"top1": "accuracy", "top5": "accuracy", "mean_class_accuracy": "accuracy"}  # of a report -> type on the hub


def card_head(
    description: Description, licence: str, reports: Iterable[Path] = (), network: str = ""
) -> dict[str, Any]:  # fmt: skip
    """The head of a card.

    Args:
        description: of the bundle.
        licence: the licence that the weights are given away under, as the hub calls it: apache-2.0, other.
        reports: folders that ``mmcl evaluate`` wrote of this model, for its numbers.
        network: digest of the bundle's network, which reports have to name.

    Raises:
        UserError: a report is damaged, or of another network.
    """
    record = Record.from_json(description.record, "config.json") if description.record else None
    learned = list(dict.fromkeys(each.dataset for each in record.lineage() if each.dataset)) if record else []
    datasets = learned or [str(name) for name in [description.provenance.get("dataset")] if name]
    tags = ["skeleton-based-action-recognition", "mmcl", description.encoder.name, f"layout:{description.layout.name}"]
    head: dict[str, Any] = {
        "library_name": "mmcl", "license": licence, "pipeline_tag": TASK["type"], "tags": tags, "datasets": datasets,
    }  # fmt: skip
    results = [_result(folder, network) for folder in reports]
    if results:
        head["metrics"] = sorted({metric["type"] for result in results for metric in result["metrics"]})
        head["model-index"] = [{"name": f"{description.encoder.name} ({description.layout.name})", "results": results}]
    if record is not None:
        head["learned_from"] = [
            {
                "dataset": each.dataset,
                "protocol": each.protocol,
                "clips": 0 if each.trained is None else len(each.trained),
            }
            for each in record.lineage()
        ]
    return head


def _result(folder: Path, network: str) -> dict[str, Any]:
    """A report as the hub has results: never a number without the rule by which it was judged."""
    path = folder / "report.json"
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        rule, split, n = report["protocol"], report.get("split", "test"), report["n"]
        metrics = [
            {"type": kind, "value": round(float(report[name]), 6), "name": f"{name}, {rule} {split}, {n} clips"}
            for name, kind in METRICS.items() if report.get(name) is not None
        ]  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not a report of `mmcl evaluate` that names its protocol ({error})") from error
    if not metrics:
        raise UserError(f"{path}: no accuracy in it")
    judged = report.get("network")
    if not judged:
        raise UserError(f"{path} does not say of which network it is: an ensemble, or an older mmcl's; evaluate the "
                        "bundle, or its run, again")  # fmt: skip
    if judged != network:
        raise UserError(f"{path}: a report of another network than this bundle holds")
    dataset = str(rule).partition("/")[0]
    return {
        "task": TASK,
        "dataset": {"type": dataset, "name": f"{dataset}, {rule}", "split": split},
        "metrics": metrics,
    }
