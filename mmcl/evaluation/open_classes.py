"""Open vocabulary among classes that are given by name: the one whose text fits a clip best."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor

from mmcl.common.errors import UserError
from mmcl.data.class_texts import class_key
from mmcl.data.selection import Selection
from mmcl.deploy.texts import class_texts, named_classes
from mmcl.evaluation.base import Apply, Evaluation, Verdict
from mmcl.evaluation.top1 import scored
from mmcl.models.learned import unlearned
from mmcl.models.model import Model
from mmcl.models.vocabulary import require_vocabulary


@dataclass(frozen=True)
class OpenClassesOptions:
    """Options of :class:`OpenClasses`.

    Attributes:
        classes: names separated by commas, or a prompts .yaml file. Classes without clips are distractors.
    """

    classes: str = "own"


class OpenClasses(Evaluation):
    """Classes given by name, on those clips of a store that show one of them."""

    options_type: ClassVar[type] = OpenClassesOptions
    judges = "store"

    def run(self, model: Model, data: Selection, apply: Apply) -> Verdict:
        """Accuracy among the classes asked for; ``data`` is a whole store.

        Raises:
            UserError: no clip of these classes, or the model knows no texts.
        """
        store, vocabulary = data.store, require_vocabulary(model.vocabulary, model.path)
        prompts = named_classes(self.options.classes, vocabulary)
        texts = class_texts(prompts, vocabulary, model.device)
        fitted = vocabulary.fit(texts.rows.to(model.device))
        position = {class_key(name): number for number, name in enumerate(prompts.names)}
        answer = np.array([position.get(class_key(name), -1) for name in store.class_names])
        clips = np.flatnonzero(answer[store.labels] >= 0)
        kept, side = unlearned(clips, store, model.record)
        clips = clips[kept]
        if not len(clips):
            raise UserError(f"{store.location} has no clip of {', '.join(prompts.names)}: it has {store.class_names}")

        def open_scores(joints: Tensor, lengths: Tensor) -> Tensor:
            return model.open_scores(joints, lengths, fitted)

        trained = {class_key(name) for name in model.class_names}
        facts = {
            "protocol": "open vocabulary, classes given by name", "kind": f"argmax over {len(prompts.names)} texts",
            "trained_classes": [name for name in prompts.names if class_key(name) in trained],
            "unseen_classes": [name for name in prompts.names if class_key(name) not in trained], "clips": side,
            **texts.facts,
        }  # fmt: skip
        labels = answer[store.labels[clips]]
        return scored(apply(open_scores, clips), labels, data.ids(clips), list(prompts.names), facts)
