"""Protocols: named rules that say which clips train and which test. Data, in ``data/split_rules/*.yaml``.

What a rule can say is in :mod:`mmcl.data.rules`. Of a random one, ``/0``, ``/1`` … after the name choose the draw. A
validation split is always taken from the *training* side, so that a model can be selected without seeing a test clip.

``/long_tail-100`` after the name of a protocol thins its training side out, by 100 clips of the most frequent class for
one of the rarest (``/long_tail-100-600``: the most frequent has 600); ``/stream-10`` lets its classes arrive ten at a
time. Both go by class number, and with ``/0``, ``/1`` … after them by an order drawn at random.

``/gate`` after the name of an open-vocabulary protocol withholds a second set of classes and stays on the training
side: what the seen/unseen gate of generalised zero-shot is fitted on.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmcl.common.documents import read_yaml
from mmcl.common.errors import UserError
from mmcl.common.files import is_file
from mmcl.data.arrival import Stream
from mmcl.data.parse_protocol import parse_protocol
from mmcl.data.rules import ANY, Protocol, Rule
from mmcl.data.store import ClipStore
from mmcl.data.thinning import LongTail

BUILTIN = Path(__file__).parent / "split_rules"
_FILE = re.compile(r"(.+\.ya?ml)(?:([:/])(.*))?", re.DOTALL)  # file.yaml, file.yaml:rule, file.yaml/draw

_SHAPE = re.compile(r"(.+)/(?:long_tail-(\d{1,9})(?:-(\d{1,9}))?|stream-(\d{1,9}))(?:/(\d{1,9}))?", re.DOTALL)
_ONCE = ("/long_tail-", "/stream-", "/gate")
LONGEST_NAME = 1000  # a file's path may be in it


class UnknownProtocol(UserError):
    """There is no protocol of that name."""


def builtin_protocols() -> dict[str, Protocol]:
    """The protocols that come with mmcl, by name; random ones without a draw."""
    found = {}
    for path in sorted(BUILTIN.glob("*.yaml")):
        for name, facts in read_yaml(path).items():
            found[name] = parse_protocol(name, facts, str(path))
    return {name: protocol.on_base(found) for name, protocol in found.items()}


def list_names(stem: str) -> tuple[str, str, str]:
    """Names of the training, validation and test list of a stem."""
    if stem == "split" or stem.isdecimal():  # train, train1
        number = stem.removeprefix("split")
        return f"train{number}", f"val{number}", f"test{number}"
    return f"{stem}_train", f"{stem}_val", f"{stem}_test"


def by_lists(stem: str, lists: set[str]) -> tuple[Rule, Rule, Rule]:
    """Rules for training (validation clips among them), validation and test by the lists that there are.

    Where there is no test list, the list called val is what its authors test on, as in PYSKL's files.
    """
    train, held, test = list_names(stem)
    if test not in lists:
        return {"split": [train]}, {}, {"split": [held]}
    return {"split": [train, held]}, ({"split": [held]} if held in lists else {}), {"split": [test]}


def protocol_names(store: ClipStore | None = None) -> list[str]:
    """Names of the protocols that come with mmcl; of those that fit a store, where one is given.

    Random rules are named by their first draw, lists that the clips bring along as ``own/…``.
    """
    found = [entry for entry in builtin_protocols().values() if store is None or entry.dataset == store.dataset]
    names = [f"{entry.name}/0" if entry.needs_draw else entry.name for entry in found]
    lists = {name for clip in store.splits for name in clip} if store is not None else set()
    stems = {"split"} | {name.removesuffix("_train") or "split" for name in lists if name.endswith("_train")}
    stems |= {name.removeprefix("train") or "split" for name in lists if name.startswith("train")}
    for stem in stems:
        train, *judged = list_names(stem)
        if train in lists and lists.intersection(judged):
            names.append(f"own/{stem}")
    return sorted(names)


def load_protocol(name: str) -> Protocol:
    """A protocol by name, or a user's own: ``file.yaml`` (the first in it) or ``file.yaml:name``.

    ``own/split`` goes by the clips' lists train, val and test, ``own/X`` by X_train, X_val and X_test, ``own/1`` by
    train1 and test1; see :func:`by_lists`. ``sysu/setting-1/7`` is the eighth random half, and
    ``utd_mhad/open_22_5/7/gate`` what the gate of the eighth draw of withheld classes is fitted on; so are
    ``file.yaml:name/7`` and ``file.yaml:name/7/gate``. Long tails and streams: see the module.

    Raises:
        UnknownProtocol: none is called that.
        UserError: it has no such draw, or the file is none.
    """
    if len(name) > LONGEST_NAME:
        raise UserError(f"protocol '{name[:40]}…' has {len(name):,} letters: no name is that long")
    file = _FILE.fullmatch(name)
    rule = name if file is None else file[3] or ""  # a file's folders may be called whatever they like
    if twice := next((part for part in _ONCE if rule.count(part) > 1), None):
        raise UserError(f"protocol '{name:.80}' has '{twice}' in it more than once: once is enough")
    stem, _, last = name.rpartition("/")
    if stem == "own" and last:
        return Protocol(name=name, dataset=ANY, lists=last)
    if last == "gate" and stem:  # but own/gate goes by the lists gate_train and gate_test that clips bring along
        return load_protocol(stem).on_gate()
    if file is not None:
        return _from_file(*file.groups())
    known = builtin_protocols()
    if (protocol := known.get(name)) is not None:
        if protocol.needs_draw:
            raise UserError(f"protocol '{name}' is {protocol.draws} random draws: choose one, '{name}/0' for instance")
        return protocol
    if (random := known.get(stem)) is not None and random.drawn:
        return random.with_draw(last)
    if (shape := _SHAPE.fullmatch(name)) is not None:
        return _shaped(name, load_protocol(shape[1]), *shape.groups()[1:])
    raise UnknownProtocol(
        f"no protocol '{name}': choose one of {', '.join(protocol_names())}, own/split (lists train, val, test that "
        "the clips bring along), own/X (lists X_train, X_val), or give a .yaml file"
    )


def _shaped(
    name: str, base: Protocol, imbalance: str | None, most: str | None, classes: str | None, seed: str | None
) -> Protocol:  # fmt: skip
    """A protocol with a long tail or a stream that its name asks for."""
    drawn = None if seed is None else int(seed)
    if any(word is not None and int(word) < 1 for word in (imbalance, classes)):
        raise UserError(f"protocol '{name}': an imbalance, or the classes of a part, must be 1 or more")
    if imbalance is not None:
        return replace(base, name=name, long_tail=LongTail(int(imbalance), int(most or 0), drawn))
    return replace(base, name=name, stream=Stream(int(classes or 1), seed=drawn))


def _from_file(file: str, separator: str | None, wanted: str | None) -> Protocol:
    """A rule of a user's file: the first one, or the one named after a colon; a last number chooses the draw."""
    own = _read(file)
    rule = wanted or ""
    if separator != ":" or not rule:  # file.yaml/2: the first rule's third draw
        rule = "/".join([next(iter(own)), *([rule] if rule else [])])
    stem, _, last = rule.rpartition("/")
    if rule not in own and (shape := _SHAPE.fullmatch(rule)) is not None:
        return _shaped(rule, load_protocol(f"{file}:{shape[1]}"), *shape.groups()[1:])
    if rule not in own and stem not in own:
        raise UserError(f"{file} has no protocol '{rule}': it has {', '.join(map(str, own))}")
    name = rule if rule in own else stem
    protocol, known = parse_protocol(name, own[name], file), builtin_protocols()
    if protocol.base in own:
        known[protocol.base] = parse_protocol(protocol.base, own[protocol.base], file)
    protocol = protocol.on_base(known)
    if name == rule:
        if protocol.needs_draw:
            raise UserError(f"'{file}:{name}' is {protocol.draws} random draws: choose one, '{file}:{name}/0' say")
        return protocol
    if not protocol.drawn:
        raise UserError(f"{file}: protocol '{name}' is not random: there is no '{rule}'")
    return protocol.with_draw(last)


def _read(file: str) -> dict[str, Any]:
    """What a user's protocol file holds, by name.

    Raises:
        UserError: there is no such file, or it holds something else.
    """
    if not is_file(file):
        raise UserError(f"{file}: no such file")
    own = read_yaml(Path(file))
    if not isinstance(own, dict) or not own:
        raise UserError(f"{file}: expected `dataset/rule:` with dataset, train and test below it, found {own!r:.80}")
    return {str(name): facts for name, facts in own.items()}
