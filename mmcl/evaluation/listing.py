"""What ``mmcl zero-shot --list-protocols`` prints: every label map and open-vocabulary protocol, with its classes."""

from __future__ import annotations

import textwrap
from pathlib import Path

from mmcl.common.documents import read_yaml
from mmcl.common.files import is_file
from mmcl.data.apply_protocol import by_labels, divide_classes
from mmcl.data.prompts import class_names
from mmcl.data.protocols import builtin_protocols, load_protocol
from mmcl.data.rules import Protocol
from mmcl.evaluation.transfer import transfer_maps


def describe_maps() -> str:
    """Every shipped label map with its pairs."""
    blocks = []
    for name, rule in transfer_maps().items():
        pairs = "\n".join(f"    {own} -> {foreign}" for own, foreign in rule.pairs.items())
        head = f"{name}: trained on {rule.source}, judged on {rule.target}"
        blocks.append(f"{head}\n    [{rule.reference}]\n{pairs}")
    return "\n".join(blocks)


def is_map(name: str) -> bool:
    """Whether a protocol's name, or a user's .yaml file, is a label map."""
    if not (name.endswith((".yaml", ".yml")) and is_file(name)):
        return name in transfer_maps()
    facts = read_yaml(Path(name))
    return isinstance(facts, dict) and "pairs" in facts


def open_protocol_names() -> list[str]:
    """Names of the shipped open-vocabulary protocols; random ones without their draw."""
    return [name for name, protocol in builtin_protocols().items() if protocol.open]


def describe_open_protocols() -> str:
    """Every shipped open-vocabulary protocol with its withheld classes; of random ones the first draw's."""
    blocks = []
    for name in open_protocol_names():
        protocol = builtin_protocols()[name]
        first = load_protocol(f"{name}/0") if protocol.drawn else protocol
        draws = f", {protocol.draws} draws: {name}/0 … {protocol.draws - 1}" if protocol.drawn else ""
        blocks.append(f"{name}: sides of {protocol.base}{draws}\n    [{protocol.source}]\n{_withheld(first)}")
    return "\n".join(blocks) + "\n    (P/gate: what the gate of generalised zero-shot is fitted on; training side only)"


def _withheld(protocol: Protocol) -> str:
    names = class_names(protocol.dataset)
    _, unseen = divide_classes(by_labels(protocol, names), len(names))
    which = f"withheld by draw {protocol.draw}" if protocol.drawn else "withheld"
    words = f"{which}: " + ", ".join(f"{names[label]} ({label})" for label in unseen)
    return textwrap.indent(textwrap.fill(words, 110), "    ")
