"""Fine-tuning: the whole encoder trained further with labels, against training it from random weights."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mmcl.common.errors import UserError
from mmcl.data.class_texts import fingerprint
from mmcl.data.selection import Selection
from mmcl.evaluation.base import Apply, Evaluation, Verdict
from mmcl.evaluation.compare import paired_bootstrap
from mmcl.evaluation.knn import votes
from mmcl.evaluation.readouts import Sides, floors, probe_sides, rows_of
from mmcl.models.model import Model

ARMS = ("fine-tuned", "from scratch")


@dataclass(frozen=True)
class FinetuneOptions:
    """Options of :class:`Finetune`; the defaults are MAMP's and STARS' schedule, but for ``scratch_rate``.

    Attributes:
        epochs: passes over the training clips.
        rate: peak learning rate of the classifier and the encoder's last level.
        floor: learning rate at the end of the cosine.
        warmup_epochs: of linear warm-up.
        weight_decay: of AdamW.
        layer_decay: factor on the learning rate from one level of the encoder to the one before.
        label_smoothing: share of the target spread over all classes.
        batch: clips of a step; fewer where there are fewer.
        encoder: options of the encoder in which it differs from the model; for fine-tuning, MAMP's are
            {pooling: joints, head: mlp, dropout: 0.3, drop_path: 0.3}.
        scratch: train from random weights, too.
        scratch_rate: peak learning rate of that, for all levels alike: a rate made for trained weights, which falls
            from level to level, leaves random ones far below what they can do. It ends at the same share of it.
        released: as MAMP's released code: biases, norms and other tensors of one dimension have no weight decay.
        seed: of the runs, and of the clips where only some of them train.
        folder: where the runs go; beside the model where not given. What is there already is gone on with.
    """

    epochs: int = 100
    rate: float = 3e-4
    floor: float = 1e-5
    warmup_epochs: float = 5
    weight_decay: float = 0.05
    layer_decay: float = 0.8
    label_smoothing: float = 0.1
    batch: int = 24
    encoder: dict[str, Any] = field(default_factory=dict)
    scratch: bool = True
    scratch_rate: float = 2e-3
    released: bool = False
    seed: int = 0
    folder: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.floor <= self.rate:
            raise UserError(f"finetune.floor is {self.floor}: it must be from 0 to rate ({self.rate})")
        if not 0 < self.scratch_rate < math.inf:
            raise UserError(f"finetune.scratch_rate is {self.scratch_rate}: it must be above 0")


@dataclass(frozen=True)
class Amount:
    """How many training clips a run gets: a share of all, or so many of each class.

    Attributes:
        share: of all training clips, 1 for all.
        shots: clips of each class; 0 for no such limit.
        seed: of the draw, and of the run.
    """

    share: float = 1.0
    shots: int = 0
    seed: int = 0

    @property
    def words(self) -> str:
        """For tables."""
        if self.shots:
            return f"{self.shots} clip{'' if self.shots == 1 else 's'} a class"
        return "all clips" if self.share == 1 else f"{self.share:.4g} of the clips"

    def subset(self, data: Selection) -> Selection:
        """The selection with these training clips alone, those that a run gets with the same seed."""
        from mmcl.data.thinning import draw_share, draw_shots

        sides = data.sides
        if self.shots:
            sides = draw_shots(sides, data.store, self.shots, self.seed)
        if self.share < 1:
            sides = draw_share(sides, self.share, self.seed)
        return replace(data, split=sides)


class Finetune(Evaluation):
    """Cross-entropy on all training clips, each level of the encoder at its own rate; judged by the classifier."""

    options_type: ClassVar[type] = FinetuneOptions
    learns: ClassVar[bool] = True

    def run(self, model: Model, data: Selection, apply: Apply) -> Verdict:
        """``finetune_top1``, and beside it training from scratch and the nearest clip by raw coordinates.

        Raises:
            UserError: a model that is in no folder, or one that cannot be trained further.
        """
        options, sides = self.options, probe_sides(data)
        found = tune(model, data, apply, options, Amount(seed=options.seed))
        table = {name: float(correct.mean()) for name, correct in found.items()}
        table |= raw_floors(model, sides, apply)
        correct = found[ARMS[0]]
        metrics: dict[str, Any] = {"finetune_top1": table[ARMS[0]], "n": len(correct), "top1_by_readout": table}
        if options.scratch:
            metrics["gain"] = gain(correct[None], found[ARMS[1]][None])
        facts = {"kind": f"fine-tuning on {len(sides.bank)} training clips, {options.epochs} epochs, AdamW"}
        return Verdict(metrics, "finetune_top1", data.ids(sides.queries), correct, {"labels": sides.labels}, facts)


def gain(tuned: np.ndarray, scratch: np.ndarray) -> dict[str, float]:
    """Difference of accuracies (runs, n), with its 95 % interval by a paired bootstrap over clips and runs."""
    difference, low, high = paired_bootstrap(tuned, scratch)
    return {"difference": difference, "low": low, "high": high}


def raw_floors(model: Model, sides: Sides, apply: Apply) -> dict[str, float]:
    """Accuracy of the nearest of the labelled clips by raw coordinates and by velocities."""
    raw = {name: function for name, function in floors(model).items() if name in ("coordinates", "velocities")}
    return {
        f"{name}, nearest clip": float(
            (votes(bank, sides.bank_labels, queries, 1, len(sides.names)).argmax(axis=1) == sides.labels).mean()
        )
        for name, bank, queries in rows_of(raw, sides, apply)
    }


def tune(
    model: Model, data: Selection, apply: Apply, options: FinetuneOptions, amount: Amount
) -> dict[str, np.ndarray]:  # fmt: skip
    """Train further, and from scratch where asked for, on some of the training clips.

    Returns:
        arm -> (n,) whether each of the judged clips was answered right.
    """
    from mmcl.engine.configuring import configure
    from mmcl.models.folder import open_model
    from mmcl.train import train

    clips, correct = data.clips, {}
    labels = data.sides.targets(data.store.labels[clips])
    for arm in ARMS if options.scratch else ARMS[:1]:
        config = configure(list(command(model, data, options, amount, arm)))
        if train(config):
            raise UserError(f"{config.out} was stopped: the same command goes on with it")
        tuned = open_model(config.out, layout=data.store.layout, device=model.device)
        correct[arm] = apply(tuned, clips).argmax(axis=1) == labels
    return correct


def command(
    model: Model, data: Selection, options: FinetuneOptions, amount: Amount, arm: str
) -> Iterator[str]:  # fmt: skip
    """The command line of one run of ``mmcl train``.

    Raises:
        UserError: the model is in no folder.
    """
    source = model.description.provenance.get("checkpoint") or model.path
    if source is None:
        raise UserError("fine-tuning starts from a model that is in a folder: save it first")
    train = len(amount.subset(data).sides.train)
    if train < 2:
        raise UserError(
            f"{amount.words} of {len(data.sides.train)} training clips is {train}, and training takes two: ask for "
            "more (--option semi.shares=[0.2], or semi.shots=[1] for one of each class)"
        )
    tuned = arm == ARMS[0]
    rate, layer_decay = (options.rate, options.layer_decay) if tuned else (options.scratch_rate, 1.0)
    settings: dict[str, Any] = {
        "start.checkpoint": str(source), "start.weights": tuned, "task.name": "supervised",
        "data.path": str(data.store.location), "data.protocol": data.protocol, "data.validation": data.held_out or {},
        "data.batch_size": min(options.batch, train), "data.share": amount.share, "data.shots": amount.shots,
        "task.layer_decay": layer_decay, "task.label_smoothing": options.label_smoothing,
        "optimiser.name": "adamw", "optimiser.rate": rate, "optimiser.weight_decay": options.weight_decay,
        "schedule.name": "cosine", "schedule.epochs": options.epochs, "schedule.floor": options.floor / options.rate,
        "schedule.warmup_epochs": options.warmup_epochs, "seed": amount.seed, "engine.trackers": [],
        **{f"encoder.{key}": value for key, value in options.encoder.items()},
        **({"task.released": True} if options.released else {}),
    }  # fmt: skip
    words = [f"--{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in settings.items()]
    beside = model.path if model.path is not None and model.description.provenance.get("checkpoint") else Path("runs")
    folder = Path(options.folder) if options.folder else beside / "probes"  # a bundle stays as it is
    out = folder / f"{arm.replace(' ', '-')}-{fingerprint(words)[:8]}"
    yield from (*words, f"--out={out}", "--resume=true")
