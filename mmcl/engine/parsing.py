"""YAML recipe + command line -> :class:`TrainConfig`, through jsonargparse.

``--config`` may be given several times; later files and options win. The options of the chosen encoder and task are
known only once their names are: they are looked up first, and :mod:`mmcl.engine.train_parser` has the parser for them.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmcl.common.errors import UserError
from mmcl.common.options import fill, typed
from mmcl.encoders.building import encoder_options
from mmcl.engine.config import Derived, TrainConfig
from mmcl.engine.older import modernised
from mmcl.engine.recipes import LOOKED_UP, Recipe, keys_of, read_command_line
from mmcl.engine.train_parser import DEFAULT_NAMES, SECTIONS, parser_of
from mmcl.models.description_file import Operation
from mmcl.tasks import TASKS

_PLAIN = {"out": str, "seed": int, "resume": bool, "derive": bool, "stars": bool, "surgeries": list[Operation]}

# What a checkpoint that a run starts from says of encoder, preprocessing and layout: dotted keys of a configuration.
Defaults = Callable[[Path], Mapping[str, Any]]
# What the clips of a configuration say of keys that nobody gives a value: dotted keys.
Measure = Callable[[TrainConfig], Mapping[str, Derived]]


def parse(argv: Sequence[str], defaults_of: Defaults | None = None, measure: Measure | None = None) -> TrainConfig:
    """Read, check and type a run's configuration.

    Args:
        argv: the command line.
        defaults_of: what is asked for keys that the command line leaves open where it names a ``start.checkpoint``;
            :func:`mmcl.engine.configuring.configure` gives it.
        measure: what the clips say of keys that are still open, asked where ``derive`` is true; from there, too.

    Raises:
        UserError: an unknown key, a value of the wrong type, a missing recipe; naming it.
    """
    asked, defaults = read_command_line(argv, (*SECTIONS, *DEFAULT_NAMES)), dict[str, Any]()
    if asked.named.get("start") and defaults_of is not None:
        defaults = dict(defaults_of(Path(asked.named["start"])))
        own = defaults["encoder.name"]
        if asked.named.get("encoder", own) != own:  # then its options are not, too
            defaults = {k: value for k, value in defaults.items() if not k.startswith("encoder.") and k != "surgeries"}
    names = {**DEFAULT_NAMES, "encoder": defaults.get("encoder.name", DEFAULT_NAMES["encoder"])}
    names |= {section: name for section, name in asked.named.items() if section in names}
    words, notes = asked.words(names)
    config = _typed(parser_of(names, defaults), words, names, asked.named, tuple(notes))
    if measure is None or not config.derive:
        return config
    found = {key: one for key, one in measure(config).items() if key not in defaults and _holds(config, key)}
    parser = parser_of(names, defaults | {key: one.value for key, one in found.items()})
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
    recipe.check((*SECTIONS, *DEFAULT_NAMES))
    found = recipe.names()
    names = {section: found.get(section, default) for section, default in DEFAULT_NAMES.items()}
    return _typed(parser_of(names), ["--config", recipe.text()], names, found, ())


def _meant(message: str, parser: Any) -> str:
    """The key that a message's unknown one looks like, in brackets; nothing where none does."""
    keys = [action.dest for action in parser._actions]
    for word in re.findall(r"\w+\.[\w.]*\w", message):
        if word not in keys and (near := difflib.get_close_matches(word, keys, 1, 0.85)):
            return f" (did you mean {near[0]}?)"
    return ""


def _help_of(names: Mapping[str, str]) -> str:
    """What lists the keys of the chosen encoder and task: plain help is about CTR-GCN under supervision."""
    others = [f"--{section}.name={name} " for section, name in names.items() if name != DEFAULT_NAMES[section]]
    return f"`mmcl train {''.join(others)}--help` lists every key that {' under '.join(names.values())} has"


def _typed(
    parser: Any, words: Sequence[str], names: Mapping[str, str], found: Mapping[str, str], notes: tuple[str, ...]
) -> TrainConfig:  # fmt: skip
    """The configuration by a parser that knows the options of the encoder and task called so."""
    import jsonargparse

    try:
        config = parser.parse_args(words)
    except (jsonargparse.ArgumentError, OverflowError, ValueError, TypeError, AttributeError, OSError) as error:
        message = " ".join(str(error).split())  # the other kinds: of words such as --encoder={3: x}, or 400 digits
        raise UserError(f"{message}{_meant(message, parser)}; {_help_of(names)}") from error
    parts = _parts(config.clone(with_meta=False).as_dict(), names)
    for section, key in LOOKED_UP.items():  # a form of saying so that was not foreseen trains nothing else instead
        used, said = names.get(section, found.get(section, "")), config[section][key]
        if used != said and not isinstance(said, str):
            raise UserError(f"{section}.{key} must be a name, not {said!r:.40}")
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
    kinds = {**SECTIONS, "encoder": encoder_options(names["encoder"]), "task": TASKS[names["task"]].options}
    for section, kind in kinds.items():
        own = found[section]
        if section in names and isinstance(own, Mapping):
            own = {key: value for key, value in own.items() if key != "name"}
        parts[section] = fill(section, own, kind)
    return {**parts, "surgeries": tuple(parts["surgeries"])}
