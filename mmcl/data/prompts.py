"""Reads what is said about a data set: class names and descriptions, instructions for the LLM, templates.

One YAML file a data set in ``prompts/`` of the package; a user names their own file by its path.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmcl.common.documents import read_yaml
from mmcl.common.errors import UserError
from mmcl.common.files import is_file, write_text
from mmcl.data.class_texts import Prompts, class_key, plain_prompts, same_names

MOST_CLASSES = 100_000
KEYS = ("dataset", "classes", "instructions", "answer", "templates")  # of a prompts file
WORDS = ("name", "description", "motion")  # what a template may ask for
# Inside the package, so that every way of installing finds them; `prompts/` at the top of the repository leads here.
BUILTIN = Path(__file__).resolve().parent.parent / "prompts"


def load_prompts(name: str | Path) -> Prompts:
    """Read ``prompts/<name>.yaml`` or a user's own file.

    Raises:
        UserError: no such file, or it lacks classes.
    """
    own = str(name).endswith((".yaml", ".yml"))
    path = Path(name) if own else BUILTIN / f"{str(name).replace('-', '_')}.yaml"
    if not is_file(path):
        known = ", ".join(prompt_names())
        raise UserError(f"no prompts '{name}': those of {known} come along; a file of your own ends in .yaml and has a "
                        "list 'classes' of names")  # fmt: skip
    facts = read_yaml(path)
    try:
        if strange := sorted(str(key) for key in dict(facts) if key not in KEYS):
            raise TypeError(f"it has '{strange[0]:.40}': what may stand there is {', '.join(KEYS)}")
        plain = plain_prompts(str(facts.get("dataset", path.stem)), ())
        prompts = replace(
            plain,
            instructions=_texts(facts, "instructions", plain.instructions),
            answer=str(facts.get("answer", plain.answer)),
            templates=_texts(facts, "templates", plain.templates),
        ).with_classes([_entry(row) for row in _listed(facts["classes"])])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path}: not a prompts file ({error}); it needs a list 'classes' of names") from error
    _check(prompts, path)
    return prompts


def _check(prompts: Prompts, path: Path) -> None:
    """Whether every class of a file has a name, and a text, of its own.

    Raises:
        UserError: one has not.
    """
    if not 0 < len(prompts.names) <= MOST_CLASSES:
        raise UserError(f"{path}: 'classes' must be a list of 1 to {MOST_CLASSES} names")
    if twice := same_names(prompts.names):
        raise UserError(f"{path}: classes '{twice[0]}' and '{twice[1]}' have one name, whatever case and spaces are")
    if not prompts.templates:
        raise UserError(f"{path}: 'templates' is empty: leave it out, or give a sentence like 'a person does {{name}}'")
    for text in [*prompts.templates, prompts.answer] if prompts.answer else prompts.templates:
        if not any(f"{{{word}}}" in text for word in WORDS):
            raise UserError(
                f"{path}: '{text:.80}' is the same for every class: put {{name}}, {{description}} or {{motion}} where "
                "its words belong"
            )
    said: dict[tuple[str, ...], str] = {}
    for label, name in enumerate(prompts.names):
        if (other := said.setdefault(tuple(prompts.texts(label)), name)) != name:
            raise UserError(
                f"{path}: the texts of '{other:.60}' and '{name:.60}' are the same, so that nothing can tell these "
                "classes apart: describe them otherwise, or put {name} into a template"
            )


def _listed(found: Any) -> list[Any]:
    if not isinstance(found, list):
        raise TypeError("'classes' must be a list")
    return found


def _entry(row: Any) -> dict[str, str]:
    """One class of a file, whose author may have written what YAML reads otherwise.

    Raises:
        TypeError: its name is no word, or something else of it is no text.
    """
    told = row if isinstance(row, dict) else {"name": row}
    name = told.get("name")
    if type(name) not in (str, int) or not class_key(str(name)):
        raise TypeError(f"the name of a class is {name!r:.40}: write a word, and words like yes and no in quotes")
    if unknown := sorted(str(key) for key in told if key not in ("name", "called", "description", "motion")):
        raise TypeError(f"class '{name}' has '{unknown[0]:.40}': what may be said is name, description, motion, called")
    words = {key: text for key, text in told.items() if key != "name" and text is not None}
    if wrong := next((key for key, text in words.items() if not isinstance(text, str)), None):
        raise TypeError(f"the {wrong} of class '{name}' is no text: {words[wrong]!r:.40}")
    return {"name": str(name), **words}


def _texts(facts: dict[str, Any], key: str, default: Sequence[str]) -> tuple[str, ...]:
    """A list of sentences of a prompts file."""
    found = facts.get(key, list(default))
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise TypeError(f"'{key}' must be a list of texts")
    return tuple(found)


def write_prompts(path: Path, prompts: Prompts) -> None:
    """Write a prompts file in one go."""
    import yaml

    write_text(path, yaml.safe_dump(prompts.content(), sort_keys=False, allow_unicode=True, width=120))


def prompt_names() -> list[str]:
    """Names of the prompt files that come with mmcl."""
    return sorted(path.stem for path in BUILTIN.glob("*.yaml"))


def class_names(name: str | Path) -> list[str]:
    """Class names of a data set in label order."""
    return list(load_prompts(name).names)
