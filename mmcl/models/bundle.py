"""A bundle: the skeleton branch and everything needed to use it, in one folder.

``model.safetensors`` (exactly the encoder's tensors), ``config.json`` (see ``description.py``), ``README.md`` (model
card), where it has an open vocabulary ``vocabulary.safetensors``, and where it rejects by familiarity
``familiarity.safetensors``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mmcl.common.errors import UserError
from mmcl.common.limits import GIB, bounded_memory, is_no_memory
from mmcl.common.printing import safe_page
from mmcl.encoders import ENCODERS
from mmcl.encoders.base import Encoder
from mmcl.encoders.building import build_encoder
from mmcl.encoders.counting import count_macs, count_parameters
from mmcl.models.description import CARD, MOST_JOINTS, WEIGHTS, Description, graphs_in, read_bundle
from mmcl.models.description_file import CONFIG, NamedOptions, Operation
from mmcl.models.familiarity import read_familiarity, write_familiarity
from mmcl.models.model import Model
from mmcl.models.rejection import FAMILIARITY, read_rejection
from mmcl.models.vocabulary import Vocabulary
from mmcl.models.vocabulary_file import read_vocabulary, write_vocabulary
from mmcl.skeletons.layout import Layout, load_layout
from mmcl.skeletons.preprocess import Preprocess
from mmcl.skeletons.preprocess_options import PreprocessOptions
from mmcl.skeletons.streams import channels
from mmcl.surgery import SURGERIES


def describe(
    encoder_name: str, encoder: Encoder, preprocess: Preprocess, class_names: Sequence[str],
    provenance: Mapping[str, Any] | None = None, vocabulary: Vocabulary | None = None,
    surgeries: Sequence[Operation] = (), record: dict[str, Any] | None = None, count: bool = True,
) -> Description:  # fmt: skip
    """The description of a skeleton branch in memory.

    Args:
        encoder_name: in ``ENCODERS``.
        encoder: the network.
        preprocess: what comes before it.
        class_names: K names in the order of the scores.
        provenance: where the weights come from, for people.
        vocabulary: text head and table of class texts, where there are any.
        surgeries: that the network went through.
        record: what it learned from, as JSON.
        count: count the multiply-accumulates of a clip, which takes a forward pass.
    """
    counts = {"parameters": count_parameters(encoder)}
    if count:
        counts["macs"] = count_macs(encoder, preprocess.options.window)
    if vocabulary is not None:
        counts["text_head"] = count_parameters(vocabulary)
    return Description(
        encoder=NamedOptions(encoder_name, _plain(asdict(encoder.options))), class_names=list(class_names),
        layout=preprocess.source, encoder_layout=preprocess.target, preprocess=_plain(asdict(preprocess.options)),
        surgeries=tuple(surgeries), counts=counts, provenance=dict(provenance or {}), record=record,
        vocabulary=None if vocabulary is None else vocabulary.facts,
    )  # fmt: skip


def _plain(options: dict[str, Any]) -> dict[str, Any]:
    """Options as JSON gives them back: lists in place of tuples."""
    plain: dict[str, Any] = json.loads(json.dumps(options))
    return plain


def build_network(description: Description, where: str) -> tuple[Encoder, PreprocessOptions]:
    """The encoder that a description speaks of, through all surgeries, with random weights.

    Args:
        description: of the model.
        where: its file, for messages.

    Raises:
        UserError: an encoder, surgery or option that does not exist, or numbers out of range.
    """
    options = PreprocessOptions.from_dict(description.preprocess, f"{where} preprocess")
    joints = max(description.layout.joint_count, description.encoder_layout.joint_count)
    if options.window * description.persons * joints > MOST_JOINTS:
        raise UserError(f"{where}: {description.persons} persons of {joints} joints in {options.window} frames are too "
                        "many")  # fmt: skip
    try:
        encoder = build_encoder(
            description.encoder.name, description.encoder_layout, len(description.class_names),
            description.encoder.options,
        )  # fmt: skip
        for operation in description.surgeries:
            encoder = SURGERIES[operation.name].rebuild(encoder, operation.structure)
    except UserError as error:
        known = description.encoder.name in ENCODERS and all(one.name in SURGERIES for one in description.surgeries)
        hint = "" if known else ", or install the package that adds it"
        raise UserError(f"{where}: {error}{hint}") from error
    except Exception as error:  # what building raises depends on the option that makes no sense
        words = "it needs more memory than its weights fill" if is_no_memory(error) else _line(error)
        raise UserError(f"{where} is damaged or of another version of mmcl: {words}") from error
    given = channels(options.streams, options.dimensions or 3)
    if (taken := encoder.options.channels) != given:
        raise UserError(f"{where}: the encoder takes {taken} channels, its preprocessing gives {given}")
    return encoder, options


def fill_encoder(encoder: Encoder, tensors: Mapping[str, Tensor], where: object) -> None:
    """Load an encoder's tensors and put it in evaluation mode.

    Raises:
        UserError: they are another encoder's, or not finite.
    """
    real = {name for name, tensor in encoder.state_dict().items() if tensor.is_floating_point()}
    if strange := [name for name, tensor in tensors.items() if name in real and not tensor.is_floating_point()]:
        raise UserError(f"{where}: '{strange[0]}' holds {tensors[strange[0]].dtype}, and no real numbers")
    try:
        encoder.load_state_dict(dict(tensors))
    except (RuntimeError, SafetensorError) as error:
        raise UserError(f"{where} is damaged or does not fit its description: {_line(error)}") from error
    own = encoder.state_dict()  # as computed with: files may hold types that nothing can be asked of
    if broken := [name for name, t in own.items() if t.is_floating_point() and not bool(torch.isfinite(t).all())]:
        raise UserError(f"{where}: {len(broken)} tensors hold numbers that are not finite, such as {broken[0]}")
    encoder.eval()


def read_tensors(file: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file.

    Raises:
        UserError: it is damaged.
    """
    try:
        return load_file(file)
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        raise UserError(f"{file} is damaged: {_line(error)}") from error


