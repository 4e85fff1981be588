"""Clips explained one by one: whose score, which joints, and what is left over."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from mmcl.attributions.explaining import class_number, explain, loudest, shown_skeleton
from mmcl.attributions.sources import ExplainedClips, gathered
from mmcl.common.errors import UserError
from mmcl.models.model import Model


@dataclass(frozen=True)
class ExplainedClip:
    """One clip.

    Attributes:
        name: of the clip.
        label: its true class, where that is known.
        answer: what the model says.
        target: number of the class whose score is shared out.
        target_name: of that class.
        probability: of that class.
        score: of that class.
        baseline: the same without the clip's own content.
        residual: what the shares leave over.
        values: (W, V) or (V,) shares.
        names: joints that speak for the class, the loudest first.
        joints: (M, W, V, 3) for pictures, NaN where missing.
        rate: frames of the window a second.
    """

    name: str
    label: str | None
    answer: str
    target: int
    target_name: str
    probability: float
    score: float
    baseline: float
    residual: float
    values: np.ndarray
    names: list[str]
    joints: np.ndarray
    rate: float

    @property
    def left_over(self) -> float:
        """The residual as a part of what was to be shared."""
        return self.residual / max(abs(self.score - self.baseline), 1e-6)


def share_scores(arguments: Namespace, model: Model, source: ExplainedClips) -> list[ExplainedClip]:
    """Explain every clip of a source by the options of a command line, with bars of progress.

    Raises:
        UserError: a method, option or class that does not exist.
    """
    from mmcl.attributions.base import build_attribution
    from mmcl.evaluation.judging import option_words

    options: dict[str, Any] = {"seed": arguments.seed, **option_words(arguments.option)}
    attribution = build_attribution(arguments.method, options)  # says what is wrong before anything is computed
    options.setdefault("over", "frames" if attribution.timed and not attribution.options.released else "joints")
    device = model.device
    background = None
    if source.background:
        joints, lengths = gathered(source.background)
        background = joints.to(device), lengths.to(device)

    def watched(batches: list[Tensor]) -> Iterable[Tensor]:
        return tqdm(batches, desc=arguments.method, unit="batch", delay=1, leave=False)

    found = []
    for number in tqdm(range(len(source.names)), desc="explaining", unit="clip", leave=False):
        joints, lengths = (each.to(device) for each in gathered([source.joints[number]]))
        scores = model(joints, lengths)
        target = target_of(arguments.target, model, scores, source.labels[number])
        shares = explain(
            model, joints, lengths, arguments.method, options, target, background, arguments.batch_size, watched
        )
        found.append(_described(model, source, number, scores, shares, shown_skeleton(model, joints, lengths)))
    return found


def target_of(wanted: str, model: Model, scores: Tensor, label: str | None) -> Tensor:
    """(1,) the class whose score is shared out: the answer, the true one, or one by its name.

    Raises:
        UserError: the true class is not known, to the model or at all.
    """
    if wanted == "answer":
        return scores.argmax(dim=1)
    if wanted != "label":
        return torch.tensor([class_number(model, wanted)], device=scores.device)
    if label is None:
        raise UserError("--target label: skeleton files do not say their class; give its name")
    return torch.tensor([class_number(model, label, numbers=False)], device=scores.device)


def _described(
    model: Model, source: ExplainedClips, number: int, scores: Tensor, shares: Any, skeleton: Tensor
) -> ExplainedClip:
    layout, names = model.preprocess.target, model.class_names
    target, answer = int(shares.target[0]), int(scores.argmax())
    window, frames = skeleton.shape[2], source.joints[number].shape[1]
    return ExplainedClip(
        name=source.names[number], label=source.labels[number], answer=names[answer], target=target,
        target_name=names[target], probability=float(scores.softmax(dim=1)[0, target]), score=float(shares.scores[0]),
        baseline=float(shares.baseline[0]), residual=float(shares.residual[0]), values=shares.values[0].cpu().numpy(),
        names=[layout.joints[joint] for joint in loudest(shares.over_time[0].cpu(), layout.joint_count)],
        joints=skeleton[0].cpu().numpy(), rate=max(source.rates[number] * window / frames, 4.0),
    )  # fmt: skip
