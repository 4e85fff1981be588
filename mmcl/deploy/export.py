"""A trained model becomes a bundle, compared on the way with what the trained network gave."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from mmcl.common.errors import UserError
from mmcl.common.files import atomic_folder
from mmcl.deploy.graph_writing import write_graph_files
from mmcl.deploy.known_clips import graph_clips
from mmcl.deploy.options import ExportOptions
from mmcl.deploy.rejecting import rejection_of
from mmcl.deploy.stepping import goes_step_by_step, macs_a_frame
from mmcl.deploy.texts import class_texts, named_classes
from mmcl.deploy.verify import Verified, verify_bundle, write_probe
from mmcl.encoders.counting import count_macs, count_parameters
from mmcl.models.bundle import read_tensors, write_bundle
from mmcl.models.description import Description, is_bundle
from mmcl.models.folder import find_model
from mmcl.models.model import Model
from mmcl.models.record import tensors_digest
from mmcl.models.run_checkpoints import PROBE
from mmcl.models.vocabulary import require_vocabulary

NOTHING = ExportOptions()
PRIVATE = ("data", "validation", "checkpoint")  # of a run's provenance: paths and rules of this machine


def export_run(
    folder: Path, out: Path, which: str | None = None, classes: str | None = None, options: ExportOptions = NOTHING,
    layout: str | None = None, data: str | None = None, protocol: str | None = None,
) -> tuple[Description, Verified]:  # fmt: skip
    """Write the skeleton branch of a run (or of a bundle, again) as a bundle, put in place once it has been verified.

    Args:
        folder: the run, one of its checkpoints, or a bundle.
        out: bundle folder to write.
        which: checkpoint of a run, last (where it is None) or best.
        classes: whose texts the bundle's table shall hold, as on the command line; None for no table.
        options: graphs to write beside the weights, or in their place.
        layout: joints that the bundle shall take where these are not the model's own, by name or .yaml file; the
            conversion becomes part of the bundle and of its graphs.
        data: clip store that graphs are calibrated and compared on; the run's own where not given.
        protocol: whose training side that is; the run's own where not given.

    Returns:
        The bundle's description, and how far it is from the network that it was made of.

    Raises:
        UserError: no run, no checkpoint, ``classes`` for a model without a text head, the verification failed, or a
            graph differs by more than it may (nothing is written then).
    """
    saved = find_model(folder, which)
    model = saved.load(layout)
    control = model.description.provenance.get("control")
    if model.vocabulary is not None and control:
        raise UserError(
            f"{folder} is a control ({control}), which a bundle's vocabulary would not show; judge it with "
            "`mmcl zero-shot`"
        )
    if classes is not None:
        vocabulary = require_vocabulary(model.vocabulary, folder)
        asked = named_classes(classes, vocabulary)
        rows = class_texts(asked, vocabulary, torch.device("cpu")).rows
        model.vocabulary = vocabulary.extended(asked, rows)
    clips = read_tensors(saved.checkpoint / PROBE) if saved.checkpoint is not None and layout is None else None
    return export_model(model, out, clips, options, data, protocol)


def export_model(
    model: Model, out: Path, clips: Mapping[str, Tensor] | None = None, options: ExportOptions = NOTHING,
    data: str | None = None, protocol: str | None = None,
) -> tuple[Description, Verified]:  # fmt: skip
    """Write a model in memory as a bundle, put in place once a fresh process gets the same scores from it.

    Args:
        model: on the CPU, in evaluation mode.
        out: bundle folder to write.
        clips: ``joints`` and ``lengths`` of clips to compare on; None makes some up.
        options: graphs to write beside the weights, or in their place.
        data: as for :func:`export_run`.
        protocol: as for :func:`export_run`.

    Returns:
        The bundle's description, and how far it is from the network that it was made of.

    Raises:
        UserError: as :func:`export_run`.
    """
    description, source = described(model), model
    familiarity = model.familiarity if description.rejection is not None else None
    if options.reject is not None:
        rule, familiarity = rejection_of(model, options.reject, options.reject_by, data, protocol)
        description = description.changed(rejection=rule.to_json())
    model = Model(description, model.encoder, model.preprocess, model.vocabulary, model.path, familiarity)
    parameters = description.counts["parameters"] + description.counts.get("text_head", 0)
    with atomic_folder(out, is_bundle) as folder, tempfile.TemporaryDirectory() as scratch:
        write_bundle(folder, model)
        probe = Path(scratch) / "probe.safetensors"
        write_probe(probe, model, clips)
        verified = verify_bundle(folder, probe, parameters)
        if replace(options, reject=None, reject_by=NOTHING.reject_by) != NOTHING:
            known = graph_clips(folder, source, data, protocol) if options.onnx else None
            description = write_graph_files(folder, probe, description, known, options)
    return description, verified


def described(model: Model) -> Description:
    """The description of a model's bundle: counted anew, for the joints it takes now, without paths of this machine."""
    old = model.description
    counts = {"parameters": count_parameters(model.encoder)}
    counts["macs"] = count_macs(model.encoder, model.preprocess.options.window)
    if goes_step_by_step(model):
        counts["macs_frame"] = round(macs_a_frame(model))
    if model.vocabulary is not None:
        counts["text_head"] = count_parameters(model.vocabulary)
    provenance = {key: value for key, value in old.provenance.items() if key not in PRIVATE}
    record = replace(model.record, weights=tensors_digest(model.encoder.state_dict()))
    same = old.rejection is not None and old.rejection.get("weights") == record.weights
    return old.changed(
        rejection=old.rejection if same else None,
        counts=counts, provenance=provenance, layout=model.layout, onnx={}, weights=True, record=record.to_json(),
        vocabulary=None if model.vocabulary is None else model.vocabulary.facts,
    )  # fmt: skip
