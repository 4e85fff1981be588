"""Writes the open vocabulary of a model beside its weights, and reads it again: of strangers, too, in either format."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mmcl.common.errors import UserError
from mmcl.data.class_texts import Prompts
from mmcl.models.description import VOCABULARY
from mmcl.models.text_head import build_text_head
from mmcl.models.vocabulary import Vocabulary

RECORD = "the model's record"
TEXT_HEAD = "text_head."  # prefix of its tensors, in a bundle's file as in a checkpoint
_TABLE = "classes"


def write_vocabulary(folder: Path, vocabulary: Vocabulary) -> None:
    """Write ``vocabulary.safetensors`` into a bundle's folder."""
    state = vocabulary.head.state_dict()
    tensors = {TEXT_HEAD + key: tensor.detach().cpu().contiguous() for key, tensor in state.items()}
    if vocabulary.classes is not None:
        tensors[_TABLE] = vocabulary.classes.cpu().contiguous()
    save_file(tensors, folder / VOCABULARY, metadata={"format": "pt"})
    (folder / VOCABULARY).chmod(0o644)  # safetensors makes it readable by its owner only


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
        tensors = load_file(folder / VOCABULARY)
    except FileNotFoundError as error:
        raise UserError(
            f"{folder} is damaged: config.json speaks of a vocabulary, and {VOCABULARY} is missing"
        ) from error
    except (SafetensorError, OSError) as error:
        raise UserError(f"{folder / VOCABULARY} is damaged or of another version of mmcl: {error}") from error
    tensors = _from_format_1(tensors) if facts.get("format") == 1 else tensors
    return make_vocabulary(facts, tensors, features, str(folder / VOCABULARY))


def make_vocabulary(facts: Mapping[str, Any], tensors: Mapping[str, Tensor], features: int, where: str) -> Vocabulary:
    """A vocabulary from what a description says of it and its tensors.

    Args:
        facts: under ``vocabulary``.
        tensors: those of the head under the prefix ``text_head.``, and ``classes`` where there is a table; others are
            left out of account.
        features: width of the encoder's features.
        where: the file of the tensors, for messages.

    Raises:
        UserError: they do not go together.
    """
    own = {key.removeprefix(TEXT_HEAD): tensor for key, tensor in tensors.items() if key.startswith(TEXT_HEAD)}
    try:
        _check_facts(facts)
        words = Prompts(RECORD, (), (), (), "", ()).with_classes(facts.get("words") or ())
        head = build_text_head(facts["head"]["name"], features, facts["width"], facts["head"]["options"])
        head.load_state_dict(own)
        head.text = dict(facts["text"])
        finite = all(bool(torch.isfinite(tensor).all()) for tensor in (*own.values(), *_table(tensors)))
        if not finite:
            raise UserError("it holds numbers that are not finite")
        return Vocabulary(head, facts["templates"], facts.get("names") or (), tensors.get(_TABLE), words)
    except (KeyError, TypeError, AttributeError, ValueError, RuntimeError, UserError) as error:
        words_of_error = " ".join(str(error).split())[:200]
        raise UserError(f"{where} is damaged or of another version of mmcl: {words_of_error}") from error


def _check_facts(facts: Mapping[str, Any]) -> None:
    """Whether what a description says of a vocabulary has the form that it is written in; strangers may have edited it.

    Raises:
        UserError: naming what has not.
    """
    templates, words = facts["templates"], facts.get("words")
    if not (isinstance(templates, list) and templates and all(isinstance(one, str) and one for one in templates)):
        raise UserError("its templates are no list of sentences")
    if words is not None and not (isinstance(words, list) and all(isinstance(one, dict) for one in words)):
        raise UserError("its words are no list of classes")
    space = facts["text"]
    for tower in (space, *space.get("beside", ())):
        if tower["source"] not in ("clip", "sentence") or not {"model", "clip_model"} <= {*tower}:
            raise UserError("it does not say which text model its space is of")


def _table(tensors: Mapping[str, Tensor]) -> list[Tensor]:
    return [tensors[_TABLE]] if _TABLE in tensors else []


def _from_format_1(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of format 1 under today's names; there, rows of the table lay as :meth:`ProjectionHead.fit` makes them.

    A row was c = (t - o) / |t - o| of the unit-length text t and the origin o, so that t = o + s c with the one s > 0
    for which |t| = 1.
    """
    head = {f"{TEXT_HEAD}project.{key}": tensor for key, tensor in tensors.items() if key[:1].isdigit()}
    classes = tensors.get(_TABLE)
    width = next((tensor.shape[0] for tensor in head.values()), 0)
    origin = tensors.get("origin", torch.zeros(width)).float()
    result = {**head, f"{TEXT_HEAD}origin": origin}
    if classes is not None:
        along = classes.float() @ origin
        length = -along + (along.square() + 1 - origin.square().sum()).clamp(min=0).sqrt()
        result[_TABLE] = F.normalize(origin + length[:, None] * classes.float(), dim=-1)
    return result
