"""What every surgery is: a trained model goes in, another model comes out."""

from __future__ import annotations

import copy
from abc import abstractmethod
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, ClassVar

from mmcl.common.errors import UserError
from mmcl.common.method import Method
from mmcl.encoders.base import Encoder
from mmcl.encoders.counting import count_macs, count_parameters
from mmcl.models.description_file import Operation
from mmcl.models.model import Model
from mmcl.surgery import SURGERIES

if TYPE_CHECKING:  # reads clip stores, which needs more than loading a changed model does
    from mmcl.data.selection import Selection
    from mmcl.models.record import Record


class Surgery(Method):
    """A change of a trained model.

    A subclass implements :meth:`operate`. Where that exchanges modules, it returns as ``structure`` what
    :meth:`reshape` needs to make the same modules in a newly built encoder, as plain data: that is how the result is
    loaded, trained on, exported and changed again. The name and options of every surgery stay in the model's
    description.
    """

    registry = SURGERIES
    alters: ClassVar[bool] = True  # its modules are none that lean_form of encoders/base.py knows how to deal with

    @abstractmethod
    def operate(self, model: Model, data: Selection | None) -> tuple[Encoder, dict[str, Any] | None, dict[str, Any]]:
        """Change the encoder.

        Args:
            model: a copy that belongs to this call.
            data: clips that the change may look at; None where it was given none.

        Returns:
            The encoder, its structure (None where tensors alone have changed), and facts for the provenance.

        Raises:
            UserError: the model cannot be changed so, or needs clips.
        """

    @staticmethod
    def reshape(encoder: Encoder, structure: dict[str, Any]) -> Encoder:
        """Give a newly built encoder the modules that :meth:`operate` made; its numbers do not matter.

        Args:
            encoder: changed in place.
            structure: from :meth:`operate`, read from a file that a stranger may have written.

        Raises:
            UserError: it does not fit the encoder.
        """
        raise UserError("this surgery changes no modules")

    @classmethod
    def rebuild(cls, encoder: Encoder, structure: dict[str, Any] | None) -> Encoder:
        """What :meth:`reshape` makes of an encoder, marked where it is another network; None: as it is."""
        if structure is None:
            return encoder
        changed = cls.reshape(encoder, structure)
        changed.altered = changed.altered or cls.alters
        return changed

    def run(self, model: Model, data: Selection | None = None) -> Model:
        """Change a model; the one that is given stays as it is.

        Args:
            model: with its encoder, on any device.
            data: clips that the change may look at.

        Returns:
            The new model in evaluation mode, with this surgery in its description.

        Raises:
            UserError: the model cannot be changed so.
        """
        if not isinstance(model, Model):
            raise UserError("ONNX graphs alone cannot be changed: take the bundle with its weights, or the run")
        fresh = copy.deepcopy(model)
        encoder, structure, facts = self.operate(fresh, data)
        encoder.altered = encoder.altered or (structure is not None and self.alters)
        encoder.eval()
        old = model.description
        operation = Operation(self.name, asdict(self.options), structure)
        counts = {**old.counts, "parameters": count_parameters(encoder)}
        if "macs" in counts and structure is not None:
            counts["macs"] = count_macs(encoder, model.preprocess.options.window)
        done = {"surgery": self.name, **asdict(self.options), **facts}
        provenance = {**old.provenance, "changed": [*old.provenance.get("changed", []), done]}
        description = old.changed(
            surgeries=(*old.surgeries, operation), counts=counts, provenance=provenance, onnx={},
            record=_record(model, encoder, data).to_json(),
        )  # fmt: skip
        return Model(description, encoder, fresh.preprocess, fresh.vocabulary).to(model.device)


def _record(model: Model, encoder: Encoder, data: Selection | None) -> Record:
    """What the changed model learned from: the clips it was shown, and all that its parent knows."""
    from mmcl.models.clip_set import ClipSet
    from mmcl.models.record import Record, tensors_digest

    parent = replace(model.record, weights=tensors_digest(model.encoder.state_dict()))
    weights = tensors_digest(encoder.state_dict())
    if data is None:
        return replace(parent, weights=weights, parents=(parent,))
    split = data.split
    return Record(
        dataset=data.store.dataset, protocol=data.protocol or "", store=data.store.fingerprint,
        split="" if split is None else split.digest, test_side="" if split is None else split.test_digest,
        classes=parent.classes, weights=weights, trained=ClipSet.of(data.store, data.clips), selected=ClipSet(),
        parents=(parent,),
    )  # fmt: skip


build_surgery = Surgery.build
