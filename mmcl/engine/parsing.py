"""YAML recipe + command line -> :class:`TrainConfig`, through jsonargparse.

``--config`` may be given several times; later files and options win. The options of the chosen encoder and task are
known only once their names are, so the names are looked up first and the parser is built for them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmcl.common.errors import UserError
from mmcl.common.options import fill, typed
from mmcl.encoders import ENCODERS
from mmcl.encoders.base import encoder_options
from mmcl.engine.config import (
    DataOptions,
    Derived,
    EngineOptions,
    OptimiserOptions,
    StartOptions,
    TrainConfig,
)
from mmcl.engine.older import modernised
from mmcl.engine.recipes import LOOKED_UP, Recipe, keys_of, read_command_line
from mmcl.models.description import Operation
from mmcl.skeletons.augment import Augmentation
from mmcl.skeletons.preprocess import PreprocessOptions
from mmcl.tasks import TASKS
from mmcl.tasks.distil import DistilOptions
from mmcl.tasks.stages import ScheduleOptions

_SECTIONS = {
    "data": DataOptions,
    "start": StartOptions,
    "preprocess": PreprocessOptions,
    "augmentation": Augmentation,
    "optimiser": OptimiserOptions,
    "schedule": ScheduleOptions,
    "distil": DistilOptions,
    "engine": EngineOptions,
}
_DEFAULT_NAMES = {"encoder": "ctrgcn", "task": "supervised"}
_PLAIN = {"out": str, "seed": int, "resume": bool, "derive": bool, "stars": bool, "surgeries": list[Operation]}
_ABOUT = """Train a skeleton encoder, alone or together with CLIP and a multimodal LLM.

  accelerate launch mmcl/train.py --config RECIPE [--key.sub=value ...]

