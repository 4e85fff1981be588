"""Scores the clips of seen and unseen classes by the classifier and by the texts of classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mmcl.common.errors import UserError
from mmcl.data.selection import Selection
from mmcl.data.split import outputs_of
from mmcl.deploy.texts import class_texts, known_classes
from mmcl.evaluation.base import Apply
from mmcl.models.model import Model
from mmcl.models.vocabulary import quoted, require_vocabulary


@dataclass
class OpenScores:
    """Scores of test-side clips.

    Attributes:
        clips: (n,) positions in the store, seen classes' clips first.
        labels: (n,) positions among the classes, the S seen ones first, then the U unseen ones.
        seen: (n, S) scores of the classifier.
        text: (n, S + U) scores by every class's text.
        unseen: (n, U) scores by the texts of the unseen classes, told apart among themselves.
        names: of the S + U classes.
        facts: of their texts, for a report.
    """

    clips: np.ndarray
    labels: np.ndarray
    seen: np.ndarray
    text: np.ndarray
    unseen: np.ndarray
    names: list[str]
    facts: dict[str, str]


def open_scores(model: Model, data: Selection, apply: Apply) -> OpenScores:
    """Score the test-side clips of a protocol's seen and unseen classes.

    Raises:
        UserError: the model's classes are not the protocol's seen ones, a side has no clip, or the model knows no
            texts.
    """
    store, parts, rule = data.store, data.sides, data.rule
    names = [store.class_names[label] for label in (*parts.classes, *parts.unseen_classes)]
    seen = len(parts.classes)
    assert rule is not None
    if rule.open and not len(parts.unseen):
        raise UserError(
            f"'{data.protocol}' finds no {'calibration' if rule.gate else 'test'} clip of its withheld classes in "
            f"{store.location} ({quoted(names[seen:])}): nothing can be judged there"
        )
    if rule.open and len(parts.unseen_classes) < 2:
        raise UserError(
            f"'{data.protocol}' withholds {quoted(names[seen:])} alone: every clip of one class is right, whatever its "
            "text; withhold two or more"
        )
    vocabulary = require_vocabulary(model.vocabulary, model.path)
    if not rule.open or model.class_names != names[:seen]:
        raise UserError(
            f"{model.path} was trained on {len(model.class_names)} classes that are not the seen ones of "
            f"'{data.protocol}': train it with --data.protocol={data.protocol}"
        )
    texts = class_texts(known_classes(names, vocabulary, store.dataset), vocabulary, model.device)
    rows, head = texts.rows.to(model.device), vocabulary.head
    every, unseen = head.fit(rows), head.fit(rows[seen:])

    def all_scores(joints: Tensor, lengths: Tensor) -> Tensor:
        features = model.features(joints, lengths)
        with torch.no_grad():
            own = model.encoder.head(features).float()
            return torch.cat([own, head.scores(features, every), head.scores(features, unseen)], dim=1)

    clips = np.concatenate([parts.test, parts.unseen])
    by_classifier, text, by_unseen = np.split(apply(all_scores, clips), [seen, seen + len(names)], axis=1)
    labels = np.concatenate([
        outputs_of(parts.classes, store.labels[parts.test]),
        seen + outputs_of(parts.unseen_classes, store.labels[parts.unseen]),
    ])  # fmt: skip
    return OpenScores(clips, labels, by_classifier, text, by_unseen, names, texts.facts)
