"""Options, typed, from plain data: a recipe's, or the ``config.json`` of a bundle that a stranger wrote.

A bundle is read where none of the training packages is, jsonargparse included.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import MISSING, fields, is_dataclass
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from mmcl.common.errors import UserError

LARGEST = 2**63 - 1  # of whole numbers: what a tensor can hold


def fill(where: str, options: Any, kind: Any) -> Any:
    """A dataclass from keys and values; missing keys keep their defaults.

    Args:
        where: what it belongs to, for messages: "ctrgcn".
        options: out of JSON or a recipe.
        kind: the dataclass.

    Raises:
        UserError: no mapping, an unknown key, no value for a key without a default, a value of the wrong type, or a
            seed below 0, which no generator takes.
    """
    if not isinstance(options, Mapping):
        raise UserError(f"options of '{where}' must be keys and values, not {type(options).__name__}")
    known = [field.name for field in fields(kind)]
    if unknown := sorted(str(key)[:40] for key in options if key not in known):
        raise UserError(f"'{where}' has no option {', '.join(unknown[:5])}; it has {', '.join(known)}")
    needed = [one.name for one in fields(kind) if one.default is MISSING and one.default_factory is MISSING]
    if missing := [key for key in needed if key not in options]:
        raise UserError(f"'{where}' lacks {', '.join(missing)}")
    hints = get_type_hints(kind)
    found = {key: typed(f"{where}.{key}", value, hints[key]) for key, value in options.items()}
    if isinstance(seed := found.get("seed"), int) and seed < 0:
        raise UserError(f"option {where}.seed is {seed}: it must be 0 or more")
    return kind(**found)


def build(registry: Mapping[str, Any], name: str, options: Any = None, *arguments: Any) -> Any:
    """An entry of a registry whose classes take their options, a frozen dataclass ``options_type``, last.

    Args:
        registry: name -> class.
        name: of the entry.
        options: the entry's own dataclass, or a mapping with any of its fields; None for the defaults.
        arguments: what its class takes before the options.

    Raises:
        UserError: unknown name, or options that are wrong.
    """
    kind = registry[name]
    typed = options if isinstance(options, kind.options_type) else fill(name, options or {}, kind.options_type)
    return kind(*arguments, typed)


def differences(one: Any, two: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Where two nested mappings differ: dotted key, value of the one, value of the other (None where it has none)."""
    if isinstance(one, Mapping) and isinstance(two, Mapping):
        for name in {**one, **two}:
            yield from differences(one.get(name), two.get(name), f"{key}.{name}" if key else name)
    elif one != two:
        yield key, one, two


def without(settings: Mapping[str, Any], keys: Collection[str], start: str = "") -> dict[str, Any]:
    """Nested mappings without what stands at these dotted keys."""
    return {
        name: without(value, keys, f"{start}{name}.") if isinstance(value, Mapping) else value
        for name, value in settings.items()
        if f"{start}{name}" not in keys
    }


def typed(where: str, value: Any, kind: Any) -> Any:
    """Return ``value``, which comes out of JSON or a recipe, as ``kind``.

    A whole number passes for a float, but True never for a number, and no number is infinite or beyond 64 bits. Lists,
    tuples, mappings, literals, alternatives and dataclasses, nested in any way, are what jsonargparse makes of them.

    Args:
        where: what it is, for messages.
        value: plain data.
        kind: a type as annotations have it.

    Raises:
        UserError: it is none.
    """
    origin, inner = get_origin(kind), get_args(kind)
    if kind in (int, float) and type(value) in (int, float):
        return _number(where, value, kind)
    if kind is Any or (origin is Literal and value in inner) or (kind in (None, type(None)) and value is None):
        return value
    if isinstance(kind, type) and not inner and (type(value) is kind or _made(value, kind)):
        return value
    if origin in (Union, UnionType):
        for one in inner:
            with suppress(UserError):
                return typed(where, value, one)
    if origin is list and isinstance(value, list):
        return [typed(where, entry, inner[0]) for entry in value]
    if origin is tuple and isinstance(value, list | tuple):
        kinds = inner[:1] * len(value) if inner[-1] is Ellipsis else inner
        if len(kinds) == len(value):
            return tuple(typed(where, entry, one) for entry, one in zip(value, kinds, strict=True))
    if origin is dict and isinstance(value, Mapping):
        return {typed(where, key, inner[0]): typed(where, entry, inner[1]) for key, entry in value.items()}
    if is_dataclass(kind) and isinstance(value, Mapping):
        return fill(where, value, kind)
    name = kind.__name__ if isinstance(kind, type) and not inner else str(kind).replace("typing.", "")
    raise UserError(f"option {where} must be {name}, not {value!r:.60}")


def _number(where: str, value: float, kind: type) -> Any:
    """A number as a whole or a real one.

    Raises:
        UserError: it is not finite, has too many digits, or is a fraction where a whole number is wanted.
    """
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"option {where} must be a finite number, not {value}")
    if isinstance(value, int) and abs(value) > LARGEST:
        raise UserError(f"option {where} is a whole number of {value.bit_length()} bits: more than 63 are too many")
    if kind is int and isinstance(value, float):
        raise UserError(f"option {where} must be int, not {value!r}")
    return kind(value)


def _made(value: Any, kind: type) -> bool:
    """Whether jsonargparse has made a value what it is to be already, as it does with paths and enumerations."""
    return kind.__module__ != "builtins" and isinstance(value, kind)
