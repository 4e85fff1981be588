"""Which stream a model gets: one that goes on step by step where the model can, else one of windows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mmcl.deploy.continual import ContinualStream
from mmcl.deploy.stream import Stream, Watched
from mmcl.models.description import Description

AnyStream = Stream | ContinualStream


def open_streams(
    predictor: Any, description: Description, span: int | None = None, hop: int | None = None,
    persons: int | None = None,
) -> Callable[[], AnyStream]:  # fmt: skip
    """A function that begins a stream, as often as it is called, for one camera or one person each.

    Args:
        predictor: of a bundle, in torch or onnxruntime.
        description: of the bundle.
        span: frames judged together; None: the model's window, or whatever a causal model remembers.
        hop: frames from one prediction to the next; None: a quarter of that window.
        persons: bodies of a frame that count; None: as many as the model takes.

    Raises:
        UserError: span or hop below 1.
    """
    joints, whole = predictor.joints, description.window if span is None else span
    hop = max(1, whole // 4) if hop is None else hop
    watched = Watched(predictor.rank, joints, predictor.reading)

    def windows() -> AnyStream:
        bodies = description.persons if persons is None else persons
        return Stream(watched, joints.joint_count, bodies, whole, hop, description.columns)

    stepper = predictor.stepper() if span is None else None
    return windows if stepper is None else lambda: ContinualStream(stepper, hop, watched.look, description.window)
