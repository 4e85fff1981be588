"""What is said about a data set: class names and descriptions, instructions for the LLM, answer and text templates.

One YAML file a data set in ``prompts/`` of the package; a user names their own file by its path.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmcl.common.documents import read_yaml
from mmcl.common.errors import UserError
from mmcl.common.files import is_file, write_text

MOST_CLASSES = 100_000
KEYS = ("dataset", "classes", "instructions", "answer", "templates")  # of a prompts file
WORDS = ("name", "description", "motion")  # what a template may ask for
# Inside the package, so that every way of installing finds them; `prompts/` at the top of the repository leads here.
BUILTIN = Path(__file__).resolve().parent.parent / "prompts"


@dataclass(frozen=True)
class Prompts:
    """Text of one data set. Of what is not said about a class, there is "": :meth:`fill` knows what stands in for it.

    Attributes:
        dataset: its name.
        names: K class names in label order.
        descriptions: K sentences, what each action looks like; the name stands in.
        instructions: what the LLM is asked; one question a forward pass.
        answer: template of the answer that the LLM learns to give, with ``{name}``, ``{description}`` or ``{motion}``.
        templates: the same, embedded and averaged into the text embedding of a class.
        motions: K texts, what arms, legs and body do in it; the description stands in. Texts of body parts carry over
            to unseen classes better than names do (as in GAP, ICCV 2023).
        called: K names as they enter templates; the class's name stands in.
    """

    dataset: str
    names: tuple[str, ...]
    descriptions: tuple[str, ...]
    instructions: tuple[str, ...]
    answer: str
    templates: tuple[str, ...]
    motions: tuple[str, ...] = ()
    called: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for key in ("motions", "called"):
            if not getattr(self, key):
                object.__setattr__(self, key, ("",) * len(self.names))

    def answers(self) -> list[str]:
        """K answers, the template filled for every class."""
        return [self.fill(self.answer, label) for label in range(len(self.names))]

    def texts(self, label: int) -> list[str]:
        """Every template filled for one class."""
        return [self.fill(template, label) for template in self.templates]

    def words(self, label: int) -> dict[str, str]:
        """What is said about a class besides its name: ``called``, ``description``, ``motion``, where there is one."""
        said = {"called": self.called, "description": self.descriptions, "motion": self.motions}
        return {key: texts[label] for key, texts in said.items() if texts[label]}

    def classes(self) -> list[dict[str, str]]:
        """The classes as a prompts file lists them."""
        return [{"name": name, **self.words(label)} for label, name in enumerate(self.names)]

    def with_classes(self, entries: Iterable[Any]) -> Prompts:
        """The same of other classes.

        Args:
            entries: a name, or a mapping of ``name`` and what :meth:`words` gives, for each.

        Raises:
            KeyError, TypeError, AttributeError: they are something else.
        """
        rows = [entry if isinstance(entry, dict) else {"name": entry} for entry in entries]
        names = tuple(str(row["name"]) for row in rows)
        descriptions, motions, called = (
            tuple(str(row.get(key) or "") for row in rows) for key in ("description", "motion", "called")
        )
        return replace(self, names=names, descriptions=descriptions, motions=motions, called=called)

    def content(self) -> dict[str, Any]:
        """The content of a prompts file."""
        return {
            "dataset": self.dataset, "classes": self.classes(), "instructions": list(self.instructions),
            "answer": self.answer, "templates": list(self.templates),
        }  # fmt: skip

    def subset(self, labels: Sequence[int]) -> Prompts:
        """The same text for some of the classes only, in the order given."""
        rows = self.classes()
        return self.with_classes(rows[label] for label in labels)

    def shuffled(self, seed: int) -> Prompts:
        """Every class with the texts of another one, by a random cycle through all classes; names stay where they are.

        Of a class's name, too, the other's enters the templates.
        """
        import numpy as np

        order = np.random.default_rng(np.random.SeedSequence(seed)).permutation(len(self.names))
        other = np.empty_like(order)
        other[order] = np.roll(order, 1)
        given = self.subset(other.tolist())
        return replace(given, names=self.names, called=tuple(given.fill("{name}", k) for k in range(len(self.names))))

    def fill(self, template: str, label: int) -> str:
        """Put a class's name, description and motion into a template."""
        name = self.called[label] or self.names[label]
        description = self.descriptions[label] or name
        words = {"name": name, "description": description, "motion": self.motions[label] or description}
        for key, text in words.items():
            template = template.replace(f"{{{key}}}", text)
        return template


def class_key(name: str) -> str:
    """What two spellings of a class's name have in common: case, white space and the codes of accents do not count."""
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def same_names(names: Sequence[str]) -> list[str]:
    """The first two names that are one by :func:`class_key`; nothing where all differ."""
    seen: dict[str, str] = {}
    for name in names:
        if (key := class_key(name)) in seen:
            return [seen[key], name]
        seen[key] = name
    return []


def fingerprint(content: Any) -> str:
    """Twelve hexadecimal digits of the SHA-256 of texts, in whatever lists and mappings."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def plain_prompts(dataset: str, names: Sequence[str]) -> Prompts:
    """What is said of classes of which nothing is known but their names."""
    ask = ("Describe what the person is doing.",)
    return Prompts(dataset, tuple(names), ("",) * len(names), ask, answer="{name}", templates=("{name}",))


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
