"""Starting from a trained skeleton branch: what it is, what of it fits, and what is trained on.

The source says what the encoder looks like: :func:`source_defaults` are the defaults of a configuration that names a
``start.checkpoint``. Resuming goes by the run's own checkpoints; the source only has to be the same as it was.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from mmcl.common.errors import UserError
from mmcl.common.files import write_json
from mmcl.data.learned import Lesson, recorded_lessons, started_lessons
from mmcl.deploy.bundle import CONFIG, WEIGHTS, read_config
from mmcl.encoders.base import Encoder, parse_options
from mmcl.engine.checkpoint import LEARNED, encoder_tensors, find_checkpoint
from mmcl.engine.config import TrainConfig
from mmcl.engine.position import trained_data
from mmcl.engine.run_folder import check_classes, find_run, read_run_config
from mmcl.engine.setup import Experiment, open_data, target_layout
from mmcl.skeletons.layout import Layout, layout_names, load_layout
from mmcl.skeletons.preprocess import PreprocessOptions

RECORD = "start.json"  # in the run folder: what was loaded


@dataclass(frozen=True)
class Source:
    """A trained skeleton branch.

    Attributes:
        file: its tensors.
        encoder: name of the encoder.
        options: of the encoder.
        layout: joints it works on.
        layout_key: what ``data.layout`` calls them; None where that needs a file nobody named.
        preprocess: what was done to its input.
        class_names: K names in the order of its scores.
        dataset: what it was trained on, where that is known.
        lessons: which clips it has learned from, where that is known.
    """

    file: Path
    encoder: str
    options: Any
    layout: Layout
    layout_key: str | None
    preprocess: Mapping[str, Any]
    class_names: list[str]
    dataset: str | None
    lessons: tuple[Lesson, ...]

    def tensors(self) -> tuple[dict[str, Tensor], int]:
        """The encoder's tensors by name, and how many others there are.

        Raises:
            UserError: the file is damaged.
        """
        try:
            if self.file.name == WEIGHTS:
                return load_file(self.file), 0
            return encoder_tensors(self.file.parent)
        except (SafetensorError, OSError) as error:
            raise UserError(f"{self.file} is damaged: {error}") from error


def find_source(path: Path) -> Source:
    """Describe what a bundle, a run folder or a checkpoint of a run holds.

    Raises:
        UserError: it is none of them, or the run's clips (which say what its classes are) are gone.
    """
    if (path / CONFIG).is_file():
        facts = read_config(path)
        layout = Layout.from_dict(facts["encoder_layout"], f"{path / CONFIG} encoder_layout")
        name, given = facts["encoder"]["name"], facts["encoder"]["options"]
        return Source(
            path / WEIGHTS, name, parse_options(name, given), layout, _layout_key(layout),
            asdict(PreprocessOptions.from_dict(facts["preprocess"], f"{path / CONFIG} preprocess")),
            facts["class_names"], facts["provenance"].get("dataset"), recorded_lessons(facts["provenance"]),
        )  # fmt: skip
    folder, which = find_run(path)
    config = read_run_config(folder)
    data, checkpoint = open_data(config), find_checkpoint(folder / "checkpoints", which)
    check_classes(folder, data.class_names)
    layout = target_layout(config, data.store.layout)
    return Source(
        checkpoint / LEARNED, config.encoder_name, config.encoder, layout, config.data.layout or _layout_key(layout),
        asdict(config.preprocess), data.class_names, data.store.dataset,
        run_lessons(folder, config, checkpoint, data.store.dataset),
    )  # fmt: skip


def run_lessons(folder: Path, config: TrainConfig, checkpoint: Path, dataset: str) -> tuple[Lesson, ...]:
    """What a checkpoint of a run has learned from: the run's own clips, and what it had started from had."""
    own = Lesson(config.data.protocol, trained_data(checkpoint), dataset)
    record = folder / RECORD
    return (own, *started_lessons(json.loads(record.read_text(encoding="utf-8")) if record.is_file() else None))


def _layout_key(layout: Layout) -> str | None:
    known = layout.name in layout_names() and _same_joints(load_layout(layout.name), layout)
    return layout.name if known else None


