"""Accuracy on a side of a protocol: what ``mmcl evaluate`` does where nothing else is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from mmcl.common.errors import UserError
from mmcl.data.selection import Selection
from mmcl.evaluation.base import Apply, Evaluation, Verdict
from mmcl.evaluation.floors import floors_of
from mmcl.evaluation.metrics import score_metrics
from mmcl.models.model import Model


@dataclass(frozen=True)
class Top1Options:
    """There are none."""


class Top1(Evaluation):
    """The classifier on the clips of a side, argmax over all classes of the model."""

    options_type: ClassVar[type] = Top1Options

    def run(self, model: Model, data: Selection, apply: Apply) -> Verdict:
        """Metrics of :func:`mmcl.evaluation.metrics.score_metrics`; scores and labels by clip.

        Raises:
            UserError: the model does not know all classes of the protocol, or the side has no clip.
        """
        clips = data.clips
        labels = data.targets(clips, model.class_names)
        if not len(clips):
            raise UserError(f"the run holds no clips out for validation: --split={data.side} is empty")
        notes = [model.description.unlearned] if model.description.unlearned else []
        if (known := len(np.unique(data.outputs(model.class_names)))) < len(model.class_names):
            notes.append(
                f"{data.store.location} shows {known} of the {len(model.class_names)} classes; the answer may be any "
                "of them all"
            )
        if withheld := len(data.sides.unseen_classes):
            notes.append(
                f"{data.protocol} withholds {withheld} classes: these are clips of the trained ones; `mmcl zero-shot` "
                "judges the others"
            )
        if (floors := floors_of(data)) and (fewer := learned_from_fewer(model, data)):
            notes.append(fewer)
        facts = {"note": "; ".join(notes) or None, "floors": None if floors is None else floors.to_dict()}
        return scored(apply(model, clips), labels, data.ids(clips), model.class_names, facts)


def learned_from_fewer(model: Model, data: Selection) -> str:
    """What to know of the floors where a model learned from some of the training clips (``data.shots``); else empty."""
    clips, learned = data.sides.train, model.record.trained
    count = 0 if learned is None else int(learned.holds(data.store, clips).sum())
    if count in (0, len(clips)):
        return ""
    return f"the numbers without a network learn from all {len(clips)} training clips, this model from {count} of them"


def scored(
    scores: np.ndarray, labels: np.ndarray, ids: list[str], names: list[str], facts: Mapping[str, Any]
) -> Verdict:
    """The verdict on scores of clips.

    Args:
        scores: (n, K), unnormalised: their softmax is what the model believes.
        labels: (n,) true classes.
        ids: n names of clips.
        names: K names of classes.
        facts: what identifies the numbers.

    Raises:
        UserError: scores that are not finite.
    """
    if bad := int((~np.isfinite(scores)).any(axis=1).sum()):
        raise UserError(f"the scores of {bad} of {len(ids)} clips are not finite: the training of this model diverged")
    arrays = {"scores": scores.astype(np.float32), "labels": labels, "class_names": np.array(names)}
    return Verdict(
        metrics=score_metrics(scores, labels), main="top1", ids=ids, correct=scores.argmax(axis=1) == labels,
        arrays=arrays, facts=dict(facts),
    )  # fmt: skip
