"""What is said about a data set: class names and descriptions, instructions for the LLM, answer and text templates.

One YAML file a data set in ``prompts/`` at the top of the repository; a user names their own file by its path.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mmcl.errors import UserError

# Beside the package in a clone; among the environment's shared files where a wheel was installed (pyproject.toml).
_FOLDERS = (Path(__file__).resolve().parent.parent / "prompts", Path(sys.prefix) / "share" / "mmcl" / "prompts")


@dataclass(frozen=True)
class Prompts:
    """Text of one data set.

    Attributes:
        dataset: its name.
        names: K class names in label order.
        descriptions: K sentences, what each action looks like.
        instructions: what the LLM is asked; one question a forward pass.
        answer: template of the answer that the LLM learns to give, with ``{name}``, ``{description}`` or ``{motion}``.
        templates: the same, embedded and averaged into the text embedding of a class.
        motions: K texts, what arms, legs and body do in it; the description where there is none. Texts of body parts
            carry over to unseen classes better than names do (as in GAP, ICCV 2023).
    """

    dataset: str
    names: tuple[str, ...]
    descriptions: tuple[str, ...]
    instructions: tuple[str, ...]
    answer: str
    templates: tuple[str, ...]
    motions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.motions:
            object.__setattr__(self, "motions", self.descriptions)

    def answers(self) -> list[str]:
        """K answers, the template filled for every class."""
        return [self.fill(self.answer, label) for label in range(len(self.names))]

    def texts(self, label: int) -> list[str]:
        """Every template filled for one class."""
        return [self.fill(template, label) for template in self.templates]

    def subset(self, labels: Sequence[int]) -> Prompts:
        """The same text for some of the classes only, in the order given."""
        names, descriptions, motions = (
            tuple(texts[label] for label in labels) for texts in (self.names, self.descriptions, self.motions)
        )
        return replace(self, names=names, descriptions=descriptions, motions=motions)

    def shuffled(self, seed: int) -> Prompts:
        """Every class with the texts of another one: a random cycle through all classes."""
        import numpy as np

        order = np.random.default_rng(np.random.SeedSequence(seed)).permutation(len(self.names))
        other = np.empty_like(order)
        other[order] = np.roll(order, 1)
        return self.subset(other.tolist())

    def fill(self, template: str, label: int) -> str:
        """Put a class's name, description and motion into a template."""
        words = {"name": self.names, "description": self.descriptions, "motion": self.motions}
        for key, texts in words.items():
            template = template.replace(f"{{{key}}}", texts[label])
        return template


def load_prompts(name: str | Path) -> Prompts:
    """Read ``prompts/<name>.yaml`` or a user's own file.

    Raises:
        UserError: no such file, or it lacks classes.
    """
    import yaml

    if str(name).endswith((".yaml", ".yml")):
        candidates = [Path(name)]
    else:
        candidates = [folder / f"{str(name).replace('-', '_')}.yaml" for folder in _FOLDERS]
    path = next((candidate for candidate in candidates if candidate.is_file()), None)
    if path is None:
        raise UserError(f"no prompts '{name}': expected {candidates[0]}; copy one of {prompt_names()} and edit it")
    try:
        facts = yaml.safe_load(path.read_text(encoding="utf-8"))
        classes = [entry if isinstance(entry, dict) else {"name": entry} for entry in facts["classes"]]
        names = tuple(str(entry["name"]) for entry in classes)
        return Prompts(
            dataset=str(facts.get("dataset", path.stem)),
            names=names,
            descriptions=tuple(str(entry.get("description", entry["name"])) for entry in classes),
            motions=tuple(str(entry.get("motion", entry.get("description", entry["name"]))) for entry in classes),
            instructions=tuple(facts.get("instructions", ["Describe what the person is doing."])),
            answer=str(facts.get("answer", "{name}")),
            templates=tuple(facts.get("templates", ["{name}"])),
        )
    except (yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not a prompts file ({error}); it needs a list 'classes' of names") from error


def prompt_names() -> list[str]:
    """Names of the prompt files that come with mmcl."""
    return sorted({path.stem for folder in _FOLDERS for path in folder.glob("*.yaml")})


def class_names(name: str | Path) -> list[str]:
    """Class names of a data set in label order."""
    return list(load_prompts(name).names)
