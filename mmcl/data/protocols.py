"""Protocols: named rules that say which clips train and which test. Data, in ``data/splits/*.yaml``.

A rule names one or more clip attributes (subject, camera, setup, trial, label from 0, id, split) and the values that
belong to a side, or says that one half of the clips or people, drawn at random, trains (``halves``, then ``/0``, ``/1``
… after the name choose the draw). A validation split is always taken from the *training* side, so that a model can be
selected without seeing a test clip.

An open-vocabulary protocol takes the sides of another one (``base``) and withholds classes from training: a published
list (``unseen``), or as many as ``unseen_count`` says, drawn at random. ``/gate`` after its name withholds a second set
of classes and stays on the training side: what the seen/unseen gate of generalised zero-shot is fitted on.
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
SIDES = ("train", "test")
ATTRIBUTES = ("subject", "camera", "setup", "trial", "label", "id", "split")
HALVES = ("clips", "subjects")
Rule = Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class Protocol:
    """A train/test rule.

    Attributes:
        name: ``dataset/rule`` ("utd_mhad/cross_subject").
        dataset: name of the data set it belongs to; "any" for the lists that clips bring along.
        train: attribute -> values of the training clips; several attributes must all match.
        test: the same for test clips.
        lists: stem of the clips' own lists that take the place of train and test; see :func:`by_lists`.
        halves: "clips" (half of each class's clips train) or "subjects" (half of the people); "" for a fixed rule.
        draws: how many random halves, or random sets of withheld classes, the protocol averages over.
        draw: which of them this is.
        base: protocol whose sides an open-vocabulary protocol takes; "" for every other protocol.
        unseen: labels of the withheld classes.
        unseen_count: how many classes to draw at random in their place.
        pseudo_unseen: labels withheld too in the ``/gate`` variant; as many as unseen, drawn at random, where empty.
        calibrate: training-side clips that the ``/gate`` variant keeps for judging.
        gate: whether this is the ``/gate`` variant.
        source: where the rule comes from.
    """

    name: str
    dataset: str
    train: Rule = field(default_factory=dict)
    test: Rule = field(default_factory=dict)
    lists: str = ""
    halves: str = ""
    draws: int = 1
    draw: int = 0
    base: str = ""
    unseen: Sequence[int] = ()
    unseen_count: int = 0
    pseudo_unseen: Sequence[int] = ()
    calibrate: Rule = field(default_factory=dict)
    gate: bool = False
    source: str = ""

    @property
    def drawn(self) -> bool:
        """Whether the rule is random, so that its name needs a draw."""
        return bool(self.halves or self.unseen_count)

    @property
    def open(self) -> bool:
        """Whether classes are withheld from training, to be recognised by their text."""
        return bool(self.unseen or self.unseen_count)


def builtin_protocols() -> dict[str, Protocol]:
    """The protocols that come with mmcl, by name; random ones without a draw."""
    import yaml

    found = {}
    for path in sorted(BUILTIN.glob("*.yaml")):
        for name, facts in yaml.safe_load(path.read_text(encoding="utf-8")).items():
            found[name] = _parse(name, facts, str(path))
    return {name: _on_base(protocol, found) for name, protocol in found.items()}


def _on_base(protocol: Protocol, known: Mapping[str, Protocol]) -> Protocol:
    """Give an open-vocabulary protocol the sides of its base."""
    if not protocol.base:
        return protocol
    base = known.get(protocol.base)
    if base is None or base.drawn or base.dataset != protocol.dataset:
        raise UserError(f"protocol '{protocol.name}': base '{protocol.base}' is no fixed protocol of its data set")
    return replace(protocol, train=base.train, test=base.test)


def _parse(name: str, facts: Any, where: str) -> Protocol:
    try:
        rules: dict[str, Any] = {
            key: _rule(value) if key in (*SIDES, "calibrate") else value for key, value in facts.items()
        }
        protocol = Protocol(name=name, **rules)
        if not (protocol.halves or protocol.base) and not (protocol.train and protocol.test):
            raise KeyError("a side is missing")
        if bool(protocol.base) != protocol.open:
            raise KeyError("base and unseen (or unseen_count) belong together")
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{where}: protocol '{name}' needs dataset, train and test ({error})") from error
    if unknown := {*protocol.train, *protocol.test, *protocol.calibrate} - set(ATTRIBUTES):
        raise UserError(f"{where}: protocol '{name}' splits by {sorted(unknown)}; clips have {', '.join(ATTRIBUTES)}")
    for withheld in (protocol.unseen, protocol.pseudo_unseen):
        if not isinstance(withheld, list | tuple) or any(type(k) is not int or k < 0 for k in withheld):
            raise UserError(f"{where}: protocol '{name}': unseen and pseudo_unseen are lists of labels, from 0 up")
    both = [*protocol.unseen, *protocol.pseudo_unseen]
    if len({*both}) < len(both) or type(protocol.unseen_count) is not int or protocol.unseen_count < 0:
        raise UserError(
            f"{where}: protocol '{name}': unseen and pseudo_unseen share no label and repeat none, and unseen_count is "
            "a whole number"
        )
    if protocol.halves not in ("", *HALVES) or not isinstance(protocol.draw, int):
        raise UserError(f"{where}: protocol '{name}': halves is {' or '.join(HALVES)}, and draw a whole number")
    return protocol


def _rule(value: Mapping[str, Any]) -> Rule:
    """One value may stand for a list of one."""
    rule = {key: values if isinstance(values, list) else [values] for key, values in value.items()}
    if any(not isinstance(entry, (int, str)) for values in rule.values() for entry in values):
        raise TypeError(f"values are numbers or words, found {value!r:.80}")
    return rule


def _list_names(stem: str) -> tuple[str, str, str]:
    """Names of the training, validation and test list of a stem."""
    if stem == "split" or stem.isdecimal():  # train, train1
        number = stem.removeprefix("split")
        return f"train{number}", f"val{number}", f"test{number}"
    return f"{stem}_train", f"{stem}_val", f"{stem}_test"


def by_lists(stem: str, lists: set[str]) -> tuple[Rule, Rule, Rule]:
    """Rules for training (validation clips among them), validation and test by the lists that there are.

    Where there is no test list, the list called val is what its authors test on, as in PYSKL's files.
    """
    train, held, test = _list_names(stem)
    if test not in lists:
        return {"split": [train]}, {}, {"split": [held]}
    return {"split": [train, held]}, ({"split": [held]} if held in lists else {}), {"split": [test]}


def protocol_names(store: ClipStore | None = None) -> list[str]:
    """Names of the protocols that come with mmcl; of those that fit a store, where one is given.

    Random rules are named by their first draw, lists that the clips bring along as ``own/…``.
    """
    found = [entry for entry in builtin_protocols().values() if store is None or entry.dataset == store.dataset]
    names = [f"{entry.name}/0" if entry.drawn else entry.name for entry in found]
    lists = {name for clip in store.splits for name in clip} if store is not None else set()
    stems = {"split"} | {name.removesuffix("_train") or "split" for name in lists if name.endswith("_train")}
    stems |= {name.removeprefix("train") or "split" for name in lists if name.startswith("train")}
    for stem in stems:
        train, *judged = _list_names(stem)
        if train in lists and lists.intersection(judged):
            names.append(f"own/{stem}")
    return sorted(names)


def load_protocol(name: str) -> Protocol:
    """A protocol by name, or ``file.yaml`` / ``file.yaml:name`` for a user's own.

    ``own/split`` goes by the clips' lists train, val and test, ``own/X`` by X_train, X_val and X_test, ``own/1`` by
    train1 and test1; see :func:`by_lists`. ``sysu/setting-1/7`` is the eighth random half, and
    ``utd_mhad/open_22_5/7/gate`` what the gate of the eighth draw of withheld classes is fitted on.

    Raises:
        UserError: no such protocol, or the file is none.
    """
    builtin = builtin_protocols()
    stem, _, last = name.rpartition("/")
    if last == "gate" and stem not in ("", "own"):  # own/gate: lists gate_train and gate_test that clips bring along
        protocol = load_protocol(stem)
        if not protocol.open or protocol.gate or not protocol.calibrate:
            raise UserError(f"protocol '{stem}' has no /gate variant: that takes withheld classes and `calibrate`")
        return replace(protocol, name=name, gate=True)
    if name.endswith((".yaml", ".yml")) or ".yaml:" in name or ".yml:" in name:
        return _from_file(name)
    if name in builtin and not builtin[name].drawn:
        return builtin[name]
    if stem == "own" and last:
        return Protocol(name=name, dataset=ANY, lists=last)
    if (random := builtin.get(stem)) is not None and random.drawn and last.isdecimal() and int(last) < random.draws:
        return replace(random, name=name, draw=int(last))
    if name in builtin:
        raise UserError(f"protocol '{name}' is {builtin[name].draws} random draws: choose one, '{name}/0' for instance")
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
    return _on_base(_parse(chosen, own[chosen], file), builtin_protocols())
