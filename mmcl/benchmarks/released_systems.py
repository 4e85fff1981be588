"""Which systems `mmcl bench released` compares with their released formulations, with which options of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mmcl.benchmarks.plain import steps as plain_steps
from mmcl.tasks.base import Task

# Options of each encoder: its defaults, but for dropout, which would make training differ, and for the one that is too
# large to be trained here. They are also those of the steps below.
NETWORKS: dict[str, dict[str, Any]] = {
    "ctrgcn": {}, "hyperformer": {}, "step_catformer": {"width": 16}, "skelet": {}, "arn_lstm": {"dropout": 0.0},
    "edge_gcn": {"dropout": 0.0}, "mamp": {}, "sttformer": {},
}  # fmt: skip
EXPLAINED = {"permutations": 40, "loop": 20, "background": 10, "window": 32, "width": 32, "rows": 64}
ATTACKED: dict[str, Any] = {"name": "ctrgcn", "options": {"width": 16}, "classes": 27, "samples": 20}


@dataclass(frozen=True)
class Stepped:
    """A task whose training steps are compared.

    Attributes:
        encoder: of the task.
        keys: words of `mmcl train`, for both ways.
        own: words for the steps as they are taken here alone.
        released: words for the released way alone.
        change: makes the task take its steps in the released way.
        after: stages that are over.
        equal: whether both ways have the same loss; where they do not, ``note`` says why.
        note: what the table says of it.
    """

    encoder: str
    keys: tuple[str, ...]
    change: Callable[[Task], None]
    own: tuple[str, ...] = ()
    released: tuple[str, ...] = ()
    after: int = 0
    equal: bool = True
    note: str = ""


CHARON = ("--task.name=continual", "--data.protocol=own/split/stream-4", "--task.memory=4")
STEPS = {
    "MAMP, stage 1": Stepped("mamp", ("--task.name=masked_motion",), plain_steps.write_out),
    "STARS, stage 2": Stepped(
        "mamp", ("--task.name=neighbour_contrast", "--task.released=true"), plain_steps.see_both_views
    ),
    "CHARON, three passes as released": Stepped(
        "sttformer", (*CHARON, "--task.released=true"), plain_steps.write_out, after=2
    ),
    "CHARON, one pass": Stepped(
        "sttformer", CHARON, plain_steps.write_out, released=("--task.released=true",), after=2, equal=False,
        note="batch statistics of one pass",
    ),
    "Shap-Mix": Stepped(
        "ctrgcn", ("--task.name=long_tail", "--task.warmup_epochs=0"), plain_steps.estimate_apart,
        released=("--task.saliency_clips=1",), note="saliencies from a quarter of the clips",
    ),
}  # fmt: skip
OTHERS = ("TASAR", "Shapley values")