RECIPE is a .yaml file or the name of one in mmcl/recipes/; several --config add up, later ones win. They go with any
encoder and any task: what a recipe says of another one is left out, with a note. This page lists the keys of the
encoder and the task that are chosen: `mmcl train --task.name=colearn --help` lists those of co-learning.
The run folder (--out) then holds config.yaml, metrics.jsonl, tracker files, checkpoints/last and summary.json.
Ctrl-C or SIGTERM saves a checkpoint first; the same command with --resume=true goes on from it, step for step."""

# What a checkpoint that a run starts from says of encoder, preprocessing and layout: dotted keys of a configuration.
Defaults = Callable[[Path], Mapping[str, Any]]
# What the clips of a configuration say of keys that nobody gives a value: dotted keys.
Measure = Callable[[TrainConfig], Mapping[str, Derived]]


def build_parser(names: Mapping[str, str]) -> Any:
    """The jsonargparse parser for one choice of encoder and task."""
    import jsonargparse

    parser = jsonargparse.ArgumentParser(
        prog="mmcl train", description=_ABOUT, exit_on_error=False, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--config", action="config", help="recipe; may be repeated")
    parser.add_argument("--out", type=str, default="runs/latest", help="run folder")
    parser.add_argument("--seed", type=int, default=0, help="reaches everything: weights, order, augmentation")
    parser.add_argument("--resume", type=bool, default=False, help="go on from checkpoints/last of the run folder")
    parser.add_argument(
        "--surgeries", type=list[dict[str, Any]], default=[],
        help="that the encoder goes through before weights are loaded; taken from start.checkpoint",
    )  # fmt: skip
    parser.add_argument(
        "--derive", type=bool, default=False,
        help="batch size, epochs, window and the like follow from the clips where nobody gives them a value",
    )  # fmt: skip
    parser.add_argument(
        "--stars", type=bool, default=False,
        help="first train the encoder on the same clips without labels (recipe own_stars), into OUT-stars, with that "
        "recipe's task and optimiser, and start from there",
    )  # fmt: skip
    for section, options in _SECTIONS.items():
        parser.add_class_arguments(options, section)
    parser.add_argument("--encoder.name", type=str, default=names["encoder"], help="which one: " + ", ".join(ENCODERS))
    parser.add_class_arguments(encoder_options(names["encoder"]), "encoder", skip={"channels"})
    parser.add_argument("--task.name", type=str, default=names["task"], help="what is trained: " + ", ".join(TASKS))
    parser.add_class_arguments(TASKS[names["task"]].options, "task")
    return parser


def parse(argv: Sequence[str], defaults_of: Defaults | None = None, measure: Measure | None = None) -> TrainConfig:
    """Read, check and type a run's configuration.

    Args:
        argv: the command line.
        defaults_of: what is asked for keys that the command line leaves open where it names a ``start.checkpoint``;
            :func:`mmcl.engine.start.configure` gives it.
        measure: what the clips say of keys that are still open, asked where ``derive`` is true; from there, too.

    Raises:
        UserError: an unknown key, a value of the wrong type, a missing recipe; naming it.
    """
    asked, defaults = read_command_line(argv, (*_SECTIONS, *_DEFAULT_NAMES)), dict[str, Any]()
    if asked.named.get("start") and defaults_of is not None:
        defaults = dict(defaults_of(Path(asked.named["start"])))
        own = defaults["encoder.name"]
        if asked.named.get("encoder", own) != own:  # then its options are not, too
            defaults = {k: value for k, value in defaults.items() if not k.startswith("encoder.") and k != "surgeries"}
    names = {**_DEFAULT_NAMES, "encoder": defaults.get("encoder.name", _DEFAULT_NAMES["encoder"])}
    names |= {section: name for section, name in asked.named.items() if section in names}
    parser = build_parser(names)
    parser.set_defaults(defaults)
    words, notes = asked.words(names)
    config = _typed(parser, words, names, asked.named, tuple(notes))
    if measure is None or not config.derive:
        return config
    found = {key: one for key, one in measure(config).items() if key not in defaults and _holds(config, key)}
    parser.set_defaults({key: one.value for key, one in found.items()})
    config = _typed(parser, words, names, asked.named, tuple(notes))
    taken = {key: one for key, one in found.items() if _value_of(config, key) == one.value}
    return replace(config, derived=tuple(f"{key} {one.value} ({one.reason})" for key, one in taken.items()))


def _holds(config: TrainConfig, key: str) -> bool:
    """Whether a configuration has a dotted key: another encoder has other options."""
    section, _, name = key.partition(".")
    return hasattr(getattr(config, section), name)


def _value_of(config: TrainConfig, key: str) -> Any:
    section, _, name = key.partition(".")
    return getattr(getattr(config, section), name)


def read_run_config(folder: Path) -> TrainConfig:
    """The configuration a run folder was made with.

    Raises:
        UserError: the folder is no run folder.
    """
    saved = folder / "config.yaml"
    if not saved.is_file():
        raise UserError(f"{folder} is no run folder (no config.yaml): give the --out folder of `mmcl train`")
    recipe = Recipe(saved, modernised(keys_of(saved)))
    recipe.check((*_SECTIONS, *_DEFAULT_NAMES))
    found = recipe.names()
    names = {section: found.get(section, default) for section, default in _DEFAULT_NAMES.items()}
    return _typed(build_parser(names), ["--config", recipe.text()], names, found, ())


def _typed(
    parser: Any, words: Sequence[str], names: Mapping[str, str], found: Mapping[str, str], notes: tuple[str, ...]
) -> TrainConfig:  # fmt: skip
    """The configuration by a parser that knows the options of the encoder and task called so."""
    import jsonargparse

    try:
        config = parser.parse_args(words)
    except (jsonargparse.ArgumentError, OverflowError, ValueError, TypeError, AttributeError, OSError) as error:
        message = " ".join(str(error).split())  # the other kinds: of words such as --encoder={3: x}, or 400 digits
        raise UserError(f"{message}; `mmcl train --help` lists every key") from error
    parts = _parts(config.clone(with_meta=False).as_dict(), names)
    for section, key in LOOKED_UP.items():  # a form of saying so that was not foreseen trains nothing else instead
        used, said = names.get(section, found.get(section, "")), config[section][key]
        if used != said:
            raise UserError(f"{section}.{key} is given in a form that is not understood: say --{section}.{key}={said}")
    parsed = TrainConfig(
        **parts, encoder_name=names["encoder"], task_name=names["task"], text=parser.dump(config), notes=notes
    )
    parsed.validate()
    groups = TASKS[parsed.task_name].own_rates
    if unknown := sorted(set(parsed.optimiser.rates) - set(groups)):
        known = f"those of {parsed.task_name} are {', '.join(groups)}" if groups else "this task has none"
        raise UserError(
            f"optimiser.rates names {', '.join(unknown)}, which is no parameter group with a rate of its own: {known}"
        )
    return parsed


def _parts(found: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Top-level values and sections, each of its type. Every value is checked here: the parser takes None for any.

    Raises:
        UserError: a value of the wrong type, or out of range; naming its key.
    """
    parts = {key: typed(key, found[key], kind) for key, kind in _PLAIN.items()}
    kinds = {**_SECTIONS, "encoder": encoder_options(names["encoder"]), "task": TASKS[names["task"]].options}
    for section, kind in kinds.items():
        own = found[section]
        if section in names and isinstance(own, Mapping):
            own = {key: value for key, value in own.items() if key != "name"}
        parts[section] = fill(section, own, kind)
    return {**parts, "surgeries": tuple(parts["surgeries"])}
