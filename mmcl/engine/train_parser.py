"""The jsonargparse parser of a run's options, for one choice of encoder and task."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from mmcl.encoders import ENCODERS
from mmcl.encoders.building import encoder_options
from mmcl.engine.config import DataOptions, EngineOptions, OptimiserOptions, StartOptions
from mmcl.skeletons.augmentations.combined import Augmentation
from mmcl.skeletons.preprocess_options import PreprocessOptions
from mmcl.tasks import TASKS
from mmcl.tasks.distil import DistilOptions
from mmcl.tasks.stages import ScheduleOptions

SECTIONS = {
    "data": DataOptions,
    "start": StartOptions,
    "preprocess": PreprocessOptions,
    "augmentation": Augmentation,
    "optimiser": OptimiserOptions,
    "schedule": ScheduleOptions,
    "distil": DistilOptions,
    "engine": EngineOptions,
}
DEFAULT_NAMES = {"encoder": "ctrgcn", "task": "supervised"}
_ABOUT = """Train a skeleton encoder, alone or together with CLIP and a multimodal LLM.

  mmcl train --config RECIPE [--section.key=value …]                         one process
  accelerate launch mmcl/train.py --config RECIPE [--section.key=value …]    on several GPUs, from a clone

RECIPE is a .yaml file or the name of one in mmcl/recipes/; several --config add up, later ones win. They go with any
encoder and any task: what a recipe says of another one is left out, with a note. This page lists the keys of the
encoder and the task that are chosen: `mmcl train --task.name=colearn --help` lists those of co-learning.
The run folder (--out) then holds config.yaml, metrics.jsonl, tracker files, checkpoints/last and summary.json.
Ctrl-C or SIGTERM saves a checkpoint first; the same command with --resume=true goes on from it, step for step."""


def parser_of(names: Mapping[str, str], defaults: Mapping[str, Any] | None = None) -> Any:
    """The parser for one choice of encoder and task, with other defaults for some keys.

    A parser without other defaults is built once for each choice, since a study reads hundreds of configurations.

    Args:
        names: ``encoder`` and ``task``.
        defaults: dotted keys.
    """
    if not defaults:
        return _shared(names["encoder"], names["task"], encoder_options(names["encoder"]), TASKS[names["task"]].options)
    parser = _build(names)
    parser.set_defaults(dict(defaults))
    return parser


@cache
def _shared(encoder: str, task: str, *_options: type) -> Any:
    """The parser that is kept. Options' classes are part of its key, since an entry may be registered anew."""
    return _build({"encoder": encoder, "task": task})


def _formatter() -> type[argparse.HelpFormatter]:
    """Help with defaults, in which what docstrings mark as code is plain."""
    import jsonargparse

    class Plain(jsonargparse.DefaultHelpFormatter, argparse.RawDescriptionHelpFormatter):
        def _expand_help(self, action: argparse.Action) -> str:
            return plain(super()._expand_help(action))

        def start_section(self, heading: str | None) -> None:
            super().start_section(heading if heading is None else plain(heading))

    return Plain


def plain(text: str) -> str:
    """A docstring's text without its marks: ``code`` and :class:`Name`."""
    return re.sub(r":\w+:`~?(?:[\w.]+\.)?(\w+)`", r"\1", text).replace("``", "")


def _build(names: Mapping[str, str]) -> Any:
    import jsonargparse

    parser = jsonargparse.ArgumentParser(
        prog="mmcl train", description=_ABOUT, exit_on_error=False, allow_abbrev=False,
        usage="mmcl train [--config RECIPE …] [--section.key=value …]", formatter_class=_formatter(),
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
    for section, options in SECTIONS.items():
        parser.add_class_arguments(options, section)
    parser.add_argument("--encoder.name", type=str, default=names["encoder"], help="which one: " + ", ".join(ENCODERS))
    parser.add_class_arguments(encoder_options(names["encoder"]), "encoder", skip={"channels"})
    parser.add_argument("--task.name", type=str, default=names["task"], help="what is trained: " + ", ".join(TASKS))
    parser.add_class_arguments(TASKS[names["task"]].options, "task")
    for action in parser._actions:  # what jsonargparse adds by itself: a recipe's own file does it
        if action.metavar == "CONFIG" and action.dest != "config" or action.dest == "print_config":
            action.help = argparse.SUPPRESS
    return parser