def load_bundle(folder: str | Path, layout: str | Layout | None = None, device: str | torch.device = "cpu") -> Model:
    """Load a bundle in evaluation mode.

    Args:
        folder: made by ``mmcl export`` or ``mmcl import-checkpoint``.
        layout: layout of the joints you will feed, where it differs from the bundle's own: joints are then converted
            by name inside the model. A name, a .yaml file, or a Layout.
        device: where to put it.

    Raises:
        UserError: no bundle, damaged files, or joints that cannot be converted.
    """
    folder = Path(folder)
    description = read_bundle(folder)
    if not (folder / WEIGHTS).is_file():
        raise UserError(
            f"{folder} holds no {WEIGHTS}, only {', '.join(path.name for path in graphs_in(folder).values())} for "
            "onnxruntime: `mmcl predict --backend onnx` runs it; without --drop-weights, `mmcl export` writes both"
        )
    with bounded_memory(8 * (folder / WEIGHTS).stat().st_size + GIB):
        encoder, options = build_network(description, str(folder / CONFIG))
    fill_encoder(encoder, read_tensors(folder / WEIGHTS), folder / WEIGHTS)
    vocabulary = read_vocabulary(folder, description.vocabulary, encoder.feature_width)
    preprocess = Preprocess(
        source_layout(description, layout), description.encoder_layout, encoder.options.persons, options
    )
    rule, familiarity = read_rejection(description.rejection, str(folder)), None
    if rule is not None and rule.score == FAMILIARITY:
        familiarity = read_familiarity(folder, len(description.class_names), encoder.feature_width)
    return Model(description, encoder, preprocess, vocabulary, folder, familiarity).to(device)


def source_layout(description: Description, layout: str | Layout | None) -> Layout:
    """The layout of the joints that a model will be shown: its own, or the one asked for."""
    if layout is None:
        return description.layout
    return layout if isinstance(layout, Layout) else load_layout(layout)


def write_bundle(folder: Path, model: Model) -> None:
    """Write the files of a bundle into an existing (temporary) folder."""
    if model.vocabulary is not None:
        write_vocabulary(folder, model.vocabulary)
    if model.familiarity is not None:
        write_familiarity(folder, model.familiarity)
    tensors = {key: tensor.detach().cpu().contiguous().clone() for key, tensor in model.encoder.state_dict().items()}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / WEIGHTS).chmod(0o644)  # safetensors makes it readable by its owner only
    write_description(folder, model.description)


def write_description(folder: Path, description: Description) -> None:
    """Write ``config.json`` and the model card."""
    from mmcl.models.card import model_card

    content = json.dumps(description.to_json(), indent=2, ensure_ascii=False)
    (folder / CONFIG).write_text(content + "\n", encoding="utf-8")
    (folder / CARD).write_text(safe_page(model_card(description)), encoding="utf-8")


def _line(error: Exception) -> str:
    """An error of a library in one line that is not endless."""
    return " ".join(str(error).split())[:200]
