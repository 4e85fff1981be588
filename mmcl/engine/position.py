"""Where a run is, to the very step, and what it must find unchanged to go on from there."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from mmcl.common.documents import read_json
from mmcl.common.errors import UserError
from mmcl.engine.plan import Plan

POSITION = "position.json"


@dataclass
class Position:
    """Where a run is. ``position.json`` of a checkpoint holds the same.

    Attributes:
        data: fingerprint of the clip store.
        split: digest of which clips are on which side, and which of them each stage trains on.
        processes: how many train; each has random states of its own.
        stage: stages finished.
        epoch: epochs finished in the stage.
        step: optimiser steps finished in the epoch.
        epochs: epochs finished in the run.
        steps: optimiser steps finished in the run.
        complete: whether there is nothing left to train.
        best: best validation value of the last stage; None before there is one.
        last: last validation value.
        metric: what these values are.
        metrics: bytes of metrics.jsonl: what is written after them will be written again.
    """

    data: str
    split: str
    processes: int = 1
    stage: int = 0
    epoch: int = 0
    step: int = 0
    epochs: int = 0
    steps: int = 0
    complete: bool = False
    best: float | None = None
    last: float | None = None
    metric: str | None = None
    metrics: int = 0

    def begins_stage(self) -> bool:
        """Whether the stage has not begun, or has to begin again after a kill."""
        return (self.epoch, self.step) == (0, 0)

    def state_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def go_on_from(self, checkpoint: Path) -> None:
        """Take over where a checkpoint was saved, if the run can go on from there.

        Raises:
            UserError: it is damaged or of an earlier mmcl, or the clips are not those that the run was begun on.
        """
        refuse_earlier(checkpoint)
        state = read_position(checkpoint)
        if state.get("data") != self.data:
            raise UserError("cannot resume: the clip store's content has changed since the run was started")
        if state.get("split") != self.split:
            raise UserError(
                "cannot resume: the protocol now gives other training, validation or test clips than when the run was "
                "begun; put it back, or choose another --out"
            )
        own = {field.name for field in fields(self)}
        if own - set(state) or not all(_fits(name, state[name]) for name in own):
            raise _damaged(checkpoint)
        for name in own - {"processes"}:
            setattr(self, name, state[name])

    def check(self, plan: Plan, checkpoint: Path) -> None:
        """Whether a position that was read from a checkpoint is a place in a run's plan.

        Raises:
            UserError: it is none, or is counted wrongly: a run would pass for finished that is not.
        """
        finished, place = self.stage == len(plan), (0, 0)
        epochs, steps = plan.epochs, plan.steps  # of the run, before the stage
        if self.stage < len(plan):
            planned = plan[self.stage]
            # A run that is stopped at the last step of an epoch has not counted that epoch yet.
            inside = self.epoch < planned.epochs and self.step <= planned.steps
            if inside or (self.epoch, self.step) == (planned.epochs, 0):
                place = (self.epoch, self.step)
            epochs, steps = (
                planned.first_epoch + self.epoch,
                planned.first_step + self.epoch * planned.steps + self.step,
            )
        if self.stage > len(plan) or self.complete != finished or place != (self.epoch, self.step):
            raise _damaged(checkpoint)
        if (self.epochs, self.steps) != (epochs, steps):
            raise _damaged(checkpoint)


def _damaged(checkpoint: Path) -> UserError:
    return UserError(f"cannot resume: {checkpoint / POSITION} is damaged: put it back, or train anew in another --out")


def _fits(name: str, value: Any) -> bool:
    """Whether a value read from a file can be that of an attribute."""
    if name in ("processes", "stage", "epoch", "step", "epochs", "steps", "metrics"):
        return type(value) is int and value >= 0
    if name in ("best", "last"):
        return value is None or type(value) in (int, float)
    return isinstance(value, bool) if name == "complete" else value is None or isinstance(value, str)


def refuse_earlier(checkpoint: Path) -> None:
    """Whether a checkpoint says enough of where its run was to go on.

    Raises:
        UserError: an earlier mmcl wrote it.
    """
    if (checkpoint / POSITION).is_file() and "stage" not in read_position(checkpoint):
        raise UserError(
            f"cannot resume {checkpoint.parent.parent}: an earlier mmcl began it; it can be evaluated and exported as "
            "it is, or trained anew in another --out"
        )


def read_position(checkpoint: Path) -> dict[str, Any]:
    """What ``position.json`` of a checkpoint says, of this mmcl or an earlier one.

    Raises:
        UserError: it is missing or damaged.
    """
    file = checkpoint / POSITION
    try:
        state = read_json(file)
    except UserError as error:
        raise UserError(f"{file} is missing or damaged: {error}") from error
    if not isinstance(state, dict):
        raise UserError(f"{file} is damaged: it holds no object")
    return state
