"""The oracle witness: an embedding that says a clip's class and nothing else, in the place of its pictures'.

What a picture can add to a skeleton is bounded by what this adds: if alignment with the true class's own text does not
help, no picture will. It is a control, not a method, since the labels that it gives away are in the loss anyway.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from mmcl.common.errors import UserError
from mmcl.tasks.colearn.semantics import class_table
from mmcl.tasks.context import Context
from mmcl.towers.clip import ClipOptions
from mmcl.towers.text import TextOptions


class ClassTexts:
    """The text embedding of each clip's class, asked for as :class:`mmcl.towers.feature_cache.FeatureCache` is.

    Args:
        rows: (K, D) texts of the trained classes, on the processor.
        row: (clips of the store,) which of the rows a clip has; -1 where its class is not trained.
    """

    def __init__(self, rows: Tensor, row: np.ndarray) -> None:
        self.rows, self.row = rows, row

    @property
    def width(self) -> int:
        """D."""
        return self.rows.shape[1]

    def __call__(self, clips: Sequence[int], views: Sequence[int] = (0,)) -> Tensor:
        """(n, D) float32 of clips by position in the store; all views of a clip are alike."""
        return self.rows[self.row[np.asarray(clips)]]


def class_texts(context: Context, clip: ClipOptions) -> ClassTexts:
    """Texts of the trained classes by the text tower of a CLIP, none of which is kept.

    Raises:
        UserError: the CLIP is to be trained, which it cannot be by pictures that it never sees.
    """
    if clip.trainable:
        raise UserError("task.alignment.witness=class_text shows CLIP no picture: task.clip.trainable must be false")
    row = np.full(len(context.store.class_names), -1)
    row[context.classes] = np.arange(len(context.classes))
    rows = class_table(TextOptions(source="clip"), clip, context.prompts(), context.device)
    return ClassTexts(rows.cpu(), row[context.store.labels])
