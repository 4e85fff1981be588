"""Encoders by name: which options each has, and how one is built from options that arrive as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, is_dataclass
from types import MappingProxyType
from typing import Any

from mmcl.common.errors import UserError
from mmcl.common.options import fill
from mmcl.encoders import ENCODERS
from mmcl.encoders.base import Encoder
from mmcl.skeletons.layout import Layout

MOST_STACKED, MOST_WIDE = 100, 16_384  # layers, heads and persons; widths and frames
STACKED = ("depth", "blocks", "heads", "persons", "channels", "lstms", "subsets", "expansion")
_DEFAULTS: Mapping[str, Any] = MappingProxyType({})


def encoder_name(encoder: Encoder) -> str:
    """The name in ``ENCODERS`` of an encoder's class.

    Raises:
        UserError: it is none of those.
    """
    for name in ENCODERS:
        with suppress(UserError):  # of another package, which cannot be imported
            if ENCODERS[name] is type(encoder):
                return name
    raise UserError(f"{type(encoder).__name__} is no registered encoder: choose one of {', '.join(sorted(ENCODERS))}")


def encoder_options(name: str) -> type:
    """The dataclass that holds an encoder's options.

    Raises:
        UserError: no encoder of that name.
    """
    return ENCODERS[name].options_type


def parse_options(name: str, options: Mapping[str, Any] | object) -> Any:
    """Turn a mapping (a recipe's, or a bundle's ``config.json``) into an encoder's options; missing keys keep defaults.

    Raises:
        UserError: an unknown key, a value of the wrong type, or one out of range.
    """
    kind = encoder_options(name)
    return options if isinstance(options, kind) else fill(name, options, kind)


def check_size(name: str, options: Any) -> None:
    """Refuse options of a network that is larger than any: building it would take minutes, or all memory.

    Raises:
        UserError: naming the option.
    """
    for key, value in asdict(options).items():
        stacked = key.endswith(STACKED) and type(value) in (int, float)
        numbers = [value] if stacked else _whole_numbers(value)
        most = MOST_STACKED if stacked else MOST_WIDE
        if any(abs(number) > most for number in numbers) or len(numbers) > MOST_STACKED:
            raise UserError(f"{name}.{key} is {value!r:.40}: no number may be above {most}, no list longer than "
                            f"{MOST_STACKED}")  # fmt: skip


def _whole_numbers(value: Any) -> list[int]:
    """All whole numbers in an option, those of nested lists among them."""
    if isinstance(value, (list, tuple)):
        return [number for entry in value for number in _whole_numbers(entry)]
    return [value] if type(value) is int else []


def build_encoder(name: str, layout: Layout, classes: int, options: Mapping[str, Any] | object = _DEFAULTS) -> Encoder:
    """Build an encoder by name.

    Args:
        name: a name in ``ENCODERS``.
        layout: whose joints and edges it works on.
        classes: K.
        options: the encoder's own dataclass, or a mapping with any of its fields.

    Raises:
        UserError: unknown name, or options that are wrong.
    """
    parsed = parse_options(name, options)
    check_size(name, parsed)
    return ENCODERS[name](layout, classes, parsed)


def options_dict(encoder: Encoder) -> dict[str, Any]:
    """An encoder's options as plain data, for a bundle's ``config.json``."""
    assert is_dataclass(encoder.options) and not isinstance(encoder.options, type)
    return asdict(encoder.options)
