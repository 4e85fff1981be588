"""Training-time augmentation of whole batches, on the device the batch is on.

Randomness comes in from outside as one key a clip (:func:`mmcl.common.draws.clip_keys`), a pure function of (run seed,
epoch, clip), and each augmentation draws from it under its own name. So no two epochs and no two seeds repeat a draw,
one augmentation more shifts no other, and the result depends neither on the number of loader workers nor on how clips
are spread over processes. (The CTR-GCN lineage seeds loader workers with their worker id: every epoch repeats the same
draws there, and ``--seed`` has no effect on them.)
"""

from __future__ import annotations

from dataclasses import field, fields, make_dataclass
from functools import cached_property
from typing import get_type_hints

import torch
from torch import Tensor

from mmcl.skeletons import AUGMENTATIONS
from mmcl.skeletons.layout import Layout
from mmcl.skeletons.masks import Skeletons
from mmcl.skeletons.transform import Transform
from mmcl.skeletons.window import Span, Timing


def _keys() -> type:
    """A dataclass with the fields of every registered augmentation, and their descriptions."""
    found, words = [], []
    for kind in AUGMENTATIONS.values():
        hints = get_type_hints(kind)
        found += [(one.name, hints[one.name], field(default=one.default)) for one in fields(kind)]
        words += [(kind.__doc__ or "").partition("Attributes:\n")[2].rstrip()]
    described = "How strongly training clips are varied.\n\n    Attributes:\n" + "\n".join(words) + "\n"
    return make_dataclass("Keys", found, frozen=True, namespace={"__doc__": described})


class Augmentation(_keys()):  # type: ignore[misc]  # its fields are those of the registry's entries
    """How strongly training clips are varied. The defaults are MMCL's / CTR-GCN's: temporal crop and rotation."""

    @cached_property
    def transforms(self) -> tuple[Transform, ...]:
        """Those that change anything, in the order of the registry.

        Raises:
            UserError: a value is out of range.
        """
        made = [kind(**{one.name: getattr(self, one.name) for one in fields(kind)}) for kind in AUGMENTATIONS.values()]
        return tuple(transform for transform in made if transform.active)

    def check(self, layout: Layout | None = None, timing: Timing = "resize") -> None:
        """Fail on numbers out of range, and on what cannot be done to clips of a layout, where one is given.

        Raises:
            UserError: naming the key, its value and what it should be.
        """
        for transform in self.transforms:
            if layout is not None:
                transform.check(layout, timing)

    def when(self, keys: Tensor, frames: Tensor, window: int) -> Span:
        """Choose what of each clip is looked at.

        Args:
            keys: (N,) of the clips.
            frames: (N,) their lengths.
            window: frames that the encoder sees.
        """
        length = frames.to(torch.float32)
        span = Span(torch.zeros_like(length), length)
        for transform in self.transforms:
            span = transform.when(keys, span, window)
        return span

    def apply(self, keys: Tensor, clips: Skeletons, layout: Layout) -> Skeletons:
        """Vary a batch, one draw a clip; joints are centred (N, M, C, window, V)."""
        for transform in self.transforms:
            clips = transform.apply(keys, clips, layout)
        return clips
