"""Holds what is said about the classes of a data set, and fills templates with it."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any


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
