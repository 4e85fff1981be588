"""Continual learning: the classes of a split arrive in parts, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mmcl.common.errors import UserError
from mmcl.data.split import Split


@dataclass(frozen=True)
class Stream:
    """In which order classes arrive, and how many at a time.

    CHARON's lists for Split NTU-60 and NTU-120 stand in ``split_rules/streams.yaml``. The paper's appendix prints the
    order of the classes; the released code takes the same numbers as the new number of each class, which is the inverse
    permutation and makes other parts of them (``inverse``).

    Attributes:
        classes: that arrive together; the last part takes what is left.
        order: every output of the model, in order of arrival; empty for the order of their numbers.
        seed: of a random order in the place of ``order``; None for none.
        inverse: entry c of ``order`` is the place at which class c arrives.
    """

    classes: int
    order: Sequence[int] = ()
    seed: int | None = None
    inverse: bool = False

    def apply(self, split: Split) -> Split:
        """Note in a split which of its classes arrive together.

        Raises:
            UserError: the order does not name each class once.
        """
        K = len(split.classes)
        order = np.array(self.order or range(K), dtype=np.int64)
        if self.seed is not None:
            order = np.random.default_rng(np.random.SeedSequence(self.seed)).permutation(K)
        if sorted(order.tolist()) != list(range(K)):
            raise UserError(f"stream: order must name each of the {K} trained classes once, from 0 to {K - 1}")
        if self.inverse:
            order = np.argsort(order)
        return replace(split, stream=tuple(order[first : first + self.classes] for first in range(0, K, self.classes)))
