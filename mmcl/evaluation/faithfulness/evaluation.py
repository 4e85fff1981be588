"""The evaluation ``faithfulness``: an attribution is tested by damaging what it names, against chance."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from mmcl.attributions.base import Attribution, build_attribution
from mmcl.attributions.sources import gathered
from mmcl.attributions.view import View, content_keys
from mmcl.common.draws import named_seed
from mmcl.common.errors import UserError
from mmcl.data.selection import Selection
from mmcl.data.store import ClipStore
from mmcl.encoders.edge_gcn.network import EdgeGCN
from mmcl.evaluation.base import Apply, ClipFunction, Evaluation, Verdict
from mmcl.evaluation.faithfulness import pictures
from mmcl.evaluation.faithfulness.choices import ranked_choices, signed_choices
from mmcl.evaluation.faithfulness.damage import Method, deleted, edges_changed, inserted
from mmcl.evaluation.faithfulness.options import FaithfulnessOptions
from mmcl.evaluation.faithfulness.stability import NAMES, randomised, rank_correlation, stability
from mmcl.evaluation.faithfulness.summary import Damage, interval
from mmcl.models.model import Model

Background = tuple[Tensor, Tensor]
PART = 8  # clips between two moves of the bar


class Faithfulness(Evaluation):
    """Joints that speak most for an answer are taken away, and the model should care more than about others.

    - **deletion**: the chosen joints move as the mean of the background; **insertion**: they alone move as in the clip.
    - **edge_zero**, **edge_shift** of an ``edge_gcn``: what chosen joints keep of themselves is changed (ShapGCN).
    - **pgi**, **pgu**: mean change of the probability when important, or unimportant, joints are damaged (OpenXAI).
    - **stability**: relative change of the explanation to that of input, scores and features of noisy clips.
    - **random_weights**: rank correlation with the explanation of a model whose head, or all of it, is random.

    Gaps compare with ``draws`` random choices of as many joints; intervals are bootstraps over clips.
    """

    options_type: ClassVar[type] = FaithfulnessOptions
    tiny: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {"clips": 4, "background": 2, "counts": [1, 3], "draws": 3, "stable": 2, "neighbours": 2}
    )

    def run(self, model: Model, data: Selection, apply: Apply) -> Verdict:
        """Metrics of each kind of damage; arrays of probabilities and answers.

        Raises:
            UserError: a model of graphs alone, a method that does not exist, or no clips.
        """
        if not hasattr(model, "encoder"):
            raise UserError("a bundle of ONNX graphs alone cannot be looked into: faithfulness needs one with weights")
        options, attribution = self.options, self._attribution()
        for side, some in ((data.side, data.clips), ("train", data.sides.train)):
            if not len(some):
                raise UserError(f"{data.protocol} has no clips on its {side} side here, and faithfulness needs some")
        clips = _some(data.clips, options.clips, options.seed, "clips to explain")
        labels = data.targets(clips, model.class_names)
        behind = _some(data.sides.train, options.background, options.seed, "background clips")
        joints, lengths = gathered([data.store.numbers(int(clip)) for clip in behind])
        background = joints.to(model.device), lengths.to(model.device)
        kinds = kinds_of_damage(model, options)

        def measured(joints: Tensor, lengths: Tensor) -> Tensor:
            return self._measured(model, attribution, kinds, (joints, lengths), background)

        found = _in_parts(apply, measured, clips)
        metrics, arrays = self._summary(found, labels, list(kinds))
        metrics |= self._checks(model, attribution, background, apply, clips[: options.stable])
        arrays |= {"labels": labels}
        facts = {"method": options.method, "options": dict(options.options), "background": len(behind),
                 "draws": options.draws, "counts": list(options.counts), "target": "the model's answer"}  # fmt: skip
        metrics = {"deletion_gap": metrics["deletion"]["gap"]["mean"], **metrics}
        return Verdict(metrics, "deletion_gap", data.ids(clips), arrays=arrays, facts=facts)

    def _attribution(self) -> Attribution:
        return build_attribution(self.options.method, {"seed": self.options.seed, **self.options.options})

    def _measured(
        self, model: Model, attribution: Attribution, kinds: Mapping[str, Method], clips: tuple[Tensor, Tensor],
        background: Background,
    ) -> Tensor:  # fmt: skip
        """(N, 1 + kinds * sets * k * 2 + V): the probability, then of each kind probabilities and answers, shares."""
        options = self.options
        target = model(*clips).argmax(dim=1)
        values = attribution.run(model, *clips, target, *background).over_time
        view = View.of(model, clips, background, target, options.seed)
        there, keys = view.mask.any(dim=(1, 2)), content_keys(*clips, options.seed)
        ranked = ranked_choices(values, there, options.counts, keys, options.draws)
        signed = signed_choices(values, there, options.counts, keys, options.draws, options.released)
        whole = view.lean(view.x).softmax(dim=1).gather(1, target[:, None])
        parts = [whole]
        for name, method in kinds.items():
            chosen = signed if name.startswith("edge") else ranked
            scores = method(view, chosen.stacked().flatten(1, 2), chosen.stacked_places().flatten(1, 2))
            probability = scores.softmax(dim=2).gather(2, target[:, None, None].expand(-1, scores.shape[1], 1))[..., 0]
            parts += [probability, scores.argmax(dim=2).to(probability)]
        return torch.cat([*parts, values], dim=1)

    def _summary(
        self, found: np.ndarray, labels: np.ndarray, kinds: list[str]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Metrics and arrays of every kind of damage, from what :meth:`_measured` gave."""
        options = self.options
        shape = (len(found), 2 + options.draws, len(options.counts))
        size, start = shape[1] * shape[2], 1
        metrics: dict[str, Any] = {}
        arrays: dict[str, Any] = {"whole": found[:, 0], "shares": found[:, 1 + 2 * len(kinds) * size :]}
        for name in kinds:
            probability, answer = (found[:, start + part * size : start + (part + 1) * size].reshape(shape) for part in
                                   (0, 1))  # fmt: skip
            start += 2 * size
            damage = Damage(probability, answer.round().astype(np.int64), found[:, 0], options.counts)
            metrics[name] = damage.metrics(labels, -1.0 if name == "insertion" else 1.0, options.seed)
            arrays |= {f"{name}_probability": probability, f"{name}_answer": damage.answer}
        return metrics, arrays

    def _checks(
        self, model: Model, attribution: Attribution, background: Background, apply: Apply, clips: np.ndarray
    ) -> dict[str, Any]:
        """Stability, and rank correlation with explanations of random weights."""
        options = self.options
        if not len(clips):
            return {}
        others = [randomised(model, part, options.seed) for part in ("head", "all")]

        def measured(joints: Tensor, lengths: Tensor) -> Tensor:
            target = model(joints, lengths).argmax(dim=1)
            values = attribution.run(model, joints, lengths, target, *background).over_time
            change = stability(attribution, model, (joints, lengths), values, target, background, options.neighbours,
                               options.noise)  # fmt: skip
            same = [rank_correlation(values, attribution.run(other, joints, lengths, target, *background).over_time)
                    for other in others]  # fmt: skip
            return torch.cat([change.double(), torch.stack(same, dim=1)], dim=1)

        found = _in_parts(apply, measured, clips)
        medians = {name: _median(found[:, column]) for column, name in enumerate(NAMES)}
        weights = {part: interval(found[:, 3 + number], options.seed) for number, part in enumerate(("head", "all"))}
        return {"stability": medians, "random_weights": weights}

    def draw(self, verdict: Verdict, folder: Path, store: ClipStore | None) -> list[str]:
        """Curves of each kind of damage."""
        return pictures.draw(verdict, folder)


def kinds_of_damage(model: Model, options: FaithfulnessOptions) -> dict[str, Method]:
    """Deletion and insertion of any encoder; changes of edge importance where it has any."""
    kinds: dict[str, Method] = {"deletion": deleted, "insertion": inserted}
    if isinstance(model.encoder, EdgeGCN) and not model.encoder.altered:
        kinds["edge_zero"] = edges_changed("zero", 0.0, options.released)
        kinds["edge_shift"] = edges_changed("away", options.shift, options.released)
    return kinds


def _in_parts(apply: Apply, function: ClipFunction, clips: np.ndarray) -> np.ndarray:
    """``apply`` by a few clips at a time: each takes hundreds of forward passes, and the bar shall move."""
    parts = np.array_split(clips, -(-len(clips) // PART))
    return np.concatenate([apply(function, part) for part in tqdm(parts, desc="damaging", delay=5, leave=False)])


def _some(clips: np.ndarray, count: int, seed: int, what: str) -> np.ndarray:
    """At most so many clips, drawn at random, in their order."""
    chosen: np.ndarray = np.sort(np.random.default_rng(named_seed(seed, what)).permutation(clips)[:count])
    return chosen


def _median(values: np.ndarray) -> float | None:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else None
