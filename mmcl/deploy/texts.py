"""Text of the classes that somebody asks for, trained or not: the same of a run and of the bundle made of it."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from mmcl.common.errors import UserError
from mmcl.data.class_texts import Prompts, class_key, fingerprint
from mmcl.data.prompts import load_prompts, prompt_names
from mmcl.models.vocabulary import Vocabulary, quoted

OWN = "own"


@dataclass(frozen=True)
class ClassTexts:
    """Classes in the space of a vocabulary.

    Attributes:
        rows: (n, D) unit-length text embeddings, for :meth:`mmcl.models.vocabulary.Vocabulary.fit`.
        why: why some were computed, in words; "" where the vocabulary's table had them all.
        facts: for a report: text model, whose words, how many rows of the table, hash of the sentences.
    """

    rows: Tensor
    why: str
    facts: dict[str, str]


def named_classes(classes: str, vocabulary: Vocabulary) -> Prompts:
    """Names and words of classes given by hand, in the templates that a model was trained with.

    Where a .yaml file says something about a class, that counts; of one given by name alone, what the vocabulary knows.

    Args:
        classes: names separated by commas, those that have one in double quotes, where ``own`` stands for all of the
            vocabulary's table, or, where it has none, for all classes of the data set that it learned on; or a .yaml
            file of classes with names, descriptions, motions.
        vocabulary: of the model. Other templates than its own would put a class's text elsewhere in the space.

    Raises:
        UserError: no such file, or fewer than two different classes.
    """
    if classes.endswith((".yaml", ".yml")):
        asked = load_prompts(classes).classes()
    else:
        names = split_names(classes)
        own = vocabulary.names or list(vocabulary.words.names)
        if divided := next((name for name in own if "," in name and {*split_names(name)} <= {*names}), None):
            raise UserError(f"--classes: '{divided}' is one class, whose name has a comma: write it in double quotes, "
                            f"inside the others' (--classes '\"{divided}\",…')")  # fmt: skip
        if OWN in names and not own:
            raise UserError("--classes own: there is no table of class texts (`mmcl export --classes …` makes one)")
        asked = [{"name": each} for name in names for each in (own if name == OWN else [name])]
    different = {class_key(entry["name"]): entry for entry in asked}
    if len(different) < 2:
        raise UserError(f"--classes needs at least two different names with a comma between them, not '{classes}'")
    return _told(list(different.values()), vocabulary, "--classes")


def split_names(words: str) -> list[str]:
    """Names with commas between them; one in double quotes may have commas of its own.

    Raises:
        UserError: one is longer than a table's field may be.
    """
    try:
        rows = list(csv.reader([words], skipinitialspace=True))
    except csv.Error as error:
        raise UserError(f"--classes: names with commas between them cannot be read there: {error}") from error
    return [name for row in rows for name in (" ".join(each.split()) for each in row) if name]


def known_classes(names: Sequence[str], vocabulary: Vocabulary, dataset: str) -> Prompts:
    """Names and words of a data set's classes, as the vocabulary knows them.

    Of a class that it knows nothing of, words are those of the data set's prompts, where such come with mmcl.
    """
    entries = [{"name": name} for name in names]
    strange = [name for name in vocabulary.missing(names) if vocabulary.label_of(name) is None]
    if strange and dataset in prompt_names():
        prompts = {class_key(entry["name"]): entry for entry in load_prompts(dataset).classes()}
        entries = [{**prompts.get(class_key(n), {}), "name": n} if n in strange else {"name": n} for n in names]
    return _told(entries, vocabulary, f"prompts '{dataset}' of today")


def class_texts(prompts: Prompts, vocabulary: Vocabulary, device: torch.device) -> ClassTexts:
    """Texts of classes: rows of the vocabulary's table where these were made of the same words, else computed.

    Args:
        prompts: of :func:`named_classes` or :func:`known_classes`.
        vocabulary: the space, and its table.
        device: where the text model works, if it has to.

    Raises:
        UserError: a text has to be computed, and the text model cannot be loaded here; or two classes have one text.
    """
    names, missing = prompts.names, vocabulary.missing(prompts.names)
    compute = [k for k, name in enumerate(names) if name in missing or _reworded(prompts, k, vocabulary)]
    taken = [k for k in range(len(names)) if k not in compute]
    reworded = [names[k] for k in compute if names[k] not in missing]
    why = [vocabulary.complaint(missing)] if missing else []
    why += [f"{quoted(reworded)} described otherwise than for the table"] if reworded else []
    rows = torch.empty(len(names), vocabulary.head.width)
    if taken:
        rows[taken] = vocabulary.rows_of([names[k] for k in taken]).cpu()
    if compute:
        try:
            rows[compute] = _computed(prompts.subset(compute), vocabulary, device)
        except UserError as error:
            raise UserError(
                f"{'; '.join(why)}; `mmcl export --run RUN --out DIR --classes …`, where the text model is, puts texts "
                f"there. They cannot be computed here: {error}"
            ) from error
    return ClassTexts(rows, "; ".join(why), _facts(prompts, vocabulary, rows, taken))


def _check_different(names: Sequence[str], rows: Tensor) -> None:
    """Whether the rows of classes differ: the first one of two that are equal would get every clip."""
    first: dict[tuple[float, ...], str] = {}
    for name, row in zip(names, rows.tolist(), strict=True):
        if (other := first.setdefault(tuple(row), name)) != name:
            raise UserError(f"'{other:.60}' and '{name:.60}' are one and the same to the text model, which reads only "
                            "so much of a text: describe them otherwise")  # fmt: skip


def _told(entries: list[dict[str, str]], vocabulary: Vocabulary, source: str) -> Prompts:
    """Prompts of classes; of those about which nothing but the name is said, in the vocabulary's words."""
    words, told = vocabulary.words, []
    for entry in entries:
        label = vocabulary.label_of(entry["name"])
        if label is not None and len(entry) == 1:
            # Its text is the one that was learned with, whatever the spelling of the name is here.
            learned = words.fill("{name}", label)
            spelling = {} if learned == entry["name"] else {"called": learned}
            entry = {**words.words(label), **spelling, **entry}
        told.append(entry)
    return replace(words, dataset=source).with_classes(told)


