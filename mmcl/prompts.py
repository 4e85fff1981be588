"""What is said about a data set: class names and descriptions, instructions for the LLM, answer and text templates.

One YAML file a data set in ``prompts/`` at the top of the repository; a user names their own file by its path.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
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
        answer: template of the answer that the LLM learns to give, with ``{name}`` or ``{description}``.
        templates: sentences whose embeddings are averaged into the text embedding of a class.
    """

    dataset: str
    names: tuple[str, ...]
    descriptions: tuple[str, ...]
    instructions: tuple[str, ...]
    answer: str
    templates: tuple[str, ...]

    def answers(self) -> list[str]:
        """K answers, the template filled for every class."""
        return [self.fill(self.answer, label) for label in range(len(self.names))]

    def texts(self, label: int) -> list[str]:
        """Every template filled for one class."""
        return [self.fill(template, label) for template in self.templates]

    def fill(self, template: str, label: int) -> str:
        """Put a class's name and description into a template."""
        return template.replace("{name}", self.names[label]).replace("{description}", self.descriptions[label])


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
