"""Options of a reader: a frozen dataclass whose fields are flags of ``mmcl prepare``.

A reader class that has options names their dataclass ``options_type``, takes an instance of it as its last argument and
keeps it as ``options``. Each field is made with :func:`option`, which holds the flag's help; a ``Literal`` type gives
its choices.
"""

from __future__ import annotations

import argparse
from dataclasses import MISSING, Field, dataclass, field, fields
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints


@dataclass(frozen=True)
class NoOptions:
    """Options of a reader that has none."""


def options_type(reader: Any) -> type[Any]:
    """The dataclass of a reader's options."""
    kind: type[Any] = getattr(reader, "options_type", NoOptions)
    return kind


def option(default: Any, text: str, metavar: str | None = None) -> Any:
    """A field of an options dataclass.

    Args:
        default: value where the flag is not given.
        text: help of the flag.
        metavar: what the value is called in the help.
    """
    return field(default=default, metadata={"help": text, "metavar": metavar})


def flag(name: str) -> str:
    """``--clips-per-subject`` of ``clips_per_subject``."""
    return "--" + name.replace("_", "-")


def add_flags(parser: argparse.ArgumentParser, name: str, kind: type[Any]) -> None:
    """Add the fields of an options dataclass to a command line; what is not given stays away from the result.

    Args:
        parser: of the command.
        name: of the reader.
        kind: the dataclass.
    """
    if not fields(kind):
        return
    group = parser.add_argument_group(f"of {name}", argument_default=argparse.SUPPRESS)
    hints = get_type_hints(kind)
    for entry in fields(kind):
        group.add_argument(flag(entry.name), help=_help(entry), **_kind(hints[entry.name], entry))


def given(arguments: argparse.Namespace, kind: type[Any]) -> dict[str, Any]:
    """The fields that a command line gave."""
    return {entry.name: getattr(arguments, entry.name) for entry in fields(kind) if hasattr(arguments, entry.name)}


def _help(entry: Field[Any]) -> str:
    default = "" if entry.default in (None, MISSING) else f" ({entry.default})"
    return str(entry.metadata.get("help", "")).replace("%", "%%") + default


def _kind(hint: Any, entry: Field[Any]) -> dict[str, Any]:
    """How argparse takes a field: its type, or its choices."""
    plain = next((one for one in get_args(hint) if one is not NoneType), hint) if NoneType in get_args(hint) else hint
    if get_origin(plain) is Literal:
        choices = get_args(plain)
        return {"choices": choices, "type": type(choices[0])}
    if plain is bool:
        return {"action": argparse.BooleanOptionalAction}
    return {"type": plain, "metavar": entry.metadata.get("metavar") or plain.__name__.upper()}
