"""Runs ``model.step.onnx`` for streams: numpy and onnxruntime, nothing else, least of all torch."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmcl.common.errors import UserError
from mmcl.deploy.continual import State, Stepper
from mmcl.deploy.stream import Ranking
from mmcl.models.description import Description
from mmcl.models.session import open_checked_session

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

NEXT = "next_"  # before the name of what is kept, as it goes out
MOST_KEPT = 1 << 28  # numbers
_TYPES = {"tensor(float)": np.float32, "tensor(int64)": np.int64}


class OnnxStepper(Stepper):
    """A causal model as the graph that goes step by step.

    Args:
        session: on ``model.step.onnx``.
        class_names: in the order of its scores.
        persons: bodies that the model takes.

    Raises:
        UserError: it is no such graph.
    """

    def __init__(self, session: InferenceSession, class_names: Sequence[str], persons: int) -> None:
        self.session, self.class_names, self.persons = session, class_names, persons
        ends = {end.name: end for end in session.get_inputs()}
        try:
            facts = json.loads(session.get_modelmeta().custom_metadata_map["variant"])["continual"]
            self.step, self.forget = int(facts["step"]), int(facts["forget"])
            _, step, V, C = ends.pop("joints").shape
            self.frame = (int(V), int(C))
            self._shapes = {name: (tuple(end.shape), _TYPES[end.type]) for name, end in ends.items()}
            size = sum(math.prod(n for n in shape if isinstance(n, int)) for shape, _ in self._shapes.values())
            outputs = {end.name for end in session.get_outputs()}
            good = self.step == step >= 1 and self.forget >= 1 and size * persons <= MOST_KEPT
            good = good and step * self.frame[0] * self.frame[1] * persons <= MOST_KEPT
            good = good and {"probabilities", *(NEXT + name for name in ends)} <= outputs
        except (KeyError, ValueError, TypeError) as error:
            raise UserError(f"the graph for streams is damaged ({error}): export it again") from error
        if not good:
            raise UserError("the graph for streams does not take frames and give what it keeps: export it again")
        self._familiar = "familiarity" in outputs
        self._names = ["probabilities", *(NEXT + name for name in ends), *(["familiarity"] * self._familiar)]
        super().__init__()

    def zeros(self, bodies: int) -> State:
        """What is kept before the first frame, for so many bodies."""
        return {
            name: np.zeros([n if isinstance(n, int) else bodies for n in shape], dtype=kind)
            for name, (shape, kind) in self._shapes.items()
        }

    def run(self, joints: np.ndarray, state: State) -> tuple[Ranking, State]:
        """The next frames (B, step, V, C) -> ranking, and what is kept."""
        try:
            probabilities, *kept = self.session.run(self._names, {"joints": joints, **state})
            familiarity = float(np.asarray(kept.pop())[0]) if self._familiar else None
        except Exception as error:  # onnxruntime has kinds of its own, which are no public names
            raise UserError(f"the graph for streams fails: {str(error)[:200]}") from error
        row = np.asarray(probabilities)[0]
        if not (np.isfinite(row).all() and (familiarity is None or math.isfinite(familiarity))):
            raise UserError("the graph for streams gives numbers that are not finite: its weights are damaged")
        order = np.argsort(-row, kind="stable").tolist()
        rows = [(label, self.class_names[label], float(row[label])) for label in order]
        return Ranking(rows, familiarity), dict(zip(self._shapes, kept, strict=True))

    def joined(self, rows: Sequence[Any]) -> np.ndarray:
        """Arrays one below the other."""
        return np.concatenate(rows)


def open_stepper(graph: Path, description: Description) -> OnnxStepper:
    """The stepper of a bundle's ``model.step.onnx``.

    Raises:
        UserError: onnxruntime is missing, or the graph is damaged or not that of the bundle.
    """
    session = open_checked_session(graph, description, steps=True, threads=1)
    return OnnxStepper(session, description.class_names, description.persons)
