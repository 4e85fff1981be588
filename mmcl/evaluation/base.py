"""What every evaluation is: a model and clips go in, a verdict comes out."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from mmcl.common.errors import UserError
from mmcl.common.method import Method
from mmcl.data.selection import Selection
from mmcl.data.store import ClipStore
from mmcl.evaluation import EVALUATIONS
from mmcl.models.model import Model

ClipFunction = Callable[[Tensor, Tensor], Tensor]  # (joints (N, M, T, V, C), lengths (N,)) -> (N, …)
Apply = Callable[[ClipFunction, np.ndarray], np.ndarray]  # function, positions in the store -> (n, …) float32
Metrics = Mapping[str, Any]  # name -> number or None, or a group of such


@dataclass(frozen=True)
class Verdict:
    """How a model came out.

    Attributes:
        metrics: name -> number; accuracies are fractions of 1. Groups of numbers may be nested.
        main: the metric that comparisons and studies go by.
        ids: names of the n clips that were judged; rows are joined by them, never by their order.
        correct: (n,) whether each clip was answered right, for paired intervals; None where that has no meaning.
        arrays: name -> array, saved as they are. With ``scores`` (n, K), ``labels`` (n,) and ``class_names`` (K,), a
            report shows confusion, accuracy by class, calibration and wrong clips.
        facts: what identifies the numbers: protocol, data, how they were computed.
    """

    metrics: Metrics
    main: str
    ids: list[str]
    correct: np.ndarray | None = None
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.main not in self.metrics:
            raise ValueError(f"the main metric '{self.main}' is not among {sorted(self.metrics)}")
        if self.correct is not None and self.correct.shape != (len(self.ids),):
            raise ValueError(f"{len(self.ids)} clips and correct {self.correct.shape}")


class Evaluation(Method):
    """A way to judge a model.

    A subclass implements :meth:`run`, and keeps nothing from one run to the next.

    Attributes:
        judges: the clips that it is meant for: a ``side`` of a protocol (train, validation or test), those of the
            classes that a protocol has ``withheld``, or a whole ``store``, by no protocol.
        learns: whether it learns from the training side itself, which it cannot judge then.
    """

    registry = EVALUATIONS
    judges: ClassVar[Literal["side", "withheld", "store"]] = "side"
    learns: ClassVar[bool] = False

    @abstractmethod
    def run(self, model: Model, data: Selection, apply: Apply) -> Verdict:
        """Judge a model.

        Args:
            model: in evaluation mode, on the device that ``apply`` uses.
            data: the clips; an evaluation that needs training clips takes them from ``data.sides.train``.
            apply: runs a function of (joints, lengths) over clips of the store, shared by all processes.

        Raises:
            UserError: the model, or the clips, cannot be judged so.
        """

    def draw(self, verdict: Verdict, folder: Path, store: ClipStore | None) -> list[str]:
        """Draw pictures into a report's folder, and say what its page shows besides the metrics; Markdown blocks."""
        return []


build_evaluation = Evaluation.build


def make_apply(
    store: ClipStore, device: torch.device, batch_size: int = 64, workers: int = 0, progress: bool = False
) -> Apply:
    """The ``apply`` of a single process: every function over clips of one store, in batches."""
    from mmcl.engine.scoring import score_clips

    def apply(function: ClipFunction, clips: np.ndarray) -> np.ndarray:
        if not len(clips):
            raise UserError(f"there are no clips of {store.location} to look at")
        return score_clips(function, store, clips, device, batch_size, workers, progress)

    return apply
