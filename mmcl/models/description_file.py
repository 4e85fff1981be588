"""Checks the files that describe models, which may come from strangers: keys, types, sizes, and the format before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mmcl.common.errors import UserError
from mmcl.common.options import fill
from mmcl.common.printing import LONGEST_NAME, one_line

FORMAT = 2
CONFIG = "config.json"  # of a bundle
MOST_CLASSES, MOST_PERSONS, MOST_FRAMES, MOST_SURGERIES = 100_000, 100, 100_000, 100


@dataclass(frozen=True)
class NamedOptions:
    """An entry of a registry with its options, as a file holds it."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Operation:
    """A surgery that a model went through.

    Attributes:
        name: in ``SURGERIES``.
        options: that it was asked for with.
        structure: what :meth:`mmcl.surgery.base.Surgery.rebuild` needs to give a newly built encoder the same modules;
            None where the surgery changed tensors alone.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    structure: dict[str, Any] | None = None


@dataclass(frozen=True)
class DescriptionFile:
    """Types of a description file's keys, for :func:`mmcl.common.options.fill`."""

    format: int
    encoder: NamedOptions
    class_names: list[str]
    layout: dict[str, Any]
    encoder_layout: dict[str, Any]
    preprocess: dict[str, Any]
    surgeries: list[Operation] = field(default_factory=list)
    input: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    record: dict[str, Any] | None = None
    vocabulary: dict[str, Any] | None = None
    onnx: dict[str, dict[str, Any]] = field(default_factory=dict)
    weights: bool = True
    rejection: dict[str, Any] | None = None


def check_file(content: Any, where: str) -> DescriptionFile:
    """Check the content of a description file, of this format or the one before.

    Args:
        content: what JSON made of the file.
        where: the file, for messages.

    Raises:
        UserError: another format, a missing or unknown key, or a value of the wrong type or size.
    """
    if not isinstance(content, Mapping) or "format" not in content:
        raise UserError(f"{where}: not a bundle's {CONFIG} (it has no format)")
    if content["format"] not in (1, FORMAT) or isinstance(content["format"], bool):
        raise UserError(f"{where}: bundle format {content['format']!r:.40}, this mmcl reads 1 and {FORMAT}")
    steps = content.get("preprocess")
    if isinstance(steps, Mapping) and {"stream", "streams"} <= steps.keys():
        raise UserError(f"{where}: preprocess has both stream and streams: leave one out")
    content = _from_format_1(content) if content["format"] == 1 else content
    if missing := [key for key in ("encoder", "class_names", "layout", "preprocess") if key not in content]:
        raise UserError(f"{where}: not a bundle's {CONFIG} (it lacks {', '.join(missing)})")
    try:
        file: DescriptionFile = fill("config", {"encoder_layout": content["layout"], **content}, DescriptionFile)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    names, window, persons = file.class_names, file.preprocess.get("window"), file.encoder.options.get("persons", 1)
    checks = [
        ("class_names", len(names), bool(names) and len(names) <= MOST_CLASSES, f"1 to {MOST_CLASSES} names"),
        ("preprocess.window", window, _whole(window, MOST_FRAMES), f"a whole number from 1 to {MOST_FRAMES}"),
        (
            "preprocess.streams",
            file.preprocess.get("streams"),
            _texts(file.preprocess.get("streams", [])),
            "a list of streams",
        ),
        ("encoder.options.persons", persons, _whole(persons, MOST_PERSONS), f"from 1 to {MOST_PERSONS}"),
        ("surgeries", len(file.surgeries), len(file.surgeries) <= MOST_SURGERIES, f"at most {MOST_SURGERIES}"),
    ]
    for key, value, good, wanted in checks:
        if not good:
            raise UserError(f"{where}: {key} is {value!r:.40}: it must be {wanted}")
    if odd := _odd_names(names):
        raise UserError(f"{where}: {odd}")
    return file


def _odd_names(names: list[str]) -> str:
    """What is wrong with the first name of a class that cannot be one; "" where all can be."""
    seen: set[str] = set()
    for number, name in enumerate(names):
        if not name.strip() or len(name) > LONGEST_NAME:
            return f"class_names[{number}] has {len(name.strip())} characters: it must have 1 to {LONGEST_NAME}"
        if name in seen:
            return f"class_names[{number}] is '{one_line(name):.40}', as another one: give each class a name of its own"
        seen.add(name)
    return ""


def _texts(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(each, str) for each in value)


def _whole(value: Any, most: int) -> bool:
    return type(value) is int and 1 <= value <= most


def _from_format_1(content: Mapping[str, Any]) -> dict[str, Any]:
    """A description of format 1 in the words of format 2: its only text head was the projection."""
    result = {**content, "format": FORMAT, "weights": "weights" not in content, "onnx": content.get("onnx") or {}}
    if isinstance(content.get("counts"), Mapping):
        names = {"projection": "text_head"}
        result["counts"] = {names.get(key, key): count for key, count in content["counts"].items()}
    if isinstance(content.get("preprocess"), Mapping):
        result["preprocess"] = current_preprocess(content["preprocess"])
    facts = content.get("vocabulary")
    if isinstance(facts, Mapping):
        kept = {key: facts.get(key) for key in ("width", "text", "templates", "names", "words")}
        options = {"temperature": facts.get("temperature"), "learned": facts.get("learned", False)}
        head = {"name": "projection", "options": options}
        result["vocabulary"] = {"head": head, **kept, "format": 1}
    return result


def current_preprocess(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Preprocessing of format 1 in the words of format 2: it had one stream, and filled no gaps in time."""
    now = {"gaps": "zero", **facts}
    if "stream" in now:
        now["streams"] = [now.pop("stream")]
    return now
