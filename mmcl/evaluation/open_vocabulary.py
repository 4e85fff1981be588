"""Open vocabulary: classes that were never trained, recognised by the similarity of a skeleton's embedding to texts.

Zero-shot (ZSL): clips of unseen classes, argmax over the unseen classes. Generalised (GZSL): clips of all classes,
argmax over all; accuracy on seen and on unseen clips, and their harmonic mean. There the classifier of the trained
classes answers for the seen ones, and a gate that was fitted without any unseen class decides who answers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mmcl.common.errors import UserError
from mmcl.data.apply_protocol import split
from mmcl.data.protocols import load_protocol
from mmcl.data.selection import Selection
from mmcl.evaluation.base import Apply, Evaluation, Verdict
from mmcl.evaluation.gate import Gate, choices, generalised
from mmcl.evaluation.gate_run import check_same_words, find_gate_run
from mmcl.evaluation.metrics import softmax
from mmcl.evaluation.open_scores import OpenScores, open_scores
from mmcl.evaluation.released_gate import fit_released_gate, released_generalised
from mmcl.evaluation.top1 import scored
from mmcl.models.folder import open_model
from mmcl.models.model import Model
from mmcl.models.vocabulary import require_vocabulary


@dataclass(frozen=True)
class OpenVocabularyOptions:
    """Options of :class:`OpenVocabulary`.

    Attributes:
        gate: folder of a run of ``<protocol>/gate``, on whose calibration clips the gate is fitted; None for no gate.
        which: checkpoint of that run.
        released: fit and apply the gate as SA-DVAE's released scripts do.
        temperature: of the gate; None chooses one where the gate is fitted.
        threshold: of the gate; None chooses one where the gate is fitted.
    """

    gate: str | None = None
    which: str = "last"
    released: bool = False
    temperature: float | None = None
    threshold: float | None = None

    def __post_init__(self) -> None:
        choices(self.temperature, self.threshold)


class OpenVocabulary(Evaluation):
    """The withheld classes of an open-vocabulary protocol, and with a gate all of its classes."""

    options_type: ClassVar[type] = OpenVocabularyOptions
    judges = "withheld"

    def run(self, model: Model, data: Selection, apply: Apply) -> Verdict:
        """Zero-shot accuracy on the clips of unseen classes; generalised accuracies as groups of metrics.

        Raises:
            UserError: the model was trained on other classes than the protocol's seen ones, or knows no texts; a side
                of the protocol has no clip here; or the gate's run was trained otherwise than the model.
        """
        assert data.rule is not None and data.protocol is not None
        judge: Judge | None = None
        facts: dict[str, Any] = {}
        if self.options.gate is not None:
            judge, facts["gate"] = self._fit(Path(self.options.gate), model, data, apply)
        found, seen = open_scores(model, data, apply), len(data.sides.classes)
        alone = generalised(found.text[:, :seen], found.text[:, seen:], found.labels, None)
        groups = {"generalised_by_text_alone": alone}
        if judge is not None:
            groups["generalised"] = judge(found)
        withheld = len(data.sides.test)  # the first clip of an unseen class
        facts |= {
            "protocol": data.rule.name,
            "kind": "open vocabulary: clips of unseen classes, argmax over the unseen classes",
            "rule": data.rule.source, "trained_classes": found.names[:seen], "unseen_classes": found.names[seen:],
            **found.facts,
        }  # fmt: skip
        clips, labels = found.clips[withheld:], found.labels[withheld:] - seen
        verdict = scored(found.unseen[withheld:], labels, data.ids(clips), found.names[seen:], facts)
        return replace(verdict, metrics={**verdict.metrics, **groups})

    def _fit(self, path: Path, model: Model, data: Selection, apply: Apply) -> tuple[Judge, dict[str, Any]]:
        """Fit the gate on the calibration clips of a gate run: how it judges, and what a report says of it."""
        assert data.rule is not None and data.protocol is not None
        run = find_gate_run(path, model, data.rule, data.protocol, self.options.which)
        own = run.description.provenance
        rule = load_protocol(own["protocol"])
        parts = split(data.store, rule, own.get("validation") or None)
        gate_model = open_model(run.path, run.which, data.store.layout, model.device)
        chosen = Selection(data.store, own["protocol"], rule, parts)
        names = [data.store.class_names[label] for label in (*parts.classes, *parts.unseen_classes)]
        judged = require_vocabulary(model.vocabulary, "the model")
        check_same_words(run, names, require_vocabulary(gate_model.vocabulary, path), judged)
        calibration = open_scores(gate_model, chosen, apply)
        judge, facts = (_fit_released if self.options.released else _fit_gate)(calibration, self.options)
        return judge, {"run": str(run.checkpoint), "calibration_clips": len(calibration.clips), **facts}


Judge = Callable[[OpenScores], dict[str, float]]  # accuracies among all classes: seen, unseen, harmonic


def _fit_gate(calibration: OpenScores, options: OpenVocabularyOptions) -> tuple[Judge, dict[str, Any]]:
    """The gate of this package."""
    temperatures, thresholds = choices(options.temperature, options.threshold)
    gate = Gate.fit(calibration.seen, calibration.unseen, calibration.labels, 0, temperatures, thresholds)
    return lambda found: generalised(found.seen, found.unseen, found.labels, gate), gate.facts


def _fit_released(calibration: OpenScores, options: OpenVocabularyOptions) -> tuple[Judge, dict[str, Any]]:
    """The gate as SA-DVAE released it; it looks at as many probabilities as there are unseen classes."""
    unseen = calibration.labels >= calibration.seen.shape[1]
    chances = softmax(calibration.unseen.astype(np.float64))
    width = chances.shape[1]
    if calibration.seen.shape[1] < width:
        raise UserError(
            f"the released gate looks at as many probabilities of seen classes as of unseen ones, and its run has "
            f"{calibration.seen.shape[1]} seen and {width} pseudo-unseen classes: leave out --released-gate"
        )
    temperatures, thresholds = choices(options.temperature, options.threshold)
    gate = fit_released_gate(
        (chances[unseen], calibration.seen[unseen]), (chances[~unseen], calibration.seen[~unseen]),
        temperatures, thresholds,
    )  # fmt: skip

    def judge(found: OpenScores) -> dict[str, float]:
        if found.unseen.shape[1] != width:
            raise UserError(
                f"the released gate was fitted with {width} pseudo-unseen classes, and here "
                f"{found.unseen.shape[1]} are unseen"
            )
        seen = np.arange(found.seen.shape[1])
        classes = len(seen) + np.arange(width)
        inputs = softmax(found.unseen.astype(np.float64)), found.seen
        _, sides = released_generalised(gate, *inputs, found.labels, classes, seen)
        return {**sides, "unseen_share": float(1 - gate.to_seen(*inputs).mean())}

    return judge, {"released": True, **gate.facts}
