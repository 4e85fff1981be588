"""Transfer by label map: a classifier judged on another data set's clips of the actions that both share.

This is what MMCL (ACM MM 2024) calls zero-shot: no fine-tuning, argmax over *all* source classes, correct where the
answer is the class that the map pairs with the clip's own. It is not recognition of unseen classes.

A map is a YAML file of two columns, target class and source class. Several target classes may share a source class. A
target class has one right answer and no more: where two source classes would do, whoever writes the map decides
beforehand, or leaves the class out, and no number depends on what a model happened to answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mmcl.common.documents import read_yaml
from mmcl.common.errors import UserError
from mmcl.common.files import is_file
from mmcl.data.selection import Selection
from mmcl.data.store import ClipStore
from mmcl.evaluation.base import Apply, Evaluation, Verdict
from mmcl.evaluation.top1 import scored
from mmcl.models.learned import unlearned
from mmcl.models.model import Model

BUILTIN = Path(__file__).parent / "maps"


@dataclass(frozen=True)
class TransferMap:
    """A label map between two data sets.

    Attributes:
        name: protocol name ("mmcl/utd_mhad").
        source: data set the classifier was trained on.
        target: data set it is judged on.
        pairs: target class (name or label) -> source class (name or label).
        clips: how many clips of the complete target set take part, if known.
        classes: how many classes the source data set has, if known.
        reference: where the map comes from.
    """

    name: str
    source: str
    target: str
    pairs: Mapping[str | int, str | int]
    clips: int | None = None
    classes: int | None = None
    reference: str = ""


@dataclass(frozen=True)
class TransferOptions:
    """Options of :class:`Transfer`.

    Attributes:
        map: label map, by protocol name or as a .yaml file.
    """

    map: str = "mmcl/utd_mhad"


class Transfer(Evaluation):
    """Transfer by label map; of a store that the model has learned from, only clips that it has not."""

    options_type: ClassVar[type] = TransferOptions
    judges = "store"

    def run(self, model: Model, data: Selection, apply: Apply) -> Verdict:
        """Accuracy over all source classes; ``data`` is a whole store.

        Raises:
            UserError: the model was trained on another data set than the map's source, or no clip takes part.
        """
        rule, store, names = load_map(self.options.map), data.store, model.class_names
        done = model.description.provenance
        if done.get("dataset") not in (None, rule.source):
            raise UserError(
                f"protocol '{rule.name}' judges models of '{rule.source}'; {model.path} was trained on "
                f"'{done['dataset']}'"
            )
        clips, labels = mapped_clips(rule, store, names)
        kept, side = unlearned(clips, store, model.record)
        clips, labels, note = clips[kept], labels[kept], None
        if rule.clips is not None and len(clips) != rule.clips and side == "all":
            note = f"{len(clips)} clips take part, the complete data set has {rule.clips}"
        trained_on = done.get("dataset") or "unknown (the checkpoint does not say)"
        facts = {**transfer_facts(rule, len(names)), "trained_on": trained_on, "clips": side, "note": note}
        return scored(apply(model, clips), labels, data.ids(clips), names, facts)


def _parse(path: Path) -> TransferMap:
    facts: Any = read_yaml(path)
    try:
        rule = TransferMap(
            name=str(facts.get("protocol", path.stem)), source=str(facts["source"]), target=str(facts["target"]),
            pairs=dict(facts["pairs"]), clips=facts.get("clips"), classes=facts.get("classes"),
            reference=str(facts.get("reference", "")),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path}: a label map needs source, target and pairs ({error})") from error
    for own, foreign in rule.pairs.items():
        if any(isinstance(entry, bool) or not isinstance(entry, (str, int)) for entry in (own, foreign)):
            raise UserError(
                f"{path}: pair '{own}: {foreign}' is not two names or labels: a target class has one right answer, and "
                "words like yes and no want quotes"
            )
    return rule


def transfer_maps() -> dict[str, TransferMap]:
    """The maps that come with mmcl, by protocol name."""
    return {found.name: found for found in map(_parse, sorted(BUILTIN.glob("*.yaml")))}


def load_map(name: str) -> TransferMap:
    """A map by protocol name, or a user's own .yaml file.

    Raises:
        UserError: no such map, or the file is none.
    """
    known = transfer_maps()
    if name in known:
        return known[name]
    if name.endswith((".yaml", ".yml")):
        if not is_file(name):
            raise UserError(f"{name}: no such file")
        return _parse(Path(name))
    raise UserError(f"no zero-shot protocol '{name}': choose one of {', '.join(known)}, or give a .yaml file")


def _label(entry: str | int, names: list[str], what: str) -> int:
    if isinstance(entry, int) and 0 <= entry < len(names):
        return entry
    if isinstance(entry, str) and entry in names:
        return names.index(entry)
    raise UserError(f"the label map names {what} class '{entry}', which is not among its {len(names)} classes")


def mapped_clips(rule: TransferMap, store: ClipStore, source_names: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Which clips take part, and what the classifier should answer.

    Args:
        rule: the map.
        store: clips of the target data set.
        source_names: K classes of the classifier.

    Returns:
        clips (n,) positions in the store, labels (n,) in source classes.

    Raises:
        UserError: the store is another data set's, a class is unknown, or no clip takes part.
    """
    if store.dataset != rule.target:
        raise UserError(
            f"protocol '{rule.name}' judges '{rule.target}' clips, but {store.location} holds '{store.dataset}'"
        )
    if rule.classes is not None and len(source_names) != rule.classes:
        raise UserError(
            f"protocol '{rule.name}' judges classifiers of {rule.source} ({rule.classes} classes), "
            f"this one has {len(source_names)}"
        )
    answer: dict[int, int] = {}
    for own, foreign in rule.pairs.items():
        label = _label(own, store.class_names, rule.target)
        if label in answer:
            raise UserError(f"protocol '{rule.name}' names {rule.target} class '{store.class_names[label]}' twice")
        answer[label] = _label(foreign, source_names, "source")
    clips = np.flatnonzero(np.isin(store.labels, list(answer)))
    if not len(clips):
        raise UserError(f"protocol '{rule.name}' finds no clip in {store.location}")
    return clips, np.array([answer[int(label)] for label in store.labels[clips]])


def transfer_facts(rule: TransferMap, classes: int) -> dict[str, Any]:
    """What must be printed with the number: the rule of a classifier of so many classes, in words."""
    own = len(rule.pairs)
    return {
        "protocol": rule.name,
        "kind": (
            f"transfer by label map: trained on {rule.source}, judged on {own} class{'' if own == 1 else 'es'} of "
            f"{rule.target}, argmax over all {classes} source classes, no fine-tuning"
        ),
        "reference": rule.reference,
        "pairs": {str(target): str(source) for target, source in rule.pairs.items()},
    }
