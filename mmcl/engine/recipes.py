"""Recipes and words of a command line: what they ask for, before the options of encoder and task are known.

Recipes combine with any encoder and any task. What an earlier recipe says of another one than is chosen in the end was
meant for that one: it is left out, with a note. What the command line says is never left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmcl.common.documents import parse_yaml, read_yaml
from mmcl.common.errors import UserError
from mmcl.common.files import is_file
from mmcl.engine.older import without_gone

RECIPES = Path(__file__).resolve().parent.parent / "recipes"
LOOKED_UP = {"encoder": "name", "task": "name", "start": "checkpoint"}  # section -> key that must be known beforehand
_COMMON = {"encoder": ("persons",), "task": ()}  # keys that say the same of every entry


def recipe_names() -> list[str]:
    """Recipes that come with mmcl."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def find_recipe(name: str) -> Path:
    """A recipe by path or by name.

    Raises:
        UserError: there is none.
    """
    for path in (Path(name), RECIPES / f"{name}.yaml"):
        if is_file(path):
            return path
    raise UserError(f"no recipe '{name:.80}': give a .yaml file or one of {', '.join(recipe_names())}")


@dataclass
class Recipe:
    """A recipe on a command line.

    Attributes:
        path: its file.
        content: keys and values.
        named: the encoder, task and start that are asked for once it has been read, by it or by earlier ones.
    """

    path: Path
    content: Mapping[str, Any]
    named: dict[str, str] = field(default_factory=dict)

    def check(self, sections: Iterable[str]) -> None:
        """Refuse a section that neither holds keys and values nor names a file that does.

        Raises:
            UserError: naming the section and what is given.
        """
        for section in sections:
            part = self.content.get(section, {})
            if isinstance(part, str):
                found = self.section_file(part)
                part = None if found is None else keys_of(found)
            if not (isinstance(part, Mapping) and all(isinstance(key, str) for key in part)):
                given = f"not {self.content[section]!r:.60}"
                raise UserError(f"{self.path}: {section} must be keys and values, or a file that holds them, {given}")

    def section_file(self, name: str) -> Path | None:
        """The file by which a section is given; None where there is none."""
        return next(filter(is_file, (self.path.parent / name, Path(name))), None)

    def section(self, name: str) -> dict[str, Any]:
        """What it says below a key, in any of the forms that the parser takes: keys below, dotted keys, a file."""
        part = self.content.get(name)
        if isinstance(part, str):  # a file that holds the section
            file = self.section_file(part)
            part = None if file is None else keys_of(file)
        dotted = {key: value for key, value in self.content.items() if key.startswith(f"{name}.")}
        found = {**(part if isinstance(part, Mapping) else {}), **dotted}
        return {str(key).removeprefix(f"{name}."): value for key, value in found.items()}

    def names(self) -> dict[str, str]:
        """Which encoder, task and start it asks for; by section, where it does."""
        found = {section: self.section(section).get(key) for section, key in LOOKED_UP.items()}
        return {section: str(name) for section, name in found.items() if name is not None}

    def text(self) -> str:
        """Its content as YAML, which the parser takes in the place of a file."""
        import yaml

        return yaml.safe_dump(dict(self.content), sort_keys=False, allow_unicode=True)


def keys_of(path: Path) -> Mapping[str, Any]:
    """The content of a recipe.

    Raises:
        UserError: it is no mapping.
    """
    content = read_yaml(path)
    if not isinstance(content, Mapping) or not all(isinstance(key, str) for key in content):
        raise UserError(f"{path}: a recipe holds keys and values")
    return content


@dataclass
class CommandLine:
    """A command line with its recipes read.

    Attributes:
        parts: words, and recipes in the place of ``--config`` and its value, in order.
        named: which encoder, task and start it asks for in the end; by section, where it does.
    """

    parts: list[str | Recipe]
    named: dict[str, str]

    def words(self, chosen: Mapping[str, str]) -> tuple[list[str], list[str]]:
        """The command line for a parser that knows the chosen encoder and task, and notes on what is left out."""
        words, notes = [], []
        for part in self.parts:
            if isinstance(part, str):
                words.append(part)
                continue
            fitting, left_out = _fitting(part, chosen)
            words += ["--config", fitting.text() if left_out else str(part.path)]
            notes += left_out
        return words, notes


def read_command_line(argv: Sequence[str], sections: Iterable[str]) -> CommandLine:
    """Read the recipes of a command line, from left to right as the parser will: what comes later counts.

    Args:
        argv: its words.
        sections: that recipes have.

    Raises:
        UserError: a recipe is missing, or is none.
    """
    parts: list[str | Recipe] = []
    named: dict[str, str] = {}
    words = iter(argv)
    for word in words:
        option, has_value, value = word.partition("=")
        if option == "--config":
            path = find_recipe(value if has_value else next(words, ""))
            recipe = Recipe(path, keys_of(path))
            recipe.check(sections)
            named |= recipe.names()
            recipe.named = dict(named)
            parts.append(recipe)
            continue
        parts.append(word)
        section, _, key = option.removeprefix("--").partition(".")
        if section not in LOOKED_UP or key not in ("", LOOKED_UP[section]):
            continue
        if not has_value and (value := next(words, "")):
            parts.append(value)
        named |= {section: value} if key else Recipe(Path("."), {section: _value(value)}).names()
    return CommandLine(parts, named)


def _value(word: str) -> Any:
    """A word of the command line as YAML; the word itself where it is none."""
    try:
        return parse_yaml(word, "the command line")
    except UserError:
        return word


def _fitting(recipe: Recipe, chosen: Mapping[str, str]) -> tuple[Recipe, list[str]]:
    """A recipe without what it says of another encoder or task than the chosen ones; and what that is, in words."""
    content, gone = without_gone(recipe.content)
    notes = [f"{key} of {recipe.path.name} (this mmcl has no such key)" for key in gone]
    for section, common in _COMMON.items():
        meant = recipe.named.get(section)
        if meant is None or meant == chosen[section]:
            continue
        said = recipe.section(section)
        kept = {key: value for key, value in said.items() if key in common}
        dropped = [f"{section}.{key}" for key in said if key not in common and key != LOOKED_UP[section]]
        if dropped:
            content = {key: value for key, value in content.items() if key.partition(".")[0] != section}
            content |= {section: kept} if kept else {}
            notes.append(f"{', '.join(dropped)} of {recipe.path.name} (for the {section} {meant})")
    return Recipe(recipe.path, content), notes
