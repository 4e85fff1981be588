"""The open vocabulary of a bundle: a projection into a space of texts, and a table of class texts embedded there.

With it a skeleton can be given the name of a class that was never trained: the one whose text its embedding is most
similar to.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mmcl.common.errors import UserError
from mmcl.data.prompts import Prompts
from mmcl.encoders.projection import projection

FILE, RECORD = "vocabulary.safetensors", "the bundle's record"
_TABLE, _ORIGIN = "classes", "origin"


class Vocabulary(nn.Module):
    """Features of the encoder in, cosines with texts out.

    Args:
        tensors: of the trained projection: ``0.weight``, ``0.bias``, ``2.weight``, ``2.bias``.
        temperature: what cosines are divided by.
        text: the text model of the space: ``source``, ``model``, ``clip_model``, ``clip_pretrained``.
        templates: sentences with ``{name}``, ``{description}``, ``{motion}``, whose embeddings are averaged into a row.
        names: of the classes in the table; none where there is no table.
        classes: (n, D) the table's rows, as :meth:`rows` makes them.
        origin: (D,) mean text of the trained classes, where a class is known by how its text differs from that.
        words: what is said about classes: those of the data set that was trained on, as it was said in training, and
            those of the table, as it was said for their rows. None where that is not known.

    Attributes:
        width: D.
        words: the same, of no class or more, with the templates above.

    Raises:
        UserError: any of this does not fit together.
    """

    classes: Tensor | None
    origin: Tensor | None

    def __init__(
        self, tensors: Mapping[str, Tensor], temperature: float, text: Mapping[str, str | None],
        templates: Sequence[str], names: Sequence[str] = (), classes: Tensor | None = None,
        origin: Tensor | None = None, words: Prompts | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        try:
            self.width, features = tensors["0.weight"].shape
            self.projection = projection(features, self.width)
            self.projection.load_state_dict(dict(tensors))
        except (KeyError, ValueError, RuntimeError) as error:
            raise UserError(f"these are not the tensors of a projection ({' '.join(str(error).split())})") from error
        if not (math.isfinite(temperature) and temperature > 0):
            raise UserError(f"the temperature of a vocabulary must be positive, not {temperature}")
        shape = (0, self.width) if classes is None else tuple(classes.shape)
        if shape != (len(names), self.width):
            raise UserError(f"the table of class texts is {shape}, and should be {(len(names), self.width)}")
        self.temperature, self.text, self.templates, self.names = temperature, dict(text), list(templates), list(names)
        if origin is not None and origin.shape != (self.width,):
            raise UserError(f"the mean text is {tuple(origin.shape)}, and should be {(self.width,)}")
        self.words = replace(words or Prompts("", (), (), (), "", ()), templates=tuple(templates))
        self.register_buffer("classes", None if classes is None else classes.float())
        self.register_buffer("origin", None if origin is None else origin.float())
        self._labels = {class_key(name): label for label, name in enumerate(self.words.names)}
        self._positions = {class_key(name): position for position, name in enumerate(names)}
        if len(self._positions) < len(self.names):
            raise UserError("two classes of the table have the same name")
        self.eval()

    def extended(self, texts: Prompts, rows: Tensor) -> Vocabulary:
        """The same with more class texts in its table.

        Args:
            texts: of n classes.
            rows: (n, D) made of them, as :meth:`rows` does.

        Raises:
            UserError: a name is there twice, or rows have another width than the space.
        """
        table = rows.cpu() if self.classes is None else torch.cat([self.classes.cpu(), rows.cpu()])
        told = {class_key(entry["name"]): entry for entry in [*self.words.classes(), *texts.classes()]}
        return Vocabulary(
            self.projection.state_dict(), self.temperature, self.text, self.templates, [*self.names, *texts.names],
            table, self.origin, self.words.with_classes(told.values()),
        )  # fmt: skip

    def rows(self, texts: Tensor) -> Tensor:
        """(n, D) unit-length text embeddings -> (n, D) what embeddings of skeletons are compared with."""
        if self.origin is None:
            return texts
        return F.normalize(texts - self.origin.to(texts.device), dim=-1)

    @property
    def facts(self) -> dict[str, Any]:
        """What ``config.json`` says of it."""
        return {
            "width": self.width, "temperature": self.temperature, "text": self.text, "templates": self.templates,
            "names": self.names or None, "words": self.words.classes() or None, "centred": self.origin is not None,
        }  # fmt: skip

    def embed(self, features: Tensor) -> Tensor:
        """(N, Df) features of the encoder -> (N, D) of length 1, where texts are."""
        return F.normalize(self.projection(features.float()), dim=-1)

    def scores(self, features: Tensor, rows: Tensor) -> Tensor:
        """Cosine / temperature of (N, Df) features with (n, D) text rows: (N, n); softmax gives probabilities."""
        rows = F.normalize(rows.to(features.device, torch.float32), dim=-1)
        return self.embed(features) @ rows.T / self.temperature

    def missing(self, names: Sequence[str]) -> list[str]:
        """Those of the names that the table does not have."""
        return [name for name in names if class_key(name) not in self._positions]

    def label_of(self, name: str) -> int | None:
        """Where ``words`` has a class; None where nothing is known about it."""
        return self._labels.get(class_key(name))

    def rows_of(self, names: Sequence[str]) -> Tensor:
        """(n, D) unit-length rows of classes, in the order given; case and white space do not matter.

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


