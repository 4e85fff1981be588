"""Starting from a trained skeleton branch: what it is, what of it fits, and what is trained on.

The source says what the encoder looks like: :func:`source_defaults` are the defaults of a configuration that names a
``start.checkpoint``. Resuming goes by the run's own checkpoints; the source only has to be the same as it was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from mmcl.common.documents import read_json
from mmcl.common.errors import UserError
from mmcl.common.files import write_json
from mmcl.encoders.base import Encoder, parse_options
from mmcl.engine.config import TrainConfig
from mmcl.engine.derived import derived_values
from mmcl.engine.parsing import parse
from mmcl.engine.setup import Experiment
from mmcl.models.folder import SavedModel, find_model
from mmcl.models.learned import record_of
from mmcl.models.record import Record
from mmcl.skeletons.layout import Layout, layout_names, load_layout
from mmcl.skeletons.preprocess import PreprocessOptions
from mmcl.tasks import TASKS

RECORD = "start.json"  # in the run folder: what was loaded


def configure(argv: Sequence[str]) -> TrainConfig:
    """The configuration of a command line.

    What it leaves open is that of the ``start.checkpoint`` it may name, and where ``derive`` is true, follows from the
    clips.

    Raises:
        UserError: an unknown key, a value of the wrong type, a missing recipe or checkpoint; naming it.
    """
    return parse(argv, source_defaults, derived_values)


def configure_contrast(argv: Sequence[str]) -> list[TrainConfig]:
    """The configurations of the two runs that a command line with ``--stars=true`` means.

    The first one learns without labels on the same clips, in OUT-stars; the second one is the command line's own. Words
    about its task and teachers are not for the first. Where the first run has no model yet, the second is configured
    without what it starts from.

    Raises:
        UserError: as :func:`configure`.
    """
    words = [*argv, "--stars=false"]
    own = configure(words)
    first = f"{own.out.rstrip('/')}-stars"
    before = configure([*_without_lesson(words), "--config=own_stars", f"--out={first}"])
    if (Path(own.out) / "config.yaml").is_file() and own.resume:
        own = configure([*words, f"--start.checkpoint={first}"])
    return [before, own]


def _without_lesson(words: Sequence[str]) -> list[str]:
    """A command line without what is said of the task and its teachers, each option with its value.

    The value may be a word of its own or not.
    """
    kept, skipped = list[str](), False
    for word in words:
        option, equals, _ = word.partition("=")
        if option in ("--task", "--distil") or option.startswith(("--task.", "--distil.")):
            skipped = not equals
        elif skipped:
            skipped = False
        else:
            kept.append(word)
    return kept


def source_defaults(path: Path) -> dict[str, Any]:
    """Dotted keys of a configuration, as the model at that path has them.

    Raises:
        UserError: there is no model, or one of ONNX graphs alone, which cannot be trained.
    """
    source = find_model(path)
    assert source.weights is not None  # says what is wrong with a bundle of graphs alone
    description = source.description
    options = asdict(PreprocessOptions.from_dict(description.preprocess, f"{path} preprocess"))
    preprocess = {f"preprocess.{key}": value for key, value in options.items()}
    operations = [asdict(operation) for operation in description.surgeries]
    return {
        "encoder.name": description.encoder.name, "data.layout": _layout_key(description.encoder_layout),
        **_dotted(_options(source)), **preprocess, **({"surgeries": operations} if operations else {}),
    }  # fmt: skip


def _options(source: SavedModel) -> Any:
    encoder = source.description.encoder
    return parse_options(encoder.name, encoder.options)


def _layout_key(layout: Layout) -> str | None:
    """What ``data.layout`` calls a layout; None where that needs a file nobody named."""
    known = layout.name in layout_names() and _same_joints(load_layout(layout.name), layout)
    return layout.name if known else None


def _same_joints(one: Layout, other: Layout) -> bool:
    return (one.joints, one.parents) == (other.joints, other.parents)


def _dotted(encoder_options: Any) -> dict[str, Any]:
    """Options by their keys in a recipe; the number of channels is none, since it follows from the streams."""
    return {f"encoder.{key}": value for key, value in asdict(encoder_options).items() if key != "channels"}


def start(config: TrainConfig, data: Experiment, encoder: Encoder) -> dict[str, Any] | None:
    """Fill an encoder from ``start.checkpoint``, and freeze what is not to be trained.

    Returns:
        What was loaded and what was not, in words, and ``lessons``; None where no checkpoint is named.

    Raises:
        UserError: no such checkpoint, it does not fit, or it is another one than when the run was begun.
    """
    if not config.start.checkpoint:
        return None
    if config.start.train == "head" and not TASKS[config.task_name].classifies:
        raise UserError(
            f"start.train=head trains the classifier alone, and task {config.task_name} trains none: leave it out"
        )
    source = find_model(config.start.checkpoint)
    words = _load(config, source, data.class_names, encoder) if config.start.weights else {"loaded": "no weights"}
    if config.start.train == "head":
        encoder.freeze_features()
    facts = {
        "checkpoint": config.start.checkpoint,
        "trained_on": source.description.provenance.get("dataset") or "unknown (the checkpoint does not say)",
        **words,
        "trained": "the classifier alone" if config.start.train == "head" else "all of it",
        **_changed(config, source),
        "sha256": file_digest(source),
    }
    record = Path(config.out) / RECORD
    if config.resume and record.is_file() and read_json(record) != facts:
        raise UserError(f"cannot resume: {config.start.checkpoint} is not what it was when the run was begun")
    return facts


def file_digest(source: SavedModel) -> str:
    """sha256 of a model's file of weights, as a run records what it started from."""
    return hashlib.sha256(source.weights.read_bytes()).hexdigest()


