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
from mmcl.data.selection import Selection
from mmcl.data.split import Split
from mmcl.data.store import ClipStore
from mmcl.deploy.graphs import MOST_COMPARED, GraphClips, evenly, write_graph_files
from mmcl.deploy.options import ExportOptions
from mmcl.deploy.stepping import goes_step_by_step, macs_a_frame
from mmcl.deploy.texts import class_texts, named_classes
from mmcl.deploy.verify import Verified, verify_bundle, write_probe
from mmcl.encoders.counting import count_macs, count_parameters
from mmcl.models.bundle import load_bundle, read_tensors, write_bundle
from mmcl.models.description import Description, is_bundle
from mmcl.models.folder import PROBE, find_model
from mmcl.models.model import Model
from mmcl.models.record import tensors_digest
from mmcl.models.rejection import Rejection, fit_rejection
from mmcl.models.vocabulary import require_vocabulary

NOTHING = ExportOptions()
PRIVATE = ("data", "validation", "checkpoint")  # of a run's provenance: paths and rules of this machine


def export_run(
    folder: Path, out: Path, which: str = "last", classes: str | None = None, options: ExportOptions = NOTHING,
    layout: str | None = None, data: str | None = None, protocol: str | None = None,
) -> tuple[Description, Verified]:  # fmt: skip
    """Write the skeleton branch of a run (or of a bundle, again) as a bundle, put in place once it has been verified.

    Args:
        folder: the run, one of its checkpoints, or a bundle.
        out: bundle folder to write.
        which: checkpoint of a run, last or best.
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
    if options.reject is not None:
        description = description.changed(rejection=rejection_of(model, options.reject, data, protocol).to_json())
    model = Model(description, model.encoder, model.preprocess, model.vocabulary, model.path)
    parameters = description.counts["parameters"] + description.counts.get("text_head", 0)
    with atomic_folder(out, is_bundle) as folder, tempfile.TemporaryDirectory() as scratch:
        write_bundle(folder, model)
        probe = Path(scratch) / "probe.safetensors"
        write_probe(probe, model, clips)
        verified = verify_bundle(folder, probe, parameters)
        if replace(options, reject=None) != NOTHING:
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


def rejection_of(model: Model, share: float, data: str | None = None, protocol: str | None = None) -> Rejection:
    """The threshold for "none of these" of a model, set on the clips that its run held out of training.

    Args:
        model: on the CPU, in evaluation mode.
        share: of the right answers that may be rejected.
        data: as for :func:`export_run`.
        protocol: as for :func:`export_run`.

    Raises:
        UserError: nothing says which clips, none were held out, or too few are answered right.
    """
    from mmcl.engine.scoring import score_clips
    from mmcl.models.graph_model import in_layout

    store, sides, protocol = _sides(model, data, protocol)
    held = sides.validation
    if not len(held):
        raise UserError(
            f"{model.path} held no clips out of training, and a threshold needs some: train with --data.validation, or "
            "name a protocol that holds some out (--protocol)"
        )
    columns = model.preprocess.columns

    def scores(joints: Tensor, lengths: Tensor) -> Tensor:
        return model(in_layout(joints, store.layout, model.layout, columns), lengths)

    found = torch.from_numpy(score_clips(scores, store, held, torch.device("cpu"), progress=True)).double()
    labels = Selection(store, protocol, split=sides).targets(held, model.class_names)
    digest = tensors_digest(model.encoder.state_dict())
    return fit_rejection(found.softmax(dim=-1).numpy(), labels, f"{protocol} validation", digest, share)


def graph_clips(folder: Path, model: Model, data: str | None = None, protocol: str | None = None) -> GraphClips:
    """The clips that graphs are calibrated on and compared with the network on: never those of the test side.

    Args:
        folder: of the bundle that the graphs belong to.
        model: the same in memory, which says which clips it was trained on.
        data: clip store; the run's own where not given.
        protocol: whose training side it is; the run's own where not given.

    Raises:
        UserError: nothing says which clips, or they have other joints than the bundle takes.
    """
    return compared_clips(load_bundle(folder), *_sides(model, data, protocol))


def _sides(model: Model, data: str | None, protocol: str | None) -> tuple[ClipStore, Split, str]:
    """Store, split and protocol of the clips that a model was trained on, or of those named."""
    from mmcl.data.protocols import load_protocol
    from mmcl.data.splitting import split
    from mmcl.data.store import open_store

    own = model.description.provenance
    data, protocol = data or own.get("data"), protocol or own.get("protocol")
    if data is None or protocol is None:
        raise UserError(f"{model.path} does not say where its clips are: this needs some, give --data and --protocol")
    store = open_store(data)
    return store, split(store, load_protocol(protocol), own.get("validation") or None, needed=["train"]), protocol


def compared_clips(
    model: Model, store: ClipStore, sides: Split, protocol: str, most: int = MOST_COMPARED
) -> GraphClips:  # fmt: skip
    """Validation clips where some are held out, else training clips, with what the network says of them.

    Args:
        model: the network.
        store: the clips; they are converted to the joints that the model takes.
        sides: of the clips; those of the test side are not looked at.
        protocol: its name, for people.
        most: clips that are compared, spread over all.
    """
    from mmcl.engine.scoring import score_clips
    from mmcl.models.graph_model import in_layout

    side, columns = "validation" if len(sides.validation) else "train", model.preprocess.columns

    def read(clip: int) -> Tensor:
        return in_layout(torch.from_numpy(store.numbers(clip).copy())[None], store.layout, model.layout, columns)

    def scores(joints: Tensor, lengths: Tensor) -> Tensor:
        return model(in_layout(joints, store.layout, model.layout, columns), lengths)

    compared = evenly(getattr(sides, side), most)
    reference = torch.from_numpy(score_clips(scores, store, compared, torch.device("cpu"), progress=True))
    return GraphClips(
        read=lambda clip: read(clip).numpy(), calibration=sides.train, compared=compared,
        reference=reference.softmax(dim=-1).numpy(), side=f"{protocol} {side}",
    )  # fmt: skip