def write_vocabulary(folder: Path, vocabulary: Vocabulary) -> None:
    """Write ``vocabulary.safetensors`` into a bundle's folder."""
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in vocabulary.projection.state_dict().items()}
    if vocabulary.classes is not None:
        tensors[_TABLE] = vocabulary.classes.cpu().contiguous()
    if vocabulary.origin is not None:
        tensors[_ORIGIN] = vocabulary.origin.cpu().contiguous()
    save_file(tensors, folder / FILE, metadata={"format": "pt"})
    (folder / FILE).chmod(0o644)  # safetensors makes it readable by its owner only


def read_vocabulary(folder: Path, facts: Mapping[str, Any] | None, features: int) -> Vocabulary | None:
    """Read the vocabulary of a bundle; None where its ``config.json`` speaks of none.

    Args:
        folder: the bundle.
        facts: what its ``config.json`` says under ``vocabulary``.
        features: width of the encoder's features.

    Raises:
        UserError: the file is missing, damaged, or does not go with the facts.
    """
    if facts is None:
        return None
    try:
        tensors = load_file(folder / FILE)
        classes, origin = tensors.pop(_TABLE, None), tensors.pop(_ORIGIN, None)
        words = Prompts(RECORD, (), (), (), "", ()).with_classes(facts.get("words") or ())
        vocabulary = Vocabulary(
            tensors, float(facts["temperature"]), facts["text"], facts["templates"], facts["names"] or (), classes,
            origin, words,
        )  # fmt: skip
        if facts.get("centred", False) != (origin is not None):
            raise UserError("it and config.json disagree on whether texts are centred")
        if vocabulary.width != facts["width"] or vocabulary.projection[0].in_features != features:
            raise UserError(f"its projection is not the {features} -> {facts['width']} that config.json speaks of")
    except FileNotFoundError as error:
        raise UserError(f"{folder} is damaged: config.json speaks of a vocabulary, and {FILE} is missing") from error
    except (KeyError, TypeError, AttributeError, ValueError, SafetensorError, UserError) as error:
        raise UserError(f"{folder / FILE} is damaged or of another version of mmcl: {error}") from error
    return vocabulary


def require_vocabulary(vocabulary: Vocabulary | None, what: object) -> Vocabulary:
    """The vocabulary of a model, for those who cannot do without.

    Raises:
        UserError: there is none; the message says how to train one.
    """
    if vocabulary is None:
        raise UserError(
            f"{what} has no projection into a space of texts, so it cannot be asked for classes by name: train it with "
            "--task.text.weight (recipe utd_mhad_open) or --task.alignment.space=clip"
        )
    return vocabulary


def class_key(name: str) -> str:
    """What two spellings of a class's name have in common."""
    return " ".join(name.casefold().split())


def quoted(names: Sequence[str]) -> str:
    """Names in a sentence."""
    return ", ".join(f"'{name}'" for name in names)
