"""Protocols: named rules that say which clips train and which test. Data, in ``data/splits/*.yaml``.

A rule names one or more clip attributes (subject, camera, setup, trial, label from 0, id, split) and the values that
belong to a side, or says that one half of the clips or people, drawn at random, trains (``halves``, then ``/0``, ``/1``
… after the name choose the draw). A validation split is always taken from the *training* side, so that a model can be
selected without seeing a test clip.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mmcl.data.store import ClipStore
from mmcl.errors import UserError

BUILTIN = Path(__file__).parent / "splits"
ANY = "any"  # a rule for clips of every data set
ATTRIBUTES = ("subject", "camera", "setup", "trial", "label", "id", "split")
HALVES = ("clips", "subjects")
Rule = Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class Protocol:
    """A train/test rule.

    Attributes:
        name: ``dataset/rule`` ("utd_mhad/cross_subject").
        dataset: name of the data set it belongs to; "any" for rules about split lists that clips bring along.
        train: attribute -> values of the training clips; several attributes must all match.
        test: the same for test clips.
        validation: the same for what is held out of the training side, unless a recipe says otherwise and as far as
            there are such clips.
        halves: "clips" (half of each class's clips train) or "subjects" (half of the people); "" for a fixed rule.
        draws: how many random halves the published protocol averages over.
        draw: which of them this is.
        source: where the rule comes from.
    """

    name: str
    dataset: str
    train: Rule = field(default_factory=dict)
    test: Rule = field(default_factory=dict)
    validation: Rule = field(default_factory=dict)
    halves: str = ""
    draws: int = 1
    draw: int = 0
    source: str = ""


def _builtin() -> dict[str, Protocol]:
    import yaml

    found = {}
    for path in sorted(BUILTIN.glob("*.yaml")):
        for name, facts in yaml.safe_load(path.read_text(encoding="utf-8")).items():
            found[name] = _parse(name, facts, str(path))
    return found


def _parse(name: str, facts: Any, where: str) -> Protocol:
    try:
        protocol = Protocol(name=name, **facts)
        if not protocol.halves and not (protocol.train and protocol.test):
            raise KeyError("a side is missing")
        attributes = {*protocol.train, *protocol.test, *protocol.validation}
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{where}: protocol '{name}' needs dataset, train and test ({error})") from error
    if unknown := attributes - set(ATTRIBUTES):
        raise UserError(f"{where}: protocol '{name}' splits by {sorted(unknown)}; clips have {', '.join(ATTRIBUTES)}")
    if protocol.halves not in ("", *HALVES):
        raise UserError(
            f"{where}: protocol '{name}' halves {protocol.halves!r:.40}; it can halve {' or '.join(HALVES)}"
        )
    return protocol


def protocol_names(store: ClipStore | None = None) -> list[str]:
    """Names of the protocols that come with mmcl; of those that fit a store, where one is given.

    Random halves are named by their first draw, lists that the clips bring along as ``own/…``.
    """
    found = [protocol for protocol in _builtin().values() if protocol.dataset != ANY]
    if store is not None:
        found = [protocol for protocol in found if protocol.dataset == store.dataset]
    names = [f"{protocol.name}/0" if protocol.halves else protocol.name for protocol in found]
    lists = {name for clip in store.splits for name in clip} if store is not None else set()
    if {"train", "test"} <= lists:
        names.append("own/split")
    stems = {name.removesuffix("_train") for name in lists if name.endswith("_train")}
    names += [f"own/{stem}" for stem in stems if {f"{stem}_val", f"{stem}_test"} & lists]
    return sorted(names)


def load_protocol(name: str) -> Protocol:
    """A protocol by name, or ``file.yaml`` / ``file.yaml:name`` for a user's own.

    ``own/split`` goes by the clips' lists train, val and test; ``own/X`` by X_train, and X_val or X_test (which is what
    PYSKL's files call their test lists). ``sysu/setting-1/7`` is the eighth random half.

    Raises:
        UserError: no such protocol, or the file is none.
    """
    builtin = _builtin()
    stem, _, last = name.rpartition("/")
    if name.endswith((".yaml", ".yml")) or ".yaml:" in name or ".yml:" in name:
        return _from_file(name)
    if name in builtin and not builtin[name].halves:
        return builtin[name]
    if stem == "own" and last:
        return Protocol(
            name=name, dataset=ANY, train={"split": [f"{last}_train"]}, test={"split": [f"{last}_val", f"{last}_test"]}
        )
    if (halving := builtin.get(stem)) is not None and halving.halves and last.isdecimal() and int(last) < halving.draws:
        return replace(halving, name=name, draw=int(last))
    if name in builtin:
        raise UserError(
            f"protocol '{name}' is {builtin[name].draws} random halves: choose one, '{name}/0' for instance"
        )
    raise UserError(
        f"no protocol '{name}': choose one of {', '.join(protocol_names())}, own/split (lists train, val, test that "
        "the clips bring along), own/X (lists X_train, X_val), or give a .yaml file"
    )


def _from_file(name: str) -> Protocol:
    import yaml

    file, _, wanted = name.partition(":")
    if not Path(file).is_file():
        raise UserError(f"{file}: no such protocol file")
    try:
        own = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: not a YAML file: {error}") from error
    if not isinstance(own, dict) or not own or (wanted and wanted not in own):
        raise UserError(f"{file}: expected `dataset/rule:` with dataset, train and test below it, found {own!r:.80}")
    chosen = wanted or next(iter(own))
    return _parse(chosen, own[chosen], file)
