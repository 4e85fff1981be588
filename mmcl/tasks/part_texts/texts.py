"""What is said of the parts of a body in an action: the clauses of its description that speak of them."""

from __future__ import annotations

import re

from mmcl.data.class_texts import Prompts

# Which words speak of a part of the body; of any other part, its own name does.
WORDS = {
    "head": ("head", "neck", "face", "ear", "mouth"),
    "hand": ("arm", "elbow", "hand", "wrist", "fist", "finger"),
    "hip": ("body", "hip", "waist", "back", "chest"),
    "foot": ("leg", "knee", "foot", "feet", "ankle", "heel", "toe"),
}


def part_text(prompts: Prompts, label: int, part: str) -> str:
    """A class's name and what its motion says of a part: "wave: the left arm hangs down at the side".

    The motion is a list of clauses with semicolons between them, as prompts files have it; its description stands in.
    A part that no clause speaks of has the name alone.
    """
    words = "|".join(WORDS.get(part, (part,)))
    clauses = [clause.strip() for clause in prompts.fill("{motion}", label).split(";")]
    said = [clause for clause in clauses if re.search(rf"\b({words})(s|es)?\b", clause, re.IGNORECASE)]
    name = prompts.fill("{name}", label)
    return f"{name}: {', '.join(said)}" if said else name


def texts_of_parts(prompts: Prompts, parts: tuple[str, ...]) -> list[list[list[str]]]:
    """Texts of every class for the whole body and then for each part: [class][1 + part][text]."""
    classes = range(len(prompts.names))
    return [[prompts.texts(label), *([part_text(prompts, label, part)] for part in parts)] for label in classes]
