"""The record of a model: digests of what it was made of, and the clips that it learned from.

One record answers every "is it still the same?": a run compares its record with what it finds when it goes on, an
export keeps it, and whoever judges a model is told which of the clips the model has learned from. That is found clip by
clip, by names, so that it holds for a protocol file that was edited after training, and for a store that was prepared
anew.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from mmcl.common.errors import UserError
from mmcl.data.split import Split
from mmcl.data.store import ClipStore
from mmcl.models.clip_set import ClipSet, read_clips

FORMAT = 1
MOST_RECORDS = 64  # a model with all that it descends from
LONGEST = 300  # characters of a name
DIGESTS = ("store", "split", "test_side", "texts", "classes", "config", "weights")
_DIGEST = re.compile(r"[0-9a-f]{0,64}")


def digest_of(content: Any) -> str:
    """sha256 (hexadecimal) of lists, mappings, texts and numbers; the order of a mapping's keys does not matter."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def tensors_digest(tensors: Mapping[str, Any]) -> str:
    """sha256 (hexadecimal) of named torch tensors: names, types, shapes and numbers, whatever file they are from."""
    import torch

    total = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        total.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


@dataclass(frozen=True)
class Record:
    """What a model was made of. A digest is hexadecimal, "" where it is not known.

    Attributes:
        dataset: name of the data set that it was trained on.
        protocol: name of the rule that chose its clips. The rule may have been edited since; ``split`` tells.
        store: fingerprint of the clip store, see :func:`mmcl.data.columns.content_fingerprint`.
        split: digest of the ids and outputs of all sides, see :attr:`mmcl.data.split.Split.digest`.
        test_side: digest of the ids of the test side alone.
        texts: digest of what its task was told about the classes.
        classes: digest of the class names in the order of its outputs.
        config: digest of the configuration, without what changes no result.
        weights: digest of its tensors, see :func:`tensors_digest`.
        trained: the clips that its weights were computed from; None where that was not recorded (before format 1).
        selected: the clips that a checkpoint may have been chosen by; None as above.
        parents: records of the models that it was started or adapted from; each has parents of its own.
    """

    dataset: str = ""
    protocol: str = ""
    store: str = ""
    split: str = ""
    test_side: str = ""
    texts: str = ""
    classes: str = ""
    config: str = ""
    weights: str = ""
    trained: ClipSet | None = None
    selected: ClipSet | None = None
    parents: tuple[Record, ...] = ()

    @classmethod
    def of(
        cls, store: ClipStore, split: Split, protocol: str, texts: Any = None, config: Any = None, weights: str = "",
        parents: Iterable[Record] = (),
    ) -> Record:  # fmt: skip
        """The record of a model that is trained on a split of a store.

        Args:
            store: the clips.
            split: of them.
            protocol: name of the rule that made the split.
            texts: what the task is told about the classes, as lists and mappings; None for nothing.
            config: the configuration as mappings, without what changes no result; None where there is none.
            weights: digest of the tensors.
            parents: records of the models that it starts from.
        """
        names = [store.class_names[label] for label in split.classes]
        return cls(
            dataset=store.dataset, protocol=protocol, store=store.fingerprint, split=split.digest,
            test_side=split.test_digest, texts="" if texts is None else digest_of(texts), classes=digest_of(names),
            config="" if config is None else digest_of(config), weights=weights,
            trained=ClipSet.of(store, split.train), selected=ClipSet.of(store, split.validation),
            parents=tuple(parents),
        )  # fmt: skip

    def lineage(self) -> Iterator[Record]:
        """This record, and those of all models that it descends from, each once."""
        known: dict[Record, None] = {}
        waiting = [self]
        while waiting:
            record = waiting.pop(0)
            if record not in known:
                known[record] = None
                waiting += record.parents
        return iter(known)

    def differences(self, other: Record) -> list[str]:
        """Which digests, parents among them, are known of both and not the same; names of the attributes."""
        pairs = {name: (getattr(self, name), getattr(other, name)) for name in DIGESTS}
        pairs |= {"parents": ([parent.weights for parent in self.parents], [p.weights for p in other.parents])}
        return [name for name, (one, two) in pairs.items() if one != two and "" not in (one, two)]

    def to_json(self) -> dict[str, Any]:
        """As lists, mappings and texts, for :meth:`from_json`."""
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        for name in ("trained", "selected"):
            clips = plain[name]
            plain[name] = None if clips is None else base64.b64encode(clips.hashes).decode()
        return {"format": FORMAT, **plain, "parents": [parent.to_json() for parent in self.parents]}

    @classmethod
    def from_json(cls, content: Any, where: str) -> Record:
        """Read what :meth:`to_json` gave; the content is not trusted.

        Args:
            content: parsed JSON.
            where: the file, for messages.

        Raises:
            UserError: it is no record, of another format, or too large.
        """
        try:
            return _read(content, [MOST_RECORDS])
        except (ValueError, RecursionError) as error:
            raise UserError(f"{where}: not a record of a model ({error}); it was edited or damaged") from error


def _read(content: Any, left: list[int]) -> Record:
    """One record and its parents; ``left`` counts how many more there may be."""
    left[0] -= 1
    if left[0] < 0:
        raise ValueError(f"it descends from more than {MOST_RECORDS} models")
    names = [field.name for field in fields(Record)]
    if not isinstance(content, dict) or set(content) != {"format", *names}:
        raise ValueError("its entries are others")
    if content["format"] != FORMAT:
        raise ValueError(f"format {content['format']!r:.20}, this mmcl reads {FORMAT}")
    for name in ("dataset", "protocol", *DIGESTS):
        if not isinstance(content[name], str) or len(content[name]) > LONGEST:
            raise ValueError(f"{name} is no short text")
        if name in DIGESTS and not _DIGEST.fullmatch(content[name]):
            raise ValueError(f"{name} is no digest")
    if not isinstance(content["parents"], list):
        raise ValueError("parents is no list")
    plain = {name: content[name] for name in ("dataset", "protocol", *DIGESTS)}
    trained, selected = (read_clips(name, content[name]) for name in ("trained", "selected"))
    parents = tuple(_read(parent, left) for parent in content["parents"])
    return Record(**plain, trained=trained, selected=selected, parents=parents)
