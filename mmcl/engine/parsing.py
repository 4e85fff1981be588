"""YAML recipe + command line -> :class:`TrainConfig`, through jsonargparse.

``--config`` may be given several times; later files and options win. The options of the chosen encoder and task are
known only once their names are, so the names are looked up first and the parser is built for them. Where a run starts
from a checkpoint, that one's encoder and preprocessing are the defaults.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmcl.common.errors import UserError
from mmcl.common.files import read_yaml
from mmcl.common.options import fill
from mmcl.encoders.base import encoder_options
from mmcl.engine.config import DataOptions, EngineOptions, OptimiserOptions, StartOptions, TrainConfig
from mmcl.models.description import Operation
from mmcl.skeletons.augment import Augmentation
from mmcl.skeletons.preprocess import PreprocessOptions
from mmcl.tasks import TASKS
from mmcl.tasks.stages import ScheduleOptions

RECIPES = Path(__file__).resolve().parent.parent / "recipes"
_SECTIONS = {
    "data": DataOptions,
    "start": StartOptions,
    "preprocess": PreprocessOptions,
    "augmentation": Augmentation,
    "optimiser": OptimiserOptions,
    "schedule": ScheduleOptions,
    "engine": EngineOptions,
}
_DEFAULT_NAMES = {"encoder": "ctrgcn", "task": "supervised"}
_LOOKED_UP = {"encoder": "name", "task": "name", "start": "checkpoint"}  # section -> key that must be known beforehand
_ABOUT = """Train a skeleton encoder, alone or together with CLIP and a multimodal LLM.

  accelerate launch mmcl/train.py --config RECIPE [--key.sub=value ...]

RECIPE is a .yaml file or the name of one in mmcl/recipes/; several --config add up, later ones win.
The run folder (--out) then holds config.yaml, metrics.jsonl, tracker files, checkpoints/last and summary.json.
Ctrl-C or SIGTERM saves a checkpoint first; the same command with --resume=true goes on from it, step for step."""


def recipe_names() -> list[str]:
    """Recipes that come with mmcl."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def find_recipe(name: str) -> Path:
    """A recipe by path or by name.

    Raises:
        UserError: there is none.
    """
    for path in (Path(name), RECIPES / f"{name}.yaml"):
        if path.is_file():
            return path
    raise UserError(f"no recipe '{name}': give a .yaml file or one of {', '.join(recipe_names())}")


def _look_up(argv: Sequence[str]) -> dict[str, str]:
    """Which encoder, task and start the recipes and the command line ask for; by section, where they do.

    Read from left to right as the parser will: what comes later counts, be it a file or an option.
    """
    found: dict[str, str] = {}
    for number, argument in enumerate(argv):
        option, has_value, value = argument.partition("=")
        if not has_value:
            value = argv[number + 1] if number + 1 < len(argv) else ""
        if option == "--config":
            recipe = find_recipe(value)
            found |= _named_in(_keys_of(recipe), recipe.parent)
        for section, key in _LOOKED_UP.items():
            if option == f"--{section}.{key}":
                found[section] = value
            elif option == f"--{section}":
                found |= _named_in({section: _value(value)}, Path())
    return found


def _named_in(content: Mapping[str, Any], folder: Path) -> dict[str, str]:
    """What a recipe says of the three, in any of the forms that the parser takes."""
    found: dict[str, str] = {}
    for section, key in _LOOKED_UP.items():
        part = content.get(section)
        if isinstance(part, str):  # a file that holds the section; the parser complains where there is none
            file = next((path for path in (folder / part, Path(part)) if path.is_file()), None)
            part = None if file is None else _keys_of(file)
        flat = {**(part if isinstance(part, Mapping) else {}), f"{section}.{key}": content.get(f"{section}.{key}")}
        for name in (key, f"{section}.{key}"):
            if flat.get(name) is not None:
                found[section] = str(flat[name])
    return found


