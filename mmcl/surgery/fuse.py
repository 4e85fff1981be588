"""Streams of ARN-LSTM that were trained apart become one network (arXiv 2411.01769, section on fusion)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import nn

from mmcl.common.errors import UserError
from mmcl.encoders.arn_lstm.network import ARNLSTM
from mmcl.encoders.base import Encoder
from mmcl.models.folder import open_model
from mmcl.models.model import Model
from mmcl.surgery.base import Surgery

if TYPE_CHECKING:
    from mmcl.data.selection import Selection


@dataclass(frozen=True)
class FuseOptions:
    """Options of :class:`Fuse`.

    Attributes:
        others: folders of the models whose streams join the first one's: runs, checkpoints or bundles.
        fusion: where streams meet, see :class:`mmcl.encoders.arn_lstm.options.ARNLSTMOptions`. What comes behind is
            new in ``pooled`` and ``dense``, and has to be trained; ``average`` can be used as it is, but for the
            classifier behind LSTMs, which is the mean of the models'.
        freeze: training leaves the streams as they are up to where they meet.
        seed: of what is new.
    """

    others: tuple[str, ...] = ()
    fusion: Literal["pooled", "dense", "average"] = "pooled"
    freeze: bool = True
    seed: int = 0


class Fuse(Surgery):
    """Models of one stream each become one model of several."""

    options_type: ClassVar[type] = FuseOptions
    tiny: ClassVar[Mapping[str, Any]] = MappingProxyType({})  # needs trained models: tests/encoders/test_fuse.py

    def operate(self, model: Model, data: Selection | None) -> tuple[Encoder, dict[str, Any] | None, dict[str, Any]]:
        """No clips are looked at.

        Raises:
            UserError: no other model, one that is no ARN-LSTM of one stream, or models that see clips differently.
        """
        models = [model, *self._others(model)]
        encoders = [_single_stream(one) for one in models]
        for other, encoder in zip(models[1:], encoders[1:], strict=True):
            if reason := _difference(model, other, encoders[0], encoder):
                raise UserError(f"{other.path} and {model.path} cannot be fused: {reason}")
        streams = [encoder.options.streams[0] for encoder in encoders]
        if len(set(streams)) < len(streams):
            raise UserError(f"fuse takes each stream once, not {', '.join(streams)}")
        options = self.options
        structure = {"streams": streams, "fusion": options.fusion, "freeze": options.freeze}
        with torch.random.fork_rng():
            torch.manual_seed(options.seed)
            fused = self.reshape(encoders[0], structure)
        assert isinstance(fused, ARNLSTM)
        _copy(encoders, fused)
        return fused.to(model.device), structure, {"streams": streams}

    @staticmethod
    def reshape(encoder: Encoder, structure: dict[str, Any]) -> Encoder:
        """An ARN-LSTM of several streams in the place of one of one stream."""
        if not isinstance(encoder, ARNLSTM):
            raise UserError("fuse is for models of the encoder arn_lstm")
        streams, fusion, freeze = (structure.get(key) for key in ("streams", "fusion", "freeze"))
        named = isinstance(streams, list) and all(isinstance(name, str) for name in streams)
        if not named or type(freeze) is not bool:
            raise UserError("fuse needs a list of streams, and freeze as true or false")
        changed: dict[str, Any] = {"streams": tuple(streams or ()), "fusion": fusion, "freeze": freeze}
        return ARNLSTM(encoder.layout, encoder.classes, replace(encoder.options, **changed))

    def run(self, model: Model, data: Selection | None = None) -> Model:
        """As of every surgery; the record names all models that went in, as the fused one knows what they learned."""
        fused = super().run(model, data)
        others = self._others(model)
        record = replace(fused.record, parents=(*fused.record.parents, *(other.record for other in others)))
        provenance = dict(fused.description.provenance)
        if self.options.fusion != "average":
            provenance["untrained_classifier"] = True
        description = fused.description.changed(record=record.to_json(), provenance=provenance)
        return Model(description, fused.encoder, fused.preprocess, fused.vocabulary).to(model.device)

    def _others(self, model: Model) -> list[Model]:
        if not self.options.others:
            raise UserError("fuse needs at least one other model: give two models or more")
        return [open_model(folder, device=model.device) for folder in self.options.others]


def _single_stream(model: Model) -> ARNLSTM:
    encoder = model.encoder if isinstance(model, Model) else None
    if not isinstance(encoder, ARNLSTM) or len(encoder.options.streams) > 1:
        raise UserError(f"{model.path} is no model of the encoder arn_lstm with one stream")
    return encoder


def _difference(model: Model, other: Model, one: ARNLSTM, two: ARNLSTM) -> str:
    """Why two models cannot share their input and their classes; empty if they can."""
    if model.class_names != other.class_names:
        return "they know different classes"
    if (model.layout, model.preprocess.target) != (other.layout, other.preprocess.target):
        return "their joints are not the same"
    if model.preprocess.options != other.preprocess.options:
        return "they prepare clips differently"
    same = {"streams": ("joint",), "fusion": "pooled", "freeze": False}
    if replace(one.options, **same) != replace(two.options, **same):  # type: ignore[arg-type]
        return "their encoders have other options than which stream they see"
    return ""


@torch.no_grad()
def _copy(encoders: Sequence[ARNLSTM], fused: ARNLSTM) -> None:
    """Put what was trained in its place in the fused network."""
    streams, firsts, tails = fused.parts()
    for place, encoder in enumerate(encoders):
        own, _, (tail,) = encoder.parts()
        (name,) = own
        streams[name].load_state_dict(own[name].state_dict())
        if fused.options.fusion == "dense":
            firsts[place].dense[0].load_state_dict(tail.dense[0].state_dict())
        if fused.options.fusion == "average":
            tails[place].load_state_dict(tail.state_dict())
    if fused.options.fusion != "average":
        return
    heads = [encoder.classifier for encoder in encoders]
    if isinstance(fused.classifier, nn.ModuleList):
        for head, trained in zip(fused.classifier, heads, strict=True):
            head.load_state_dict(trained.state_dict())
        return
    for key, tensor in fused.classifier.state_dict().items():
        tensor.copy_(torch.stack([head.state_dict()[key] for head in heads]).mean(dim=0))
