"""What a study must hold to be run: names, seeds, keys, judges and draws that fit together."""

from __future__ import annotations

import json
import re
from typing import Any

from mmcl.common.errors import UserError
from mmcl.evaluation.base import build_evaluation
from mmcl.studies.grid import Study
from mmcl.studies.words import DRAW, PROTOCOL, in_words

PLACES = ("data", "protocol", "split")  # options of `mmcl evaluate` that choose clips
SPLITS = ("test", "validation", "train")
MOST_RUNS = 100_000
OWN_FILES = ("study.md", "study.csv", "study.json", "study.png", "matrix.png")
LONGEST = 200  # bytes of an arm's name: folders and logs are named after it
_SHORT_KEYS = ("stars", "derive")  # of a recipe, in no section
_OWN_KEYS = ("out", "resume", "config", "seed")  # of every run, the study's own business


def check_study(study: Study, where: str) -> None:
    """Whether a study can be run.

    Raises:
        UserError: naming where, the key, and what it should be.
    """
    names = [*study.arms]
    if not names or not all(isinstance(arm, str) and re.fullmatch(r"\w[\w.-]*", arm) for arm in names):
        raise UserError(
            f"{where}: arms need names of letters, digits, '_', '-' and '.', since they name folders; a name that is a "
            "number needs quotes around it"
        )
    if strange := [arm for arm in names if arm in OWN_FILES or len(arm.encode()) > LONGEST]:
        raise UserError(f"{where}: arm '{strange[0]:.60}' cannot name a folder here: it is the name of a file that the "
                        f"study writes, or longer than {LONGEST} bytes")  # fmt: skip
    seeds = study.seeds
    if not seeds or len({*seeds}) < len(seeds) or not 0 <= min(seeds) <= max(seeds) < 2**31:
        raise UserError(f"{where}: seeds is {seeds}: it must be different whole numbers from 0 to 2,147,483,647")
    for place, settings in {"set": study.set, **{f"arm '{arm}'": study.own(arm) for arm in study.arms}}.items():
        for key, value in settings.items():
            check_key(str(key), f"{where}, {place}")
            _check_value(key, value, f"{where}, {place}")
    if unknown := sorted({*study.judge_on} - {*PLACES}):
        raise UserError(f"{where}: judge_on has no '{unknown[0]}': it has {', '.join(PLACES)}")
    if (split := study.judge_on.get("split", SPLITS[0])) not in SPLITS:
        raise UserError(f"{where}: judge_on.split is {split!r}: it must be {', '.join(SPLITS)}")
    if wrong := [number for number in study.also if not re.fullmatch(r"\w+(\.[\w -]+)*", number)]:
        raise UserError(f"{where}: also holds {wrong[0]!r:.60}: it must be keys with points between them")
    if (runs := len(names) * len(seeds) * (study.draws or 1)) > MOST_RUNS:
        raise UserError(f"{where}: {runs:,} runs: a study may have {MOST_RUNS:,}")
    _check_judges(study, where)
    if PROTOCOL in study.protocol or any(PROTOCOL in in_words(value) for value in study.set.values()):
        raise UserError(f"{where}, set: {PROTOCOL} stands for what data.protocol is here: only arms and judge_on may "
                        "have it")  # fmt: skip
    every = [study.set, *map(study.own, study.arms)]
    drawn = any(DRAW in in_words(value) for settings in every for value in settings.values())
    if drawn != (study.draws is not None) or not (study.draws is None or study.draws >= 1):
        raise UserError(f"{where}: `draws: N` and a value with {DRAW} in it (data.protocol: …/{DRAW}) go together")


def _check_value(key: str, value: Any, where: str) -> None:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: {key} is {value!r:.60}, which a recipe cannot hold: text needs quotes") from error


def _check_judges(study: Study, where: str) -> None:
    if isinstance(study.judge, list):
        if not study.judge or len({*study.judge}) < len(study.judge):
            raise UserError(f"{where}: judge is {study.judge}: it must name evaluations, none of them twice")
        if strange := sorted({*study.judge_options} - {*study.judge}):
            raise UserError(f"{where}: judge_options has '{strange[0]}': of several judges, it holds options by name")
    for name, options in study.judged_by.items():
        if not isinstance(options, dict):
            raise UserError(f"{where}: judge_options of {name} is {options!r:.60}: it must be keys and values")
        try:
            evaluation = build_evaluation(name, options)
        except UserError as error:
            raise UserError(f"{where}: judge: {error}") from error
        if evaluation.learns and study.judge_on.get("split") == "train":
            raise UserError(f"{where}: judge_on.split is train, from which {name} learns: judge test or validation")


def check_key(key: str, where: str) -> None:
    """Whether a key of a recipe may tell arms apart, or be set for all of them.

    Raises:
        UserError: it is the study's own, or no key of a recipe.
    """
    if key in _OWN_KEYS:
        raise UserError(f"{where}: '{key}' is the study's own business; arms are told apart by other keys")
    if "." not in key and key not in _SHORT_KEYS:
        raise UserError(f"{where}: '{key}' is no key of a recipe: write section.key, such as encoder.width")
