"""Accuracy by how often classes were trained: many, medium and few clips, the protocol of long-tailed recognition.

The groups are those of BRL (firework8/BRL) and Shap-Mix (IJCAI 2024): the accuracy of a group is the mean over its
classes, so that a class counts the same whatever clips of it are judged.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mmcl.common.errors import UserError
from mmcl.data.selection import Selection
from mmcl.data.store import ClipStore
from mmcl.evaluation.base import Apply, Evaluation, Verdict
from mmcl.evaluation.reporting.figures import BLUE, GREY, ORANGE, save_figure
from mmcl.evaluation.reporting.pictures import draw_table
from mmcl.evaluation.top1 import Top1, Top1Options
from mmcl.models.bundle import read_tensors
from mmcl.models.model import Model
from mmcl.models.run_checkpoints import LEARNED

CURVE = "classes_by_size.png"
SALIENCY = "saliency.png"


@dataclass(frozen=True)
class GroupsOptions:
    """Which classes count as frequent and as rare.

    Attributes:
        many: a class of more training clips than this is frequent (NTU: 100).
        few: a class of fewer training clips than this is rare (NTU: 20).
    """

    many: int = 100
    few: int = 20

    def __post_init__(self) -> None:
        if not 0 < self.few <= self.many + 1:
            raise UserError(f"groups: few is {self.few} and many {self.many}: few must be 1 or more, and no more than "
                            "many + 1")  # fmt: skip


class Groups(Evaluation):
    """Top-1 of :class:`~mmcl.evaluation.top1.Top1`, and the mean accuracy of the classes of each group."""

    options_type: ClassVar[type] = GroupsOptions

    def run(self, model: Model, data: Selection, apply: Apply) -> Verdict:
        """Metrics of ``top1``, ``groups`` (accuracy and classes of each) and arrays ``training_clips``, ``accuracy``.

        A run of task ``long_tail`` with ``mixing: shap_mix`` has an array ``saliency`` (K, P), too: what each body part
        says of each class.

        Raises:
            UserError: as of ``top1``.
        """
        verdict = Top1(Top1Options()).run(model, data, apply)
        K = len(model.class_names)
        counts = np.bincount(data.targets(trained_clips(model, data), model.class_names), minlength=K)
        found = by_groups(verdict, counts, self.options)
        saliency = part_saliency(model)
        if saliency is None:
            return found
        parts = {"saliency": saliency, "part_names": np.array(list(model.encoder.layout.parts))}
        return replace(found, arrays={**found.arrays, **parts})

    def draw(self, verdict: Verdict, folder: Path, store: ClipStore | None) -> list[str]:
        """Accuracy of every class, from the most frequent to the rarest."""
        draw_curve(verdict.arrays["training_clips"], verdict.arrays["accuracy"], folder / CURVE)
        rows = [
            f"| {name} | {group['classes']} | {'' if group['accuracy'] is None else format(group['accuracy'], '.1%')} |"
            for name, group in verdict.metrics["groups"].items()
        ]
        table = "\n".join(["| training clips | classes | mean accuracy |", "|---|---|---|", *rows])
        blocks = ["## Classes by how often they were trained", table, f"![Accuracy by class]({CURVE})"]
        if "saliency" in verdict.arrays:
            names, parts = (verdict.arrays[key].tolist() for key in ("class_names", "part_names"))
            draw_table(folder / SALIENCY, verdict.arrays["saliency"], names, parts)
            blocks += ["## Which body parts classes are recognised by", f"![Saliency by class and part]({SALIENCY})"]
        return blocks


def trained_clips(model: Model, data: Selection) -> np.ndarray:
    """The training side's clips that a model learned from: data.shots and the like leave some out.

    All clips of that side where the model learned from none of them, or does not say from which.
    """
    clips, learned = data.sides.train, model.record.trained
    held = np.zeros(len(clips), dtype=bool) if learned is None else learned.holds(data.store, clips)
    return clips[held] if held.any() else clips


def part_saliency(model: Model) -> np.ndarray | None:
    """(K, P) what a training by Shap-Mix found out: the mean saliency of the coalitions that a part belongs to.

    In chance of the true class for ten joints, as the coalitions are counted. None for every other model.
    """
    from mmcl.tasks.long_tail.coalitions import LEAST_PARTS, Coalitions

    checkpoint, parts = model.description.provenance.get("checkpoint"), model.encoder.layout.parts
    file = Path(str(checkpoint)) / LEARNED
    if checkpoint is None or not file.is_file() or len(parts) < LEAST_PARTS:
        return None
    values = read_tensors(file).get("saliency.values")
    coalitions = Coalitions(list(parts.values()), model.encoder.layout.joint_count)
    if values is None or values.shape != (len(model.class_names), len(coalitions)):
        return None
    members = coalitions.members.double()
    found: np.ndarray = (values.double() @ members / members.sum(dim=0)).numpy()
    return found


def by_groups(verdict: Verdict, counts: np.ndarray, options: GroupsOptions) -> Verdict:
    """A verdict with groups.

    Args:
        verdict: with ``correct``, and ``labels`` among its arrays.
        counts: (K,) training clips of each class.
        options: where groups begin.
    """
    labels, correct = verdict.arrays["labels"], verdict.correct
    assert correct is not None
    seen = np.bincount(labels, minlength=len(counts))
    right = np.bincount(labels, weights=correct, minlength=len(counts))
    accuracy = np.divide(right, seen, out=np.full(len(counts), np.nan), where=seen > 0)
    members = {
        "many": counts > options.many,
        "medium": (counts <= options.many) & (counts >= options.few),
        "few": counts < options.few,
    }
    groups: dict[str, Any] = {}
    for name, inside in members.items():
        judged = inside & (seen > 0)
        groups[name] = {
            "classes": int(inside.sum()), "accuracy": float(accuracy[judged].mean()) if judged.any() else None
        }  # fmt: skip
    arrays = {**verdict.arrays, "training_clips": counts, "accuracy": accuracy}
    return replace(verdict, metrics={**verdict.metrics, "groups": groups}, arrays=arrays)


def draw_curve(counts: np.ndarray, accuracy: np.ndarray, path: Path) -> None:
    """Training clips and accuracy of each class, the most frequent class first.

    Args:
        counts: (K,).
        accuracy: (K,); NaN for a class of which no clip was judged.
        path: of the picture.
    """
    from matplotlib.figure import Figure

    order = np.argsort(-counts, kind="stable")
    figure = Figure(figsize=(8, 3), dpi=110)
    bars = figure.add_axes((0, 0, 1, 1))
    bars.bar(range(len(order)), counts[order], color=GREY, alpha=0.4)
    bars.set_xlabel("classes, the most frequent first")
    bars.set_ylabel("training clips", color=GREY)
    line = bars.twinx()
    line.plot(range(len(order)), 100 * accuracy[order], "o", color=BLUE, markersize=3)
    mean = np.nanmean(accuracy) if np.isfinite(accuracy).any() else np.nan
    line.axhline(100 * mean, color=ORANGE, linewidth=1, label="mean of classes")
    line.set_ylabel("accuracy, %", color=BLUE)
    line.set_ylim(-3, 103)
    line.legend(loc="lower left", frameon=False, fontsize=8)
    save_figure(figure, path)
