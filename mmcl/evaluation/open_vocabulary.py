"""Open vocabulary: classes that were never trained, recognised by the similarity of a skeleton's embedding to texts.

Zero-shot (ZSL): clips of unseen classes, argmax over the unseen classes. Generalised (GZSL): clips of all classes,
argmax over all; accuracy on seen and on unseen clips, and their harmonic mean. There the classifier of the trained
classes answers for the seen ones, and a gate that was fitted without any unseen class decides who answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmcl.common.errors import UserError
from mmcl.common.files import check_replaceable
from mmcl.data.learned import overlap
from mmcl.data.protocols import load_protocol
from mmcl.data.rules import Protocol
from mmcl.data.splitting import Split, outputs_of, split
from mmcl.data.store import ClipStore, open_store
from mmcl.deploy.texts import class_texts, known_classes
from mmcl.deploy.vocabulary import Vocabulary, quoted, require_vocabulary
from mmcl.engine.scoring import score_clips
from mmcl.evaluation.gate import Gate, generalised
from mmcl.evaluation.gate_run import check_same_words, find_gate_run
from mmcl.evaluation.model import Found, Judged, load_judged
from mmcl.evaluation.report import write_report


@dataclass
class OpenScores:
    """Scores of test-side clips.

    Attributes:
        clips: (n,) positions in the store, seen classes' clips first.
        labels: (n,) positions among the classes, the S seen ones first, then the U unseen ones.
        seen: (n, S) scores of the classifier.
        text: (n, S + U) cosine / temperature with every class's text.
        seen_clips: how many of the clips are of seen classes.
    """

    clips: np.ndarray
    labels: np.ndarray
    seen: np.ndarray
    text: np.ndarray
    seen_clips: int

    @property
    def unseen(self) -> np.ndarray:
        """(n, U) the part of ``text`` that belongs to unseen classes."""
        return self.text[:, self.seen.shape[1] :]


@dataclass
class Ready:
    """A model with what it is to be judged on; nothing is scored yet.

    Attributes:
        rule: the protocol.
        store: the clips.
        parts: which of them are whose.
        judged: the model.
        names: of all classes, the S seen ones first, then the U unseen ones.
        rows: (S + U, D) their texts.
    """

    rule: Protocol
    store: ClipStore
    parts: Split
    judged: Judged
    names: list[str]
    rows: Tensor

    @property
    def vocabulary(self) -> Vocabulary:
        """Of the model."""
        return require_vocabulary(self.judged.model.vocabulary, "the model")


def judge_protocol(
    found: Found, data: str | None, protocol: str | None, gate: Path | None, out: Path | None, device: torch.device,
    batch_size: int,
) -> tuple[dict[str, Any], Path]:  # fmt: skip
    """Judge a model on the withheld classes of an open-vocabulary protocol, and write the report.

    Args:
        found: a run (data and protocol are its own where not given) or a bundle.
        data: clip store.
        protocol: name of the protocol.
        gate: run of ``<protocol>/gate``, on whose clips the gate is fitted; None for no gate.
        out: report folder.
        device: where the model runs.
        batch_size: clips at once.

    Returns:
        The report, and its folder.

    Raises:
        UserError: the model was trained on other classes than the protocol's seen ones, or knows no texts; a side of
            the protocol has no clip here; or the gate's run was trained otherwise than the model.
    """
    if found.config is not None:
        data, protocol = data or found.config.data.path, protocol or found.config.data.protocol
    if data is None or protocol is None:
        raise UserError(f"{found.path} is a bundle: say what to judge it on with --data and --protocol")
    other = None if gate is None else find_gate_run(gate, found, load_protocol(protocol), protocol)
    ready, fitted = _prepare(found, data, protocol, device), None
    rule, store, names, S = ready.rule, ready.store, ready.names, len(ready.parts.classes)
    name = rule.name.replace("/", "-") + ("" if gate is None else f"-gate-{gate.resolve().name}")
    out = out or found.report_folder(name, [store.fingerprint] if found.config is None else [])
    check_replaceable(out, "report.json")
    facts: dict[str, Any] = {
        "protocol": rule.name, "kind": "open vocabulary: clips of unseen classes, argmax over the unseen classes",
        "rule": rule.source, "trained_classes": names[:S], "unseen_classes": names[S:], "data": store.location,
        "data_fingerprint": store.fingerprint, **ready.judged.facts,
        "warning": overlap(np.concatenate([ready.parts.test, ready.parts.unseen]), store, ready.judged.lessons) or None,
    }  # fmt: skip
    if other is not None:
        fitted, facts["gate"] = _fit(other, ready, data, device, batch_size)
    scores = _scores(ready, device, batch_size)
    facts["generalised_by_text_alone"] = generalised(scores.text[:, :S], scores.unseen, scores.labels, None)
    if fitted is not None:
        facts["generalised"] = generalised(scores.seen, scores.unseen, scores.labels, fitted)
    first = scores.seen_clips
    ids = [store.ids[clip] for clip in scores.clips[first:]]
    return write_report(out, scores.unseen[first:], scores.labels[first:] - S, ids, names[S:], facts, store), out


def _fit(found: Found, ready: Ready, data: str, device: torch.device, batch_size: int) -> tuple[Gate, dict[str, Any]]:
    """Fit the gate on the calibration clips of a gate run; and what a report says of it."""
    assert found.config is not None  # of find_gate_run
    gate = _prepare(found, data, found.config.data.protocol, device)
    check_same_words(found, gate.names, gate.vocabulary, ready.vocabulary)
    calibration = _scores(gate, device, batch_size)
    fitted = Gate.fit(calibration.seen, calibration.unseen, calibration.labels)
    return fitted, {"run": gate.judged.facts["checkpoint"], "calibration_clips": len(calibration.clips), **fitted.facts}


def _prepare(found: Found, data: str, protocol: str, device: torch.device) -> Ready:
    """Load a model, and apply the protocol whose seen classes are its own.

    Raises:
        UserError: they are not, a side has no clip, or the model knows no texts.
    """
    rule, store = load_protocol(protocol), open_store(data)
    parts = split(store, rule, found.config.data.validation if found.config is not None else None)
    order = np.concatenate([parts.classes, parts.unseen_classes]).tolist()
    names = [store.class_names[label] for label in order]
    if rule.open and not len(parts.unseen):
        raise UserError(
            f"'{protocol}' finds no {'calibration' if rule.gate else 'test'} clip of its withheld classes in "
            f"{store.location} ({quoted(names[len(parts.classes) :])}): nothing can be judged there"
        )
    judged = load_judged(found, store.layout)
    vocabulary = require_vocabulary(judged.model.vocabulary, found.path)
    if not rule.open or judged.model.class_names != names[: len(parts.classes)]:
        raise UserError(
            f"{found.path} was trained on {len(judged.model.class_names)} classes that are not the seen ones of "
            f"'{protocol}': train it with --data.protocol={protocol}"
        )
    texts = class_texts(known_classes(names, vocabulary, store.dataset), vocabulary, device)
    judged.facts |= texts.facts
    return Ready(rule, store, parts, judged, names, texts.rows)


def _scores(ready: Ready, device: torch.device, batch_size: int) -> OpenScores:
    """Score the test-side clips of seen and unseen classes."""
    store, parts, model, rows = ready.store, ready.parts, ready.judged.model.to(device), ready.rows.to(device)
    vocabulary = ready.vocabulary

    def both(joints: Tensor, lengths: Tensor) -> Tensor:
        features = model.features(joints, lengths)
        return torch.cat([model.encoder.head(features).float(), vocabulary.scores(features, rows)], dim=1)

    clips = np.concatenate([parts.test, parts.unseen])
    scores = score_clips(both, store, clips, device, batch_size, progress=True)
    S = len(parts.classes)
    seen = outputs_of(parts.classes, store.labels[parts.test])
    labels = np.concatenate([seen, S + outputs_of(parts.unseen_classes, store.labels[parts.unseen])])
    return OpenScores(clips, labels, scores[:, :S], scores[:, S:], len(parts.test))