def _load(config: TrainConfig, source: SavedModel, class_names: list[str], encoder: Encoder) -> dict[str, str]:
    """Load what fits; the classifier only where it was trained, for the same classes in the same order."""
    tensors, others = source.encoder_tensors()
    new = _new_classifier(source, class_names, encoder, tensors)
    if new:
        tensors = {name: tensor for name, tensor in tensors.items() if not encoder.in_head(name)}
    _check_fit(config, source, tensors, encoder, bool(new))
    encoder.load_state_dict(tensors, strict=False)
    return {
        "loaded": f"{len(tensors)} tensors of the encoder",
        "not_loaded": f"{others} tensors of what helped it learn" if others else "nothing, there was no more",
        "classifier": new or f"its own {len(class_names)} classes",
    }


def parent_records(config: TrainConfig) -> list[Record]:
    """What the model that a run starts from had learned from; none where its weights are not taken."""
    if not (config.start.checkpoint and config.start.weights):
        return []
    source = find_model(config.start.checkpoint)
    return [replace(record_of(source.description, source.path), weights=source.network)]


def _new_classifier(
    source: SavedModel, class_names: list[str], encoder: Encoder, tensors: Mapping[str, Tensor]
) -> str:  # fmt: skip
    """Why the classifier is new, in words; empty where it is the source's."""
    names, count = source.description.class_names, len(class_names)
    if names != class_names:
        return f"new, for {count} classes that are not its {len(names)}"
    if source.description.provenance.get("untrained_classifier"):
        return f"new, for {count} classes: the source has trained none"
    own, given = (
        {name: tensor.shape for name, tensor in state.items() if encoder.in_head(name)}
        for state in (encoder.state_dict(), tensors)
    )
    return "" if own == given else f"new, for the same {count} classes: the source's is of another form"


def write_start(facts: Mapping[str, Any], folder: Path) -> None:
    """Keep in the run folder what was started from."""
    write_json(folder / RECORD, dict(facts))


def _changed(config: TrainConfig, source: SavedModel) -> dict[str, str]:
    """Preprocessing and options that fit, but are not those the encoder was trained with."""
    now = {"preprocess": asdict(config.preprocess), "encoder": asdict(config.encoder)}
    preprocess = PreprocessOptions.from_dict(source.description.preprocess, f"{source.path} preprocess")
    before = {"preprocess": asdict(preprocess), "encoder": asdict(_options(source))}
    words = [
        f"{section}.{key} {before[section][key]} -> {value}"
        for section in now
        for key, value in now[section].items()
        if key in before[section] and before[section][key] != value
    ]
    return {"changed": ", ".join(words)} if words else {}


def _check_fit(
    config: TrainConfig, source: SavedModel, tensors: Mapping[str, Tensor], encoder: Encoder, fresh: bool
) -> None:  # fmt: skip
    own = {name: t for name, t in encoder.state_dict().items() if not (fresh and encoder.in_head(name))}
    fits = own.keys() == tensors.keys() and all(own[name].shape == tensors[name].shape for name in own)
    name, target = source.description.encoder.name, source.description.encoder_layout
    same = _same_joints(encoder.layout, target)
    if fits and config.encoder_name == name and same:
        return
    layout = _layout_key(target) or f"'{target.name}' (give its .yaml)"
    was = {"encoder.name": name, **_dotted(_options(source)), "data.layout": layout}
    now = {"encoder.name": config.encoder_name, **_dotted(config.encoder)}
    now["data.layout"] = layout if same else encoder.layout.name
    pairs = ", ".join(f"--{key}={was[key]} (now {now[key]})" for key in was if key in now and was[key] != now[key])
    if not pairs:
        raise UserError(f"{source.weights} is damaged: its tensors are not those of the encoder it says it is")
    raise UserError(
        f"the encoder is not that of start.checkpoint {config.start.checkpoint}, which fits {pairs}; keys that neither "
        "recipe nor command line gives are taken from the checkpoint"
    )
