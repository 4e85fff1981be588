"""Which of the three judgements the command line of ``mmcl zero-shot`` asks for, and on which clips; runs it.

What each is called, and why they are kept apart, says the help of the verb.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from mmcl.common.device import pick_device
from mmcl.common.documents import MOST_YAML, read_document
from mmcl.common.errors import UserError
from mmcl.common.files import absolute
from mmcl.data.class_texts import fingerprint
from mmcl.data.protocols import UnknownProtocol, load_protocol
from mmcl.data.selection import Selection
from mmcl.data.store import open_store
from mmcl.deploy.texts import split_names
from mmcl.evaluation.base import Evaluation, build_evaluation
from mmcl.evaluation.judging import judge, select
from mmcl.evaluation.listing import is_map
from mmcl.evaluation.transfer import load_map
from mmcl.models.folder import SavedModel, find_model

Plan = tuple[Selection, Evaluation, Path]
NO_GATE = (
    "--gate belongs to a protocol that withholds classes, and to no label map nor --classes; so do --released-gate, "
    "--gate-temperature, --gate-threshold and --cycles"
)


def judged(arguments: argparse.Namespace) -> tuple[dict[str, Any], Path]:
    """Judge and write the report; returns the report and its folder.

    Raises:
        UserError: neither the command line nor the checkpoint says by which protocol, or it withholds no class.
    """
    saved, device = find_model(arguments.checkpoint, arguments.which), pick_device(arguments.device)
    kind = _transfer
    if arguments.classes is not None:
        kind = _classes
    elif not _is_map(arguments, saved):
        kind = _open_vocabulary
    data, evaluation, out = kind(arguments, saved)
    return judge(saved, data, evaluation, out, device, arguments.batch_size), out


def _is_map(arguments: argparse.Namespace, saved: SavedModel) -> bool:
    """Whether the protocol is a label map, and no open-vocabulary one."""
    own = saved.description.provenance.get("protocol") if saved.checkpoint is not None else None
    name = arguments.protocol or own
    if name is None:
        raise UserError("which protocol? Give --protocol, or --classes (or look at --list-protocols)")
    if is_map(name):
        return True
    try:
        protocol = load_protocol(name)
    except UnknownProtocol as error:
        raise UserError(f"no zero-shot protocol '{name}': look at --list-protocols, or give a .yaml file") from error
    if not protocol.open:
        raise UserError(f"protocol '{name}' withholds no class: `mmcl evaluate` judges it, or see --list-protocols")
    return False


def _transfer(arguments: argparse.Namespace, saved: SavedModel) -> Plan:
    """Transfer by label map: a whole store of the other data set."""
    _refuse_gate(arguments)
    if arguments.data is None:
        raise UserError("transfer by label map needs --data, a clip store of the other data set")
    rule, store = load_map(arguments.protocol), open_store(arguments.data)
    name, content = rule.name.replace("/", "-"), [store.fingerprint] if saved.checkpoint is None else []
    out = arguments.out or saved.report_folder(name, content)
    return Selection(store), build_evaluation("transfer", {"map": arguments.protocol}), out


def _classes(arguments: argparse.Namespace, saved: SavedModel) -> Plan:
    """Open vocabulary among classes that are given by name: a whole store."""
    _refuse_gate(arguments)
    if arguments.data is None:
        raise UserError("--classes needs --data, a clip store that holds clips of them")
    store, asked = open_store(arguments.data), arguments.classes
    of_file = asked.endswith((".yaml", ".yml"))
    words = read_document(Path(asked), MOST_YAML) if of_file else asked
    names = [Path(asked).stem] if of_file else split_names(asked) or [""]
    first = re.sub(r"\W+", "_", names[0].strip().casefold())[:24].strip("_")
    name = f"classes-{first}" + (f"-and-{len(names) - 1}" if len(names) > 1 else "")
    out = arguments.out or saved.report_folder(name, [fingerprint(words), store.fingerprint])
    return Selection(store), build_evaluation("classes", {"classes": asked}), out


def _refuse_gate(arguments: argparse.Namespace) -> None:
    """Words of the command line that belong to withheld classes alone."""
    if arguments.gate is not None or arguments.cycles or arguments.released_gate or _fixed(arguments):
        raise UserError(NO_GATE)


def _fixed(arguments: argparse.Namespace) -> dict[str, float]:
    """What is given of the gate instead of chosen."""
    given = {"temperature": arguments.gate_temperature, "threshold": arguments.gate_threshold}
    return {key: value for key, value in given.items() if value is not None}


def _open_vocabulary(arguments: argparse.Namespace, saved: SavedModel) -> Plan:
    """The withheld classes of an open-vocabulary protocol."""
    data, gate = select(saved, arguments.data, arguments.protocol, side="unseen"), arguments.gate
    assert data.rule is not None
    if arguments.released_gate and gate is None:
        raise UserError("--released-gate needs --gate, the run that the gate is fitted on")
    if gate is None and (fixed := _fixed(arguments)):
        raise UserError(f"--gate-{next(iter(fixed))} needs --gate, the run that the gate is fitted on")
    name = data.rule.name.replace("/", "-") + ("" if gate is None else f"-gate-{absolute(gate).name}")
    name += "".join(f"-{key}-{value:g}" for key, value in _fixed(arguments).items())
    name += ("-released" if arguments.released_gate else "") + ("-cycles" if arguments.cycles else "")
    out = arguments.out or saved.report_folder(name, [data.store.fingerprint] if saved.checkpoint is None else [])
    options = {"gate": None if gate is None else str(gate), "released": arguments.released_gate,
               **_fixed(arguments)}  # fmt: skip
    if arguments.cycles:
        return data, build_evaluation("cycles", options), out
    return data, build_evaluation("open_vocabulary", {**options, "which": arguments.which or "last"}), out
