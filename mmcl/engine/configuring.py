"""The configuration that a command line means, with what a checkpoint that it names, and the clips, say of the rest.

The source of weights says what the encoder looks like: :func:`source_defaults` are the defaults of a configuration that
names a ``start.checkpoint``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mmcl.encoders.building import parse_options
from mmcl.engine.config import TrainConfig
from mmcl.engine.derived import derived_values
from mmcl.engine.parsing import parse
from mmcl.models.folder import SavedModel, find_model
from mmcl.skeletons.layout import Layout, layout_names, load_layout
from mmcl.skeletons.preprocess_options import PreprocessOptions


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
        "encoder.name": description.encoder.name, "data.layout": layout_key(description.encoder_layout),
        **dotted(encoder_options_of(source)), **preprocess, **({"surgeries": operations} if operations else {}),
    }  # fmt: skip


def encoder_options_of(source: SavedModel) -> Any:
    """Options of a model's encoder, as its own dataclass."""
    encoder = source.description.encoder
    return parse_options(encoder.name, encoder.options)


def layout_key(layout: Layout) -> str | None:
    """What ``data.layout`` calls a layout; None where that needs a file nobody named."""
    known = layout.name in layout_names() and same_joints(load_layout(layout.name), layout)
    return layout.name if known else None


def same_joints(one: Layout, other: Layout) -> bool:
    """Whether two layouts have the same joints, hanging on the same ones, whatever the layouts are called."""
    return (one.joints, one.parents) == (other.joints, other.parents)


def dotted(encoder_options: Any) -> dict[str, Any]:
    """Options by their keys in a recipe; the number of channels is none, since it follows from the streams."""
    return {f"encoder.{key}": value for key, value in asdict(encoder_options).items() if key != "channels"}
