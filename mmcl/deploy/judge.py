"""What a graph of reduced precision costs in accuracy, measured on a run's own test clips before it may be written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mmcl.common.errors import UserError
from mmcl.deploy.onnx import INPUT
from mmcl.deploy.session import open_session

if TYPE_CHECKING:
    from onnx import ModelProto

JUDGED, CALIBRATING = 2000, 64  # clips at most, drawn evenly


@dataclass(frozen=True)
class Judges:
    """The clips of a run that a graph is calibrated and judged on.

    Attributes:
        read: position in the store -> (1, M, T, V, 3) raw joints.
        training: positions that calibrate.
        test: positions that judge.
        labels: of the latter.
        reference: (n, K) probabilities of the trained network for them.
        protocol: their name.
    """

    read: Callable[[int], np.ndarray]
    training: Sequence[int] | np.ndarray
    test: Sequence[int] | np.ndarray
    labels: np.ndarray
    reference: np.ndarray
    protocol: str

    def calibrating(self) -> Iterator[np.ndarray]:
        """Training clips, for the range of every tensor."""
        return (self.read(int(clip)) for clip in evenly(self.training, CALIBRATING))


@dataclass(frozen=True)
class Loss:
    """What one graph gives for the test clips, beside the trained network.

    Attributes:
        judged_on: protocol.
        n: test clips.
        top1: accuracy of the graph, as a share.
        reference_top1: of the trained network.
        agreement: share of clips for which both name the same class.
        max_probability_difference: largest over clips and classes.
        max_loss: how many points of top-1 it was allowed to lose.
    """

    judged_on: str
    n: int
    top1: float
    reference_top1: float
    agreement: float
    max_probability_difference: float
    max_loss: float

    @property
    def points(self) -> float:
        """Points of top-1 accuracy that are lost."""
        return 100.0 * (self.reference_top1 - self.top1)


def evenly(clips: Sequence[int] | np.ndarray, most: int) -> np.ndarray:
    """At most so many of the clips, spread over all of them."""
    clips = np.asarray(clips)
    return clips if len(clips) <= most else clips[np.linspace(0, len(clips) - 1, most).round().astype(int)]


def measure(model: ModelProto, judges: Judges, max_loss: float) -> Loss:
    """Run a graph over the test clips."""
    session = open_session(model.SerializeToString())
    found = np.concatenate([session.run(["probabilities"], {INPUT: judges.read(int(clip))})[0] for clip in judges.test])
    named, expected = found.argmax(axis=1), judges.reference.argmax(axis=1)
    return Loss(
        judged_on=judges.protocol, n=len(found),
        top1=round(float((named == judges.labels).mean()), 6),
        reference_top1=round(float((expected == judges.labels).mean()), 6),
        agreement=round(float((named == expected).mean()), 6),
        max_probability_difference=round(float(np.abs(found - judges.reference).max()), 6),
        max_loss=max_loss,
    )  # fmt: skip


def judged(model: ModelProto, precision: str, judges: Judges, max_loss: float) -> dict[str, Any]:
    """Facts of a graph for ``config.json``, if it may be written.

    Raises:
        UserError: it loses more than the bound.
    """
    loss = measure(model, judges, max_loss)
    if loss.points > max_loss + 1e-9:
        raise UserError(
            f"the {precision} graph loses {loss.points:.2f} points of top-1 accuracy on {loss.n} clips of "
            f"{loss.judged_on} ({loss.reference_top1:.2%} -> {loss.top1:.2%}), more than --max-loss {max_loss:g}: "
            "nothing was written; leave it out of --onnx, or allow more"
        )
    return {"precision": precision, **asdict(loss)}
