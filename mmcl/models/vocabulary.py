"""The open vocabulary of a model: its text head, and a table of class texts for it.

With it a skeleton can be given the name of a class that was never trained: the one whose text fits it best.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor, nn

from mmcl.common.errors import UserError
from mmcl.data.class_texts import Prompts, class_key, same_names
from mmcl.models import TEXT_HEADS
from mmcl.models.text_head import TextHead


class Vocabulary(nn.Module):
    """Features of the encoder in, scores of classes that are given by text out.

    Args:
        head: the text head.
        templates: sentences with ``{name}``, ``{description}``, ``{motion}``, whose embeddings are averaged into a row.
        names: of the classes in the table; none where there is no table.
        classes: (n, D) the table: unit-length text embeddings.
        words: what is said about classes: those of the data set that was trained on, as it was said in training, and
            those of the table, as it was said for their rows. None where that is not known.

    Attributes:
        words: the same, of no class or more, with the templates above.

    Raises:
        UserError: any of this does not fit together.
    """

    classes: Tensor | None

    def __init__(
        self, head: TextHead, templates: Sequence[str], names: Sequence[str] = (), classes: Tensor | None = None,
        words: Prompts | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        shape = (0, head.width) if classes is None else tuple(classes.shape)
        if shape != (len(names), head.width):
            raise UserError(f"the table of class texts is {shape}, and should be {(len(names), head.width)}")
        self.head, self.templates, self.names = head, list(templates), list(names)
        self.words = replace(words or Prompts("", (), (), (), "", ()), templates=tuple(templates))
        self.register_buffer("classes", None if classes is None else classes.float())
        self._labels = {class_key(name): label for label, name in enumerate(self.words.names)}
        self._positions = {class_key(name): position for position, name in enumerate(names)}
        if len(self._positions) < len(self.names):
            raise UserError("two classes of the table have the same name")
        if twice := same_names(self.words.names):
            raise UserError(f"classes {quoted(twice)} differ in case, spaces or accents' codes alone: texts need names "
                            "that do not")  # fmt: skip
        self.eval()

    @property
    def text(self) -> Mapping[str, Any]:
        """The text model of the space."""
        return self.head.text

    def extended(self, texts: Prompts, rows: Tensor) -> Vocabulary:
        """The same with more class texts in its table; of a class that it has, the new one.

        Args:
            texts: of n classes.
            rows: (n, D) unit-length embeddings of them.

        Raises:
            UserError: a name is there twice, or rows have another width than the space.
        """
        new = {class_key(name) for name in texts.names}
        kept = [place for place, name in enumerate(self.names) if class_key(name) not in new]
        table = rows.cpu() if self.classes is None else torch.cat([self.classes.cpu()[kept], rows.cpu()])
        told = {class_key(entry["name"]): entry for entry in [*self.words.classes(), *texts.classes()]}
        names = [*(self.names[place] for place in kept), *texts.names]
        return Vocabulary(self.head, self.templates, names, table, self.words.with_classes(told.values()))

    @property
    def facts(self) -> dict[str, Any]:
        """What a description says of it."""
        return {
            "head": {"name": TEXT_HEADS.name_of(type(self.head)), "options": asdict(self.head.options)},
            "width": self.head.width, "text": dict(self.text), "templates": self.templates,
            "names": self.names or None, "words": self.words.classes() or None,
        }  # fmt: skip

    def fit(self, classes: Sequence[str] | Tensor) -> Tensor:
        """Prepare a choice of classes for :meth:`mmcl.models.model.Model.open_scores`.

        Args:
            classes: names in the table, or (n, D) unit-length text embeddings by the text model of :attr:`text`.

        Raises:
            UserError: a name is not in the table; the message names the nearest ones that are.
        """
        rows = classes if isinstance(classes, Tensor) else self.rows_of(classes)
        return self.head.fit(rows)

    def missing(self, names: Sequence[str]) -> list[str]:
        """Those of the names that the table does not have."""
        return [name for name in names if class_key(name) not in self._positions]

    def label_of(self, name: str) -> int | None:
        """Where ``words`` has a class; None where nothing is known about it."""
        return self._labels.get(class_key(name))

    def rows_of(self, names: Sequence[str]) -> Tensor:
        """(n, D) unit-length texts of classes, in the order given; case and white space do not matter.

        Raises:
            UserError: a class is not in the table; the message names the nearest ones that are.
        """
        missing = self.missing(names)
        if missing or self.classes is None:
            raise UserError(f"{self.complaint(missing)}; `mmcl export --classes …` puts texts there")
        return self.classes[[self._positions[class_key(name)] for name in names]]

    def complaint(self, missing: Sequence[str]) -> str:
        """That the table lacks these names, with the nearest ones that it has, in words."""
        if not self.names:
            return f"there is no table of class texts to find {quoted(missing)} in"
        near = {
            self.names[self._positions[key]]: None
            for name in missing
            for key in difflib.get_close_matches(class_key(name), list(self._positions), n=3, cutoff=0.5)
        }
        has = f"nearest: {', '.join(near)}" if near else f"it has {', '.join(self.names[:20])}"
        more = f" …, {len(self.names)} in all" if not near and len(self.names) > 20 else ""
        return f"no text of {quoted(missing)} in the bundle's table of {len(self.names)} classes ({has}{more})"


def require_vocabulary(vocabulary: Vocabulary | None, what: object) -> Vocabulary:
    """The vocabulary of a model, for those who cannot do without.

    Raises:
        UserError: there is none; the message says how to train one.
    """
    if vocabulary is None:
        raise UserError(
            f"{what} has no projection into a space of texts, so it cannot be asked for classes by name: train it with "
            "--task.text.weight (recipe utd_mhad_open), --task.alignment.space=clip or --task.name=sa_dvae"
        )
    return vocabulary


def quoted(names: Sequence[str]) -> str:
    """Names in a sentence."""
    return ", ".join(f"'{name}'" for name in names)