def _recorded(prompts: Prompts, label: int, vocabulary: Vocabulary) -> bool:
    """Whether a class is described in the vocabulary's own words."""
    known = vocabulary.label_of(prompts.names[label])
    return known is not None and prompts.texts(label) == vocabulary.words.texts(known)


def _reworded(prompts: Prompts, label: int, vocabulary: Vocabulary) -> bool:
    """Whether something is said about a class that its row in the table was not made of, as far as that is known."""
    return bool(prompts.words(label)) and not _recorded(prompts, label, vocabulary)


def _computed(prompts: Prompts, vocabulary: Vocabulary, device: torch.device) -> Tensor:
    """(n, D) rows by the text model of the vocabulary's space.

    Raises:
        UserError: it cannot be loaded, or two classes are one to it.
    """
    from mmcl.common.stack import require_packages

    require_packages()
    from mmcl.towers.text import space_rows

    texts = [prompts.texts(label) for label in range(len(prompts.names))]
    rows = space_rows(vocabulary.text, texts, lambda one: _text_encoder(one, device))
    _check_different(prompts.names, rows)
    return rows


def _text_encoder(facts: Mapping[str, Any], device: torch.device) -> Callable[[Sequence[str]], Tensor]:
    """A text model of a vocabulary's space: n texts -> (n, D), unit length, on the CPU."""
    from mmcl.towers.text import encoder_of

    return encoder_of(facts, device)


def _facts(prompts: Prompts, vocabulary: Vocabulary, rows: Tensor, taken: Sequence[int]) -> dict[str, str]:
    """What identifies the texts; where the words of a row are not known, the row stands for them."""
    sources, hashed = [], []
    for label, name in enumerate(prompts.names):
        recorded = _recorded(prompts, label, vocabulary)
        unknown = label in taken and not recorded
        sources.append(vocabulary.words.dataset if recorded else "unknown" if unknown else prompts.dataset)
        hashed.append([name, rows[label].tolist() if unknown else prompts.texts(label)])
    words = ", ".join(f"{source} ({sources.count(source)})" for source in dict.fromkeys(sources))
    space = vocabulary.text
    towers = (space, *space.get("beside", ()))
    model = " and ".join(f"{one['source']} {one['model'] or one['clip_model']}" for one in towers)
    how = f"{len(vocabulary.templates)} templates side by side" if space.get("joined") else ""
    return {
        "texts": f"{model}, {how or f'mean of {len(vocabulary.templates)} templates'}; words: {words}; "
        f"{len(taken)} rows of the bundle's table, {len(rows) - len(taken)} computed",
        "texts_sha256": fingerprint(hashed),
    }
