"""How much of what a model knows survives small changes: attacks from model to model, with intervals."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mmcl.attacks.base import Attack
from mmcl.attacks.measures import MEASURES, measures
from mmcl.common.errors import UserError
from mmcl.data.selection import Selection
from mmcl.data.store import ClipStore
from mmcl.evaluation.attack_models import (
    NO_GRADIENTS,
    Participant,
    frame_shape,
    judge_clean,
    models_by_name,
    padded,
    wanted_classes,
    wanted_of,
)
from mmcl.evaluation.attack_tables import ARROW, SMOOTHED, Cell, cell_of, summaries
from mmcl.evaluation.base import Apply, Evaluation, Verdict
from mmcl.evaluation.reporting.attack_page import attack_blocks
from mmcl.evaluation.robustness_options import RobustnessOptions, attack_options
from mmcl.models.model import Model
from mmcl.models.record import tensors_digest


class Outcome(NamedTuple):
    """One attack on n clips; with a first axis of seeds and draws where it is of all of them.

    Attributes:
        success: target -> (n,) 1 or 0, and NaN where a clip does not count.
        still: (n,) bool, whether the attacked model itself answers with the true class still.
        looks: (4,) means of :func:`mmcl.attacks.measures.measures`.
        changed: the changed clips, where they are kept.
    """

    success: dict[str, np.ndarray]
    still: np.ndarray
    looks: np.ndarray
    changed: np.ndarray | None


class Robustness(Evaluation):
    """Success of attacks on models of one's own, from every surrogate to every target."""

    options_type = RobustnessOptions
    tiny: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {"attacks": ["ifgsm"], "options": {"ifgsm": {"steps": 2}}, "epsilons": [0.02]}
    )

    def run(self, model: Model, data: Selection, apply: Apply) -> Verdict:
        """``robust_accuracy`` under the first attack, and ``success`` of each attack from model to model.

        The former is of the first draw on the first seed, clip by clip; ``robust_accuracy_mean`` is of all of them.
        Both count clips whose answer is the true class still, whatever was asked for (``targeted``).

        Raises:
            UserError: a model that has other classes, no gradients, or answers none of the clips right.
        """
        options = self.options
        if not isinstance(model, Model):
            raise UserError(NO_GRADIENTS)
        clips = self._chosen(data)
        groups = {name: [judge_clean(one, data, clips, apply) for one in members]
                  for name, members in models_by_name(self.options, model, data).items()}  # fmt: skip
        own = next(iter(groups))
        sources = [name for name in groups if options.every_pair or name.partition(SMOOTHED)[0] == own]
        cells: list[Cell] = []
        arrays: dict[str, np.ndarray] = {}
        main: np.ndarray | None = None  # of the first attack and budget on the model itself, which come first
        for name in sources:
            for attack, epsilon, found in self._attacked(name, groups, data, clips, apply):
                main = found.still if main is None else main
                looks = dict(zip(MEASURES, found.looks.tolist(), strict=True))
                cells += [cell_of(attack, epsilon, name, *each, looks) for each in found.success.items()]
                key = f"{attack} {epsilon:g}"
                arrays |= {f"{key} {name}{ARROW}{target}": values for target, values in found.success.items()}
                if options.save and name == own and found.changed is not None:
                    arrays[f"clips {key}"] = found.changed
        assert main is not None
        return self._verdict(cells, arrays, main, groups[own], data.ids(clips), len(groups))

    def _chosen(self, data: Selection) -> np.ndarray:
        """(n,) positions of the clips, the same for all models."""
        order = np.random.default_rng(self.options.seed).permutation(data.clips)
        return np.sort(order[: self.options.clips])

    def _attacked(
        self, name: str, groups: Mapping[str, list[Participant]], data: Selection, clips: np.ndarray, apply: Apply
    ) -> Iterator[tuple[str, float, Outcome]]:
        """What all attacks and budgets on one group do to every group, over all runs; clips are those of the first."""
        options, members = self.options, groups[name]
        runs = max(map(len, groups.values()))
        for attack_name in options.tried:
            pairs = [(members[run % len(members)], {key: group[run % len(group)] for key, group in groups.items()})
                     for run in range(runs)]  # fmt: skip
            ready: dict[int, tuple[Attack, Model]] = {}
            for epsilon in options.epsilons:
                print(f"… {attack_name} at {epsilon:g} on {name}", file=sys.stderr, flush=True)
                every: list[Outcome] = []
                for source, targets in pairs:
                    if id(source) not in ready:
                        attack = options.attack(attack_name)
                        learned = None if data.split is None else replace(data, side="train")
                        ready[id(source)] = attack, attack.prepare(source.model, learned)
                    attack, surrogate = ready[id(source)]
                    for draw in options.draws:
                        attack.options = replace(attack.options, epsilon=epsilon, seed=draw)
                        found = self._one(attack, surrogate, source, targets, clips, data.store, apply)
                        every.append(found._replace(changed=None) if every else found)
                success = {key: np.stack([one.success[key] for one in every]) for key in groups}
                still, looks = np.stack([one.still for one in every]), np.mean([one.looks for one in every], axis=0)
                yield attack_name, epsilon, Outcome(success, still, looks, every[0].changed)

    def _one(
        self, attack: Attack, surrogate: Model, source: Participant, targets: Mapping[str, Participant],
        clips: np.ndarray, store: ClipStore, apply: Apply,
    ) -> Outcome:  # fmt: skip
        """One attack on the clips that the surrogate answers right; NaN for the others, and where a target errs.

        No clip counts for a target that the attack itself looks at, as an ensemble does.
        """
        wanted = wanted_classes(source.model, self.options.seed)
        shape = frame_shape(store, clips) if self.options.save else None

        def attacked(joints: Tensor, lengths: Tensor) -> Tensor:
            labels = source.model(joints, lengths).argmax(dim=1)  # those of the clips that it answers right
            asked = wanted.to(labels.device)[labels] if attack.options.targeted else labels
            found = attack.run(surrogate, joints, asked)
            answers = [one.model(found, lengths).argmax(dim=1, keepdim=True) for one in targets.values()]
            looks = measures(found, joints, source.model.layout.parents)
            row = torch.cat([*answers, looks], dim=1)
            return row if shape is None else torch.cat([row, padded(found, shape)], dim=1)

        chosen = np.flatnonzero(source.right)
        rows = apply(attacked, clips[chosen])
        success, still = {}, np.zeros(len(clips), dtype=bool)
        known = {tensors_digest(one.encoder.state_dict()) for one in attack.beside}
        for column, (key, target) in enumerate(targets.items()):
            values = np.full(len(clips), np.nan)
            asked = target.labels if not attack.options.targeted else wanted_of(source, target, self.options.seed)
            hit = rows[:, column] == asked[chosen]
            values[chosen] = hit if attack.options.targeted else ~hit
            if target is source:
                still[chosen] = rows[:, column] == source.labels[chosen]
            elif known and tensors_digest(target.model.encoder.state_dict()) in known:
                values[:] = np.nan
            success[key] = np.where(target.right, values, np.nan)
        first = len(targets) + len(MEASURES)
        changed = None if shape is None else rows[:, first:].reshape(len(rows), *shape)
        return Outcome(success, still, rows[:, len(targets) : first].mean(axis=0), changed)

    def _verdict(
        self, cells: list[Cell], arrays: dict[str, np.ndarray], main_still: np.ndarray, seeds: list[Participant],
        ids: list[str], models: int,
    ) -> Verdict:  # fmt: skip
        options, own, draws = self.options, seeds[0], len(self.options.draws)
        every_still = main_still[: len(seeds) * draws]  # more runs than seeds are the same models once more
        still = every_still[0]
        kept = {key: values for key, values in arrays.items() if not key.startswith("clips ")}
        every = summaries(kept, options.tried, options.epsilons)
        main = every[0]
        metrics: dict[str, Any] = {
            "robust_accuracy": float(still.mean()), "robust_accuracy_mean": float(every_still.mean()),
            "clean_accuracy": float(own.right.mean()), "n": len(ids),
            "attacked": int(own.right.sum()), "success_on_itself": main.itself["rate"],
            "success_on_others": None if main.others is None else main.others["rate"],
        }  # fmt: skip
        words = "targeted" if options.targeted else "untargeted"
        several = "; robust_accuracy is of the first draw on the first seed alone, robust_accuracy_mean of all"
        several = several if len(every_still) > 1 else ""
        facts = {"kind": f"{words} attacks, budget in {options.unit}, {models} models; the main attack is "
                 f"{main.attack} at {main.epsilon:g}{several}", "attack_options": attack_options(options),
                 "attacks": [one.row for one in every], "cells": [asdict(cell) for cell in cells]}  # fmt: skip
        arrays = {**arrays, "labels": own.labels, "right": own.right}
        return Verdict(metrics, "robust_accuracy", ids, still, arrays, facts)

    def draw(self, verdict: Verdict, folder: Path, store: ClipStore | None) -> list[str]:
        """Heat maps from surrogate to target, and success by budget."""
        return attack_blocks(verdict, folder)
