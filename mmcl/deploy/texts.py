"""Text of the classes that somebody asks for, trained or not."""

from __future__ import annotations

from collections.abc import Sequence

from mmcl.deploy.vocabulary import class_key
from mmcl.errors import UserError
from mmcl.prompts import Prompts, load_prompts

OWN = "own"


def named_classes(classes: str, templates: Sequence[str], own: Prompts | None = None) -> Prompts:
    """Prompts for classes given by hand, in the templates that a model was trained with.

    Args:
        classes: names separated by commas, or a .yaml file of classes with names, descriptions, motions.
        templates: of the run that made the model: others would put a class's text elsewhere in the space.
        own: classes that the name ``own`` stands for; names of theirs get their descriptions and motions.

    Raises:
        UserError: no such file, or fewer than two different classes.
    """
    if classes.endswith((".yaml", ".yml")):
        asked = _words(load_prompts(classes))
    else:
        known = {} if own is None else {class_key(words[0]): words for words in _words(own)}
        asked = []
        for name in (" ".join(name.split()) for name in classes.split(",")):
            if name == OWN and own is not None:
                if not own.names:
                    raise UserError(
                        "--classes own: there is no table of class texts (`mmcl export --classes …` makes one)"
                    )
                asked += _words(own)
            elif name:
                asked.append((name, *known.get(class_key(name), (name,) * 3)[1:]))
    different = {class_key(words[0]): words for words in asked}.values()
    if len(different) < 2:
        raise UserError(f"--classes needs at least two different names with a comma between them, not '{classes}'")
    names, descriptions, motions = zip(*different, strict=True)
    return Prompts("classes given by name", names, descriptions, (), "{name}", tuple(templates), motions)


def _words(prompts: Prompts) -> list[tuple[str, ...]]:
    """(name, description, motion) of each class."""
    return list(zip(prompts.names, prompts.descriptions, prompts.motions, strict=True))
