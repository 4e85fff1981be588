"""YAML and JSON of strangers: bounded in size and depth; whatever is wrong with them is one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mmcl.common.errors import UserError
from mmcl.common.files import exists, is_file

MOST_YAML, MOST_JSON = 2 << 20, 64 << 20  # bytes of a file


def parse_yaml(text: str, where: object) -> Any:
    """What a YAML text holds: mappings, lists, texts, numbers, dates, and no objects of any other kind.

    Args:
        text: of anybody.
        where: its file, for messages.

    Raises:
        UserError: it is no YAML, beyond a bound, or has a key twice.
    """
    import yaml

    from mmcl.common.bounded_yaml import BoundedLoader

    if len(text) > MOST_YAML:
        raise UserError(f"{where}: larger than {MOST_YAML >> 20} MiB, which no file of settings is")
    try:
        return BoundedLoader(text).get_single_data()
    except (yaml.YAMLError, ValueError, TypeError, OverflowError, RecursionError, KeyError, AttributeError) as error:
        raise UserError(f"{where}: not a YAML file that can be read: {_words(error)}") from error


def read_yaml(path: Path) -> Any:
    """What a YAML file holds.

    Raises:
        UserError: it is missing, too large, none, or no text.
    """
    return parse_yaml(read_document(path, MOST_YAML), path)


def read_mapping(path: Path) -> dict[Any, Any]:
    """Keys and values of a YAML file.

    Raises:
        UserError: as :func:`read_yaml`, or it holds something else.
    """
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected keys and values, found {content!r:.40}")
    return content


def parse_json(text: str | bytes, where: object) -> Any:
    """What a JSON text holds.

    Raises:
        UserError: it is none, too large, or nested too deeply.
    """
    if len(text) > MOST_JSON:
        raise UserError(f"{where}: larger than {MOST_JSON >> 20} MiB")
    try:
        return json.loads(text)
    except (ValueError, RecursionError, MemoryError) as error:  # bytes that are no text are a ValueError, too
        raise UserError(f"{where}: not JSON, or damaged ({_words(error)})") from error


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        UserError: it is missing, too large, or none.
    """
    return parse_json(read_document(path, MOST_JSON), path)


def read_document(path: Path, most: int) -> str:
    """A text file of at most so many bytes.

    Raises:
        UserError: it is missing, no regular file, larger, or not UTF-8.
    """
    if not is_file(path):  # a pipe or device would be waited for
        raise UserError(f"{path}: {'not a file' if exists(path) else 'no such file'}")
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
        if len(data) > most:
            raise UserError(f"{path}: larger than {most >> 20} MiB, which no file of this kind is")
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({_words(error)})") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
