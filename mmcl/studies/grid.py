"""What a study is: arms as data, and the runs that they and the seeds span."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from mmcl.common.errors import UserError
from mmcl.engine.recipes import Recipe, find_recipe, keys_of
from mmcl.studies.run import Judge, Run
from mmcl.studies.words import PROTOCOL, PROTOCOL_KEY, SEED, in_words, numbered

OLDER_JUDGES = {"evaluate": "top1", "zero-shot": "open_vocabulary"}  # as study files called them before


@dataclass(frozen=True)
class Study:
    """A study file.

    Attributes:
        name: stem of the file.
        recipe: recipes by name or path; later ones win.
        arms: name -> dotted key -> value; the first arm is the baseline. ``{seed}`` in a value becomes the run's seed,
            ``{protocol}`` the protocol that ``set`` or the recipe has.
        seeds: each arm is trained with each.
        draws: how many draws of a random protocol; None where no value holds ``{draw}``.
        set: dotted key -> value, for all arms.
        judge: evaluation that judges the runs, by its name in ``EVALUATIONS``; its main number stands in the table.
            ``evaluate`` and ``zero-shot`` are older words for ``top1`` and ``open_vocabulary``. Of several, the first
            does so, and all of them stand in the matrix.
        judge_options: options of the evaluation; of several, those of each below its name.
        judge_on: ``data``, ``protocol`` and ``split`` of `mmcl evaluate`, where other clips are judged than the run's
            own test side.
        also: more numbers of the first judge's ``report.json``, each by its keys with points between them, such as
            ``groups.few.accuracy``; each gets a table of its own.
    """

    name: str
    recipe: str | list[str]
    arms: dict[str, dict[str, Any] | None]
    seeds: list[int] = field(default_factory=lambda: [0])
    draws: int | None = None
    set: dict[str, Any] = field(default_factory=dict)
    judge: str | list[str] = "top1"
    judge_options: dict[str, Any] = field(default_factory=dict)
    judge_on: dict[str, str] = field(default_factory=dict)
    also: list[str] = field(default_factory=list)

    @property
    def judged_by(self) -> dict[str, dict[str, Any]]:
        """Evaluation -> its options; the first is the one that the table goes by."""
        if isinstance(self.judge, str):
            return {OLDER_JUDGES.get(self.judge, self.judge): self.judge_options}
        return {OLDER_JUDGES.get(name, name): self.judge_options.get(name) or {} for name in self.judge}

    @property
    def recipes(self) -> list[str]:
        """The recipe as a list."""
        return [self.recipe] if isinstance(self.recipe, str) else self.recipe

    def seeds_pair(self, arm: str) -> bool:
        """Whether an arm's run of a seed shares more with the baseline's than its number.

        It does where the seed draws the training clips of both, or where both have a value with ``{seed}`` in it, such
        as the checkpoint that the runs of a seed start from.
        """
        both = [{**self._recipe_data, **self.set, **self.own(name)} for name in (self.baseline, arm)]
        named = [any(SEED in in_words(value) for value in settings.values()) for settings in both]
        return all(map(_thinned, both)) or all(named)

    @cached_property
    def _recipe_data(self) -> dict[str, Any]:
        """What the recipes say of ``data``, by dotted key; nothing of a recipe that is not there any more."""
        found: dict[str, Any] = {}
        for name in self.recipes:
            try:
                path = find_recipe(name)
                section = Recipe(path, keys_of(path)).section("data")
            except UserError:
                continue
            found |= {f"data.{key}": value for key, value in section.items()}
        return found

    def own(self, arm: str) -> dict[str, Any]:
        """What tells an arm apart; nothing for an arm that is the recipe as it is."""
        return self.arms[arm] or {}

    @property
    def protocol(self) -> str:
        """What holds for every arm that has no protocol of its own; empty where ``set`` and recipes say none."""
        return in_words(self.set.get(PROTOCOL_KEY, self._recipe_data.get(PROTOCOL_KEY, "")))

    @property
    def baseline(self) -> str:
        """Name of the arm that the others are compared with."""
        return next(iter(self.arms))

    def facts(self) -> dict[str, Any]:
        """The content of the study file, with what the command line changed."""
        return asdict(self)

    def runs(self, out: Path) -> list[Run]:
        """Every run of the grid: seed by seed (and draw by draw), so that arms can be compared early."""
        draws = [None] if self.draws is None else list(range(self.draws))
        return [self._run(out, arm, seed, draw) for seed in self.seeds for draw in draws for arm in self.arms]

    def _run(self, out: Path, arm: str, seed: int, draw: int | None) -> Run:
        folder = out / arm / str(seed) / ("" if draw is None else str(draw))
        settings = {**self.set, **self.own(arm)}
        arguments = [word for name in self.recipes for word in ("--config", name)]
        arguments += [f"--{key}={self._filled(in_words(value), seed, draw)}" for key, value in settings.items()]
        arguments += [f"--seed={seed}", "--resume=true", f"--out={folder}"]
        first, *beside = (self._judge(name, seed, draw) for name in self.judged_by)
        return Run(arm, seed, draw, folder, tuple(arguments), first, tuple(beside))

    def _judge(self, name: str, seed: int, draw: int | None) -> Judge:
        options = {key: numbered(json.dumps(value), seed, draw) for key, value in self.judged_by[name].items()}
        clips = {key: self._filled(value, seed, draw) for key, value in self.judge_on.items()}
        return Judge(name, tuple(sorted(options.items())), tuple(sorted(clips.items())))

    def _filled(self, word: str, seed: int, draw: int | None) -> str:
        return numbered(word.replace(PROTOCOL, in_words(self.protocol)), seed, draw)


def _thinned(settings: Mapping[str, Any]) -> bool:
    """Whether the seed of a run draws its training clips."""
    return _number(settings.get("data.shots"), 0.0) > 0 or _number(settings.get("data.share"), 1.0) < 1


def _number(value: Any, usual: float) -> float:
    """A setting as a number; the usual one where it is none, which the parser of `mmcl train` complains of."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return usual
