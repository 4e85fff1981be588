"""TASAR's post-training: small Bayesian heads on the frozen model, with a distribution over their weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from mmcl.common.draws import named_seed
from mmcl.common.errors import UserError
from mmcl.encoders.base import Encoder
from mmcl.models.model import Model
from mmcl.surgery.base import Surgery
from mmcl.surgery.posterior import PosteriorHeads, posterior_of
from mmcl.surgery.posterior_sampler import SamplerOptions, train_heads

if TYPE_CHECKING:
    from mmcl.data.selection import Selection

MOST_HEADS = 64


@dataclass(frozen=True)
class PosteriorHeadsOptions:
    """Options of :class:`PosteriorHeadsSurgery`; the defaults are TASAR's.

    Attributes:
        heads: how many.
        epochs: passes over the training clips with plain cross-entropy.
        dual_epochs: passes in which weights are sampled for the distribution.
        dual: ask for flat places in the second part, too (the dual Bayesian stage); without, plain cross-entropy.
        snapshots: about how many of each head the distribution is made of.
        batch: clips of a step.
        rate: step size of the sampler.
        inner: updates on a batch.
        sharpness: weight of the curvature in the dual stage.
        seed: of fresh weights, orders and noise.
        released: the released code's heads, sampler and moments; see the method's page.
    """

    heads: int = 3
    epochs: int = 5
    dual_epochs: int = 5
    dual: bool = True
    snapshots: int = 300
    batch: int = 32
    rate: float = 2e-3
    inner: int = 30
    sharpness: float = 1e-3
    seed: int = 0
    released: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.heads <= MOST_HEADS:
            raise UserError(f"posterior_heads.heads is {self.heads}: it must be from 1 to {MOST_HEADS}")
        for key in ("epochs", "dual_epochs", "snapshots", "batch", "inner"):
            if getattr(self, key) < 1:
                raise UserError(f"posterior_heads.{key} is {getattr(self, key)}: it must be at least 1")
        if not (0 < self.rate < 1 and 0 <= self.sharpness < float("inf")):
            raise UserError(
                "posterior_heads needs a rate in (0, 1) and a sharpness of 0 or more, not "
                f"{self.rate} and {self.sharpness}"
            )


class PosteriorHeadsSurgery(Surgery):
    """The classifier gets Bayesian heads behind it; no weight of the model that is there changes."""

    options_type: ClassVar[type] = PosteriorHeadsOptions
    tiny: ClassVar[Mapping[str, Any]] = MappingProxyType({"epochs": 1, "dual_epochs": 1, "inner": 2})

    def operate(self, model: Model, data: Selection | None) -> tuple[Encoder, dict[str, Any] | None, dict[str, Any]]:
        """Scores of the training clips are computed once; the heads learn from those."""
        if data is None:
            raise UserError("posterior_heads learns from training clips: give it some")
        options = self.options
        if posterior_of(model.encoder) is not None:
            raise UserError("this model has posterior heads already")
        scores, labels = training_scores(model, data)
        structure = {"heads": options.heads, "classes": model.encoder.classes, "released": options.released}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(named_seed(options.seed, "posterior heads"))
            encoder = self.reshape(model.encoder, structure)
        heads = posterior_of(encoder)
        assert heads is not None
        heads.to(scores.device)
        sampler = SamplerOptions(
            rate=options.rate, inner=options.inner, sharpness=options.sharpness if options.dual else 0.0,
            released=options.released,
        )  # fmt: skip
        epochs = (options.epochs, options.dual_epochs)
        train_heads(heads, scores, labels, sampler, epochs, options.snapshots, options.batch,
                    named_seed(options.seed, "posterior"))  # fmt: skip
        with torch.no_grad():
            kept = (heads(scores).argmax(dim=1) == scores.argmax(dim=1)).double().mean()
        facts = {"clips": len(scores), "by": "posterior heads (TASAR)", "same_answers": round(float(kept), 4)}
        return encoder, structure, facts

    @staticmethod
    def reshape(encoder: Encoder, structure: dict[str, Any]) -> Encoder:
        """The classifier, and heads of random weights behind it."""
        heads, classes, released = (structure.get(key) for key in ("heads", "classes", "released"))
        if type(heads) is not int or not 1 <= heads <= MOST_HEADS or type(released) is not bool:
            raise UserError(f"posterior_heads: {heads!r:.20} heads, from 1 to {MOST_HEADS}, cannot be made")
        if type(classes) is not int or classes != encoder.classes:
            raise UserError(f"posterior_heads: {classes!r:.20} classes do not fit the encoder's {encoder.classes}")
        module = getattr(encoder, "classifier", None)
        if not isinstance(module, nn.Module) or type(module) is nn.ModuleList:
            raise UserError("posterior_heads needs an encoder with a single classifier")
        encoder.classifier = nn.Sequential(module, PosteriorHeads(classes, heads, released))
        return encoder


def training_scores(model: Model, data: Selection) -> tuple[Tensor, Tensor]:
    """Scores (n, K) and labels (n,) of clips, on the model's device.

    Raises:
        UserError: there are no clips, or the model does not know their classes.
    """
    from mmcl.evaluation.base import make_apply

    if not len(data.clips):
        raise UserError(f"{data.protocol} has no clips on the side {data.side} to learn posterior heads from")
    scores = make_apply(data.store, model.device)(model, data.clips)
    labels = data.targets(data.clips, model.class_names)
    return torch.from_numpy(scores).to(model.device), torch.from_numpy(labels).to(model.device)