def _value(word: str) -> Any:
    """A word of the command line as YAML; the word itself where it is none."""
    import yaml

    try:
        return yaml.safe_load(word)
    except yaml.YAMLError:
        return word


def _keys_of(path: Path) -> Mapping[str, Any]:
    content = read_yaml(path)
    if not isinstance(content, Mapping):
        raise UserError(f"{path}: a recipe holds keys and values")
    return content


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
    for section, options in _SECTIONS.items():
        parser.add_class_arguments(options, section)
    parser.add_argument("--encoder.name", type=str, default=names["encoder"], help="which skeleton encoder")
    parser.add_class_arguments(encoder_options(names["encoder"]), "encoder", skip={"channels"})
    parser.add_argument("--task.name", type=str, default=names["task"], help="what is trained: " + ", ".join(TASKS))
    parser.add_class_arguments(TASKS[names["task"]].options, "task")
    return parser


def parse(argv: Sequence[str], complete: bool = False) -> TrainConfig:
    """Read, check and type a run's configuration.

    Args:
        argv: the command line.
        complete: it lacks nothing, being a run's own ``config.yaml``: nothing is taken from a ``start.checkpoint``.

    Raises:
        UserError: an unknown key, a value of the wrong type, a missing recipe; naming it.
    """
    import jsonargparse

    found, defaults = _look_up(argv), {}
    if found.get("start") and not complete:
        from mmcl.engine.start import source_defaults

        defaults = source_defaults(Path(found["start"]))
        if found.get("encoder", defaults["encoder.name"]) != defaults["encoder.name"]:  # then its options are not, too
            defaults = {k: value for k, value in defaults.items() if not k.startswith("encoder.") and k != "surgeries"}
    names = {**_DEFAULT_NAMES, "encoder": defaults.get("encoder.name", _DEFAULT_NAMES["encoder"])}
    names |= {section: name for section, name in found.items() if section in names}
    parser = build_parser(names)
    parser.set_defaults(defaults)
    try:
        config = parser.parse_args(_with_paths(argv))
    except jsonargparse.ArgumentError as error:
        message = " ".join(str(error).split())
        raise UserError(f"{message}; `mmcl train --help` lists every key") from error
    for section, key in _LOOKED_UP.items():  # a form of saying so that was not foreseen trains nothing else instead
        used, said = names.get(section, found.get(section, "")), config[section][key]
        if used != said:
            raise UserError(f"{section}.{key} is given in a form that is not understood: say --{section}.{key}={said}")
    text = parser.dump(config)
    for section in names:
        del config[section]["name"]
    sections = parser.instantiate(config)
    parsed = TrainConfig(
        out=sections.out, seed=sections.seed, resume=sections.resume,
        surgeries=tuple(fill(f"surgeries.{k}", one, Operation) for k, one in enumerate(sections.surgeries)),
        **{section: sections[section] for section in _SECTIONS},
        encoder_name=names["encoder"], encoder=sections.encoder,
        task_name=names["task"], task=sections.task, text=text,
    )  # fmt: skip
    parsed.validate()
    groups = TASKS[parsed.task_name].own_rates
    if unknown := sorted(set(parsed.optimiser.rates) - set(groups)):
        known = f"those of {parsed.task_name} are {', '.join(groups)}" if groups else "this task has none"
        raise UserError(
            f"optimiser.rates names {', '.join(unknown)}, which is no parameter group with a rate of its own: {known}"
        )
    return parsed


def _with_paths(argv: Sequence[str]) -> list[str]:
    """The command line with recipe names replaced by their files."""
    result, next_is_recipe = [], False
    for argument in argv:
        if next_is_recipe:
            argument = str(find_recipe(argument))
        elif argument.startswith("--config="):
            argument = f"--config={find_recipe(argument.partition('=')[2])}"
        next_is_recipe = argument == "--config"
        result.append(argument)
    return result
