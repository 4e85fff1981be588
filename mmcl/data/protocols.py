"""Protocols: named rules that say which clips train and which test. Data, in ``data/splits/*.yaml``.

A rule names one or more clip attributes (subject, camera, setup, trial, id) and the values that belong to a side. A
validation split is always taken from the *training* side, by attribute too, so that a model can be selected without
seeing a test clip.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmcl.data.store import ClipStore
from mmcl.errors import UserError

BUILTIN = Path(__file__).parent / "splits"
_ATTRIBUTES = ("subject", "camera", "setup", "trial", "id")


@dataclass(frozen=True)
class Protocol:
    """A train/test rule.

    Attributes:
        name: ``dataset/rule`` ("utd_mhad/cross_subject").
        dataset: name of the data set it belongs to.
        train: attribute -> values of the training clips; several attributes must all match.
        test: the same for test clips.
        source: where the rule comes from.
    """

    name: str
    dataset: str
    train: Mapping[str, Sequence[Any]]
    test: Mapping[str, Sequence[Any]]
    source: str = ""


@dataclass(frozen=True)
class Split:
    """Clip positions in a store, each an int64 array in ascending order."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def _builtin() -> dict[str, Protocol]:
    import yaml

    found = {}
    for path in sorted(BUILTIN.glob("*.yaml")):
        for name, facts in yaml.safe_load(path.read_text(encoding="utf-8")).items():
            found[name] = _parse(name, facts, str(path))
    return found


def _parse(name: str, facts: Any, where: str) -> Protocol:
    try:
        protocol = Protocol(name, facts["dataset"], facts["train"], facts["test"], facts.get("source", ""))
        attributes = {*protocol.train, *protocol.test}
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{where}: protocol '{name}' needs dataset, train and test ({error})") from error
    if unknown := attributes - set(_ATTRIBUTES):
        raise UserError(f"{where}: protocol '{name}' splits by {sorted(unknown)}; clips have {', '.join(_ATTRIBUTES)}")
    return protocol


def protocol_names() -> list[str]:
    """Names of the protocols that come with mmcl."""
    return sorted(_builtin())


def load_protocol(name: str) -> Protocol:
    """A protocol by name, or ``file.yaml`` / ``file.yaml:name`` for a user's own.

    Raises:
        UserError: no such protocol, or the file is none.
    """
    import yaml

    builtin = _builtin()
    if name in builtin:
        return builtin[name]
    file, _, wanted = name.partition(":")
    if not file.endswith((".yaml", ".yml")) or not Path(file).is_file():
        raise UserError(f"no protocol '{name}': choose one of {', '.join(builtin)}, or give a .yaml file")
    try:
        own = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UserError(f"{file}: not a YAML file: {error}") from error
    if not isinstance(own, dict) or not own or (wanted and wanted not in own):
        raise UserError(f"{file}: expected `dataset/rule:` with dataset, train and test below it, found {own!r:.80}")
    chosen = wanted or next(iter(own))
    return _parse(chosen, own[chosen], file)


def split(store: ClipStore, protocol: Protocol, validation: Mapping[str, Sequence[Any]] | None = None) -> Split:
    """Apply a protocol to a store.

    Args:
        store: the clips.
        protocol: the rule.
        validation: attribute -> values held out of the training side; None or empty for no validation split.

    Raises:
        UserError: the protocol is another data set's, a side comes out empty, or both sides share a clip.
    """
    if protocol.dataset != store.dataset:
        raise UserError(
            f"protocol '{protocol.name}' is for '{protocol.dataset}', but {store.path} holds '{store.dataset}' clips"
        )
    train, test = _match(store, protocol.train), _match(store, protocol.test)
    if (train & test).any():
        raise UserError(f"protocol '{protocol.name}': {int((train & test).sum())} clips are in both train and test")
    held = train & _match(store, validation) if validation else np.zeros_like(train)
    train = train & ~held
    for side, mask in {"train": train, "test": test, **({"validation": held} if validation else {})}.items():
        if not mask.any():
            raise UserError(f"protocol '{protocol.name}' finds no {side} clip in {store.path} ({len(store)} clips)")
    return Split(np.flatnonzero(train), np.flatnonzero(held), np.flatnonzero(test))


def _match(store: ClipStore, rule: Mapping[str, Sequence[Any]]) -> np.ndarray:
    """(clips,) bool: every attribute of the rule has one of its values."""
    columns = {
        "subject": store.subjects,
        "camera": store.cameras,
        "setup": store.setups,
        "trial": store.trials,
        "id": np.asarray(store.ids),
    }
    mask = np.ones(len(store), dtype=bool)
    for attribute, values in rule.items():
        if attribute not in columns:
            raise UserError(f"clips have no attribute '{attribute}': choose one of {', '.join(columns)}")
        mask &= np.isin(columns[attribute], np.asarray(list(values)))
    return mask