def _same_joints(one: Layout, other: Layout) -> bool:
    return (one.joints, one.parents) == (other.joints, other.parents)


def source_defaults(path: Path) -> dict[str, Any]:
    """Dotted keys of a configuration, as the source has them."""
    source = find_source(path)
    preprocess = {f"preprocess.{key}": value for key, value in source.preprocess.items()}
    return {"encoder.name": source.encoder, "data.layout": source.layout_key, **_dotted(source.options), **preprocess}


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
    source = find_source(Path(config.start.checkpoint))
    words = _load(config, source, data.class_names, encoder) if config.start.weights else {"loaded": "no weights"}
    if config.start.train == "head":
        encoder.freeze_features()
    facts = {
        "checkpoint": config.start.checkpoint,
        "trained_on": source.dataset or "unknown (the checkpoint does not say)",
        **words,
        "trained": "the classifier alone" if config.start.train == "head" else "all of it",
        **_changed(config, source),
        "sha256": hashlib.sha256(source.file.read_bytes()).hexdigest(),
        "lessons": [list(lesson) for lesson in source.lessons] if config.start.weights else [],
    }
    record = Path(config.out) / RECORD
    if config.resume and record.is_file() and json.loads(record.read_text(encoding="utf-8")) != facts:
        raise UserError(f"cannot resume: {config.start.checkpoint} is not what it was when the run was begun")
    return facts


def _load(config: TrainConfig, source: Source, class_names: list[str], encoder: Encoder) -> dict[str, str]:
    """Load what fits; the classifier only where its classes are the same, in the same order."""
    tensors, others = source.tensors()
    fresh = source.class_names != class_names
    if fresh:
        tensors = {name: tensor for name, tensor in tensors.items() if not encoder.in_head(name)}
    _check_fit(config, source, tensors, encoder, fresh)
    encoder.load_state_dict(tensors, strict=False)
    count, before = len(class_names), len(source.class_names)
    return {
        "loaded": f"{len(tensors)} tensors of the encoder",
        "not_loaded": f"{others} tensors of what helped it learn" if others else "nothing, there was no more",
        "classifier": f"new, for {count} classes that are not its {before}" if fresh else f"its own {count} classes",
    }


def write_start(facts: Mapping[str, Any], folder: Path) -> None:
    """Keep in the run folder what was started from."""
    write_json(folder / RECORD, dict(facts))


def _changed(config: TrainConfig, source: Source) -> dict[str, str]:
    """Preprocessing and options that fit, but are not those the encoder was trained with."""
    now = {"preprocess": asdict(config.preprocess), "encoder": asdict(config.encoder)}
    before = {"preprocess": source.preprocess, "encoder": asdict(source.options)}
    words = [
        f"{section}.{key} {before[section][key]} -> {value}"
        for section in now
        for key, value in now[section].items()
        if key in before[section] and before[section][key] != value
    ]
    return {"changed": ", ".join(words)} if words else {}


def _check_fit(
    config: TrainConfig, source: Source, tensors: Mapping[str, Tensor], encoder: Encoder, fresh: bool
) -> None:  # fmt: skip
    own = {name: t for name, t in encoder.state_dict().items() if not (fresh and encoder.in_head(name))}
    fits = own.keys() == tensors.keys() and all(own[name].shape == tensors[name].shape for name in own)
    if fits and config.encoder_name == source.encoder and _same_joints(encoder.layout, source.layout):
        return
    layout = source.layout_key or f"'{source.layout.name}' (give its .yaml)"
    same = _same_joints(encoder.layout, source.layout)
    was = {"encoder.name": source.encoder, **_dotted(source.options), "data.layout": layout}
    now = {"encoder.name": config.encoder_name, **_dotted(config.encoder)}
    now["data.layout"] = layout if same else encoder.layout.name
    pairs = ", ".join(f"--{key}={was[key]} (now {now[key]})" for key in was if key in now and was[key] != now[key])
    if not pairs:
        raise UserError(f"{source.file} is damaged: its tensors are not those of the encoder it says it is")
    raise UserError(
        f"the encoder is not that of start.checkpoint {config.start.checkpoint}, which fits {pairs}; keys that neither "
        "recipe nor command line gives are taken from the checkpoint"
    )
