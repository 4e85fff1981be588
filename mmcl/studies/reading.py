"""Study files, those that come with mmcl and one's own, and what the command line changes of them."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmcl.common.documents import read_yaml
from mmcl.common.errors import UserError
from mmcl.common.files import is_file
from mmcl.engine.recipes import RECIPES
from mmcl.studies.checks import check_key, check_study
from mmcl.studies.grid import Study
from mmcl.studies.words import PROTOCOL_KEY, builds_on_protocol

STUDIES = RECIPES / "studies"


def study_names() -> list[str]:
    """Studies that come with mmcl."""
    return sorted(path.stem for path in STUDIES.glob("*.yaml"))


def read_study(name: str) -> Study:
    """A study by path, or by the name of one that comes with mmcl.

    Raises:
        UserError: there is none, or the file is wrong; naming the key.
    """
    import jsonargparse

    path = next(filter(is_file, (Path(name), STUDIES / f"{name}.yaml")), None)
    if path is None:
        raise UserError(f"no study '{name}': give a .yaml file or one of {', '.join(study_names())}")
    content = read_yaml(path)
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Study, skip={"name"})
    try:
        if not isinstance(content, dict):
            raise TypeError("a study holds keys and values")
        parsed = parser.parse_object({key: value for key, value in content.items() if value is not None})
    except (jsonargparse.ArgumentError, TypeError) as error:
        raise UserError(f"{path}: {' '.join(str(error).split())}; `mmcl study --help` shows a study file") from error
    study = Study(path.stem, **vars(parsed))
    check_study(study, str(path))
    return study


def changed(
    study: Study, seeds: Sequence[int] | None, settings: Mapping[str, str], baseline: str | None = None,
    only: Sequence[str] = (),
) -> Study:  # fmt: skip
    """The study with other seeds, with settings for all arms, and with another arm in front.

    Args:
        study: as its file has it.
        seeds: None for those of the file.
        settings: dotted keys, for all arms.
        baseline: name of the arm in front; None for the file's.
        only: the arms that are to run; none for all. The others may set for themselves what ``settings`` have.

    Raises:
        UserError: a setting is one that tells arms apart, or one of a random protocol that does not fit ``draws``;
            there is no such arm.
    """
    first = baseline or study.baseline
    if first not in study.arms:
        raise UserError(f"--baseline {first}: the arms are {', '.join(study.arms)}")
    for key in settings:
        check_key(key, "the command line")
        if arms := [arm for arm in only or study.arms if arm in study.arms and _has_own(study.own(arm), key)]:
            raise UserError(f"--{key} on the command line is for all arms, but arm '{arms[0]}' sets it itself")
    other = replace(
        study, seeds=list(dict.fromkeys(seeds or study.seeds)), set={**study.set, **settings},
        arms={first: study.arms[first], **study.arms},
    )  # fmt: skip
    check_study(other, "with the command line")
    return other


def arms_named(study: Study, patterns: Sequence[str] | None) -> list[str] | None:
    """The arms that names or patterns such as ``*.supervised`` mean, in the order of the study; None for all.

    Raises:
        UserError: one of them fits no arm.
    """
    if patterns is None:
        return None
    if unknown := [pattern for pattern in patterns if not any(fnmatch.fnmatchcase(arm, pattern) for arm in study.arms)]:
        raise UserError(f"--only {' '.join(unknown)}: the arms are {', '.join(study.arms)}")
    return [arm for arm in study.arms if any(fnmatch.fnmatchcase(arm, pattern) for pattern in patterns)]


def _has_own(settings: Mapping[str, Any], key: str) -> bool:
    """Whether an arm says itself what a key is, so that no word for all arms can."""
    return key in settings and not (key == PROTOCOL_KEY and builds_on_protocol(settings))
