"""Whether a model knows what it does not know: clips of classes that it never saw, and wrong answers, by confidence.

AUROC is how often a clip of a known class has a larger score than one of an unknown class. Risk and coverage: of the
clips that a threshold leaves, which share is answered wrong (Geifman and El-Yaniv, Selective Classification for Deep
Neural Networks, NeurIPS 2017); the area under that curve is AURC, and smaller is better.

Three scores are compared: the largest probability; energy, the logarithm of the sum of exponentials of all scores; and
familiarity (:mod:`mmcl.models.familiarity`). A bundle's threshold is of the first or of the last.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np

from mmcl.common.errors import UserError
from mmcl.data.class_texts import class_key
from mmcl.data.selection import Selection
from mmcl.data.store import ClipStore
from mmcl.deploy.known_clips import judged
from mmcl.deploy.rejecting import familiarity_of
from mmcl.evaluation.base import Apply, Evaluation, Verdict
from mmcl.evaluation.rejection_numbers import ENERGY, draw_curve, rejection_metrics, values_of
from mmcl.evaluation.top1 import Top1, Top1Options
from mmcl.models.graph_model import GraphModel
from mmcl.models.model import Model
from mmcl.models.rejection import FAMILIARITY, LEAST, PROBABILITY, read_rejection

CURVE = "risk_coverage.png"
WORDS = {PROBABILITY: "the largest probability", ENERGY: "energy", FAMILIARITY: "familiarity"}


@dataclass(frozen=True)
class RejectOptions:
    """Options of :class:`Reject`.

    Attributes:
        score: probability or familiarity; empty for the one that the bundle goes by, or else familiarity.
        threshold: score below which an answer counts as none of the classes; None for the one that the bundle holds,
            where it holds one of that score.
    """

    score: str = ""
    threshold: float | None = None

    def __post_init__(self) -> None:
        if self.score and self.score not in LEAST:
            raise UserError(f"rejection: score is '{self.score:.40}': choose from {', '.join(LEAST)}")
        if self.threshold is not None and not -1 <= self.threshold <= 1:
            raise UserError(f"rejection: threshold is {self.threshold}: it must be from -1 to 1")


class Reject(Evaluation):
    """Known classes against those that the protocol withholds, and right answers against wrong ones.

    A protocol that withholds classes has clips of unknown classes; with any other, risk and coverage alone are judged.
    """

    options_type: ClassVar[type] = RejectOptions

    def run(self, model: Model, data: Selection, apply: Apply) -> Verdict:
        """Metrics of ``top1``, and ``rejection``: AUROC by each score, AURC, and what the threshold does.

        Raises:
            UserError: as of ``top1``, the model has learned a class that the protocol withholds, or there is nothing
                that familiarity could be with.
        """
        check_unknown(model, data)
        judge = with_familiarity(model, data, apply)
        none = np.zeros((0, len(model.class_names) + 1))
        found, others = (
            apply(partial(judged, judge), clips) if len(clips) else none for clips in (data.clips, data.sides.unseen)
        )
        verdict = Top1(Top1Options()).run(model, data, lambda function, clips: found[:, :-1])
        known, unknown = (values_of(rows, judge.says_familiarity) for rows in (found, others))
        rule = read_rejection(model.description.rejection, str(model.path))
        asked = self.options.score or (rule.score if rule is not None else "")
        if asked and asked not in known:
            raise UserError(
                f"{model.path}: nothing says how familiar clips look to it: that takes weights and training clips, or "
                "a bundle that rejects by familiarity"
            )
        score = asked or next(name for name in (FAMILIARITY, PROBABILITY) if name in known)
        threshold = self.options.threshold
        if threshold is None and rule is not None and rule.score == score:
            threshold = rule.threshold
        assert verdict.correct is not None, "top1 says which are right"
        numbers = rejection_metrics(known, ~verdict.correct, unknown, score, threshold)
        arrays = {**verdict.arrays, **{f"known_{name}": row for name, row in known.items()}}
        arrays |= {f"unseen_{name}": row for name, row in unknown.items()}
        metrics = {**verdict.metrics, "auroc": numbers["auroc"][score], "rejection": numbers}
        return replace(verdict, metrics=metrics, main="auroc" if len(data.sides.unseen) else "top1", arrays=arrays)

    def draw(self, verdict: Verdict, folder: Path, store: ClipStore | None) -> list[str]:
        """The curve of risk and coverage, and the numbers in words."""
        found = verdict.metrics["rejection"]
        score, threshold = found["score"], found["threshold"]
        assert verdict.correct is not None, "as above"
        draw_curve(verdict.arrays[f"known_{score}"], ~verdict.correct, threshold, folder / CURVE)
        areas = ", ".join(f"{area:.4f} by {WORDS[name]}" for name, area in found["aurc"].items())
        lines = [f"- area under risk and coverage (AURC): {areas}"]
        if found["unknown_clips"]:
            by = ", ".join(f"{area:.3f} by {WORDS[name]}" for name, area in found["auroc"].items())
            lines.append(f"- known against {found['unknown_clips']} clips of unknown classes, AUROC: {by}")
        if threshold is not None:
            after = f"{found['known_rejected']:.1%} of the known clips are rejected"
            top1 = f"top-1 with these as wrong {found['top1_after']:.2%}"
            lines.append(f"- at the threshold {threshold:.3f} of {WORDS[score]}: {after}, {top1}")
        if found["unknown_rejected"] is not None:
            lines.append(f"- of the clips of unknown classes, {found['unknown_rejected']:.1%} are rejected")
        return ["## None of these", "\n".join(lines), f"![Risk and coverage]({CURVE})"]


def check_unknown(model: Model, data: Selection) -> None:
    """Whether the classes that a protocol withholds are unknown to a model.

    Raises:
        UserError: it was trained on one of them, so that its clips are no clips of an unknown class.
    """
    names = {class_key(name) for name in model.class_names}
    withheld = [data.store.class_names[label] for label in data.sides.unseen_classes]
    if learned := [name for name in withheld if class_key(name) in names]:
        raise UserError(
            f"{model.path} was trained on {len(learned)} of the {len(withheld)} classes that {data.protocol} withholds "
            f"('{learned[0]:.60}'): they are not unknown to it; train with --data.protocol={data.protocol}"
        )


def with_familiarity(model: Model, data: Selection, apply: Apply) -> Model:
    """A model that says how familiar clips look, by the training clips of a selection where it does not by itself.

    Left as it is where that cannot be: graphs have no features, and there may be no training clips.
    """
    if isinstance(model, GraphModel) or model.familiarity is not None or not len(data.sides.train):
        return model
    kept = familiarity_of(model, data, apply).to(model.device)
    return Model(model.description, model.encoder, model.preprocess, model.vocabulary, model.path, kept)
