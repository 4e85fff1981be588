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

from mmcl.data.protocols import Protocol, load_protocol
from mmcl.data.splitting import Split, split
from mmcl.data.store import ClipStore, open_store
from mmcl.deploy.bundle import Bundle
from mmcl.deploy.texts import named_classes
from mmcl.deploy.vocabulary import class_key, require_vocabulary
from mmcl.engine.scoring import score_clips
from mmcl.engine.setup import task_prompts
from mmcl.errors import UserError
from mmcl.evaluation.gate import Gate, generalised
from mmcl.evaluation.metrics import chance
from mmcl.evaluation.model import Found, Judged, find_model, load_judged
from mmcl.evaluation.report import write_report
from mmcl.evaluation.vocabulary import class_text_rows
from mmcl.prompts import Prompts, load_prompts, prompt_names

Outcome = tuple[dict[str, Any], Path]


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


def judge_protocol(
    found: Found, data: str | None, protocol: str | None, gate: Path | None, out: Path | None, device: torch.device,
    batch_size: int,
) -> Outcome:  # fmt: skip
    """Judge a model on the withheld classes of an open-vocabulary protocol, and write the report.

    Args:
        found: a run (data and protocol are its own where not given) or a bundle.
        data: clip store.
        protocol: name of the protocol.
        gate: run of ``<protocol>/gate``, on whose clips the gate is fitted; None for no gate.
        out: report folder.
        device: where the model runs.
        batch_size: clips at once.

    Raises:
        UserError: the model was trained on other classes than the protocol's seen ones, or knows no texts.
    """
    rule, store, parts, judged, scores, names = _score(found, data, protocol, device, batch_size)
    words, fitted = "none: a run of this protocol's /gate variant fits one (--gate)", None
    if gate is not None:
        other = find_model(gate)
        wanted = f"{protocol or (found.config.data.protocol if found.config else rule.name)}/gate"
        if other.config is None or other.config.data.protocol != wanted:
            raise UserError(f"{gate} is no run of '{wanted}', which the gate must be fitted on")
        calibration = _score(other, data or store.location, None, device, batch_size)[4]
        fitted = Gate.fit(calibration.seen, calibration.unseen, calibration.labels)
        words = f"fitted on {len(calibration.clips)} training-side clips by {gate}"
    S, first = len(parts.classes), scores.seen_clips
    facts = {
        "protocol": rule.name, "kind": "open vocabulary: clips of unseen classes, argmax over the unseen classes",
        "rule": rule.source, "trained_classes": names[:S], "texts": _text_words(judged), "gate": words,
        "chance": chance(scores.labels[first:] - S, len(names) - S), "data": store.location,
        "data_fingerprint": store.fingerprint, **judged.facts,
        "generalised_by_text_alone": generalised(scores.text[:, :S], scores.unseen, scores.labels, None),
    }  # fmt: skip
    if fitted is not None:
        facts["generalised"] = generalised(scores.seen, scores.unseen, scores.labels, fitted)
    if found.config is not None and found.config.data.shuffle_texts:
        facts["control"] = "every class was given the text of another one"
    out = out or found.report_folder(rule.name.replace("/", "-"))
    ids = [store.ids[clip] for clip in scores.clips[first:]]
    labels = scores.labels[first:] - S
    return write_report(out, scores.unseen[first:], labels, ids, names[S:], facts, store), out


def judge_classes(
    found: Found, data: str, classes: str, out: Path | None, device: torch.device, batch_size: int
) -> Outcome:
    """Judge a model among classes given by name, on those clips of a store that show one of them.

    Args:
        found: a run or a bundle with a vocabulary.
        data: clip store.
        classes: names separated by commas, or a prompts .yaml file. Classes without clips are distractors.
        out: report folder.
        device: where the model runs.
        batch_size: clips at once.

    Raises:
        UserError: no clip of these classes, or the model knows no texts.
    """
    store = open_store(data)
    judged = load_judged(found, store.layout)
    vocabulary = require_vocabulary(judged.model.vocabulary, found.path)
    prompts = named_classes(classes, vocabulary.templates, _own_texts(found, store))
    rows = class_text_rows(vocabulary, prompts, device).to(device)
    position = {class_key(name): number for number, name in enumerate(prompts.names)}
    answer = np.array([position.get(class_key(name), -1) for name in store.class_names])
    clips, side = _not_trained_on(np.flatnonzero(answer[store.labels] >= 0), store, found, judged)
    if not len(clips):
        raise UserError(f"{store.location} has no clip of {', '.join(prompts.names)}: it has {store.class_names}")
    labels = answer[store.labels[clips]]
    model = judged.model.to(device)

    def open_scores(joints: Tensor, lengths: Tensor) -> Tensor:
        return model.open_scores(joints, lengths, rows)

    scores = score_clips(open_scores, store, clips, device, batch_size, progress=True)
    trained = {class_key(name) for name in model.class_names}
    facts = {
        "protocol": "open vocabulary, classes given by name", "kind": f"argmax over {len(prompts.names)} texts",
        "trained_classes": [name for name in prompts.names if class_key(name) in trained], "clips": side,
        "texts": _text_words(judged), "chance": chance(labels, len(prompts.names)), "data": data,
        "data_fingerprint": store.fingerprint, **judged.facts,
    }  # fmt: skip
    out = out or found.report_folder("classes")
    return write_report(out, scores, labels, [store.ids[c] for c in clips], list(prompts.names), facts, store), out


def _own_texts(found: Found, store: ClipStore) -> Prompts | None:
    """What the run's classes were described with, so that a name among them means the same as in training."""
    config = found.config
    if config is None or not (config.data.prompts or store.dataset in prompt_names()):
        return None
    return task_prompts(config, open_store(config.data.path))


def _not_trained_on(clips: np.ndarray, store: ClipStore, found: Found, judged: Judged) -> tuple[np.ndarray, str]:
    """Leave out what the model was trained on, if it was trained on clips of this store; and which are left."""
    if found.config is not None:
        protocol, fingerprint = found.config.data.protocol, open_store(found.config.data.path).fingerprint
    else:
        done = judged.model.config["provenance"]
        protocol, fingerprint = done.get("protocol"), done.get("data_fingerprint")
    if fingerprint != store.fingerprint or not protocol:
        return clips, "all"
    parts = split(store, load_protocol(protocol))
    return np.intersect1d(clips, np.concatenate([parts.test, parts.unseen])), f"test side of {protocol}"


def _score(
    found: Found, data: str | None, protocol: str | None, device: torch.device, batch_size: int
) -> tuple[Protocol, ClipStore, Split, Judged, OpenScores, list[str]]:
    """Score the test-side clips of an open-vocabulary protocol; names are those of all classes, seen ones first."""
    config = found.config
    if config is not None:
        data, protocol = data or config.data.path, protocol or config.data.protocol
    if data is None or protocol is None:
        raise UserError(f"{found.path} is a bundle: say what to judge it on with --data and --protocol")
    rule, store = load_protocol(protocol), open_store(data)
    parts = split(store, rule, config.data.validation if config is not None else None)
    judged = load_judged(found, store.layout)
    vocabulary = require_vocabulary(judged.model.vocabulary, found.path)
    order = np.concatenate([parts.classes, parts.unseen_classes]).tolist()
    names = [store.class_names[label] for label in order]
    if not rule.open or judged.model.class_names != names[: len(parts.classes)]:
        raise UserError(
            f"{found.path} was trained on {len(judged.model.class_names)} classes that are not the seen ones of "
            f"'{protocol}': train it with --data.protocol={protocol}"
        )
    prompts = task_prompts(config, store) if config is not None else load_prompts(store.dataset)
    rows = class_text_rows(vocabulary, prompts.subset(order), device)
    return rule, store, parts, judged, _both_scores(judged.model, rows, store, parts, device, batch_size), names


def _both_scores(
    model: Bundle, rows: Tensor, store: ClipStore, parts: Split, device: torch.device, batch_size: int
) -> OpenScores:
    model, rows = model.to(device), rows.to(device)
    vocabulary = require_vocabulary(model.vocabulary, "the model")

    def both(joints: Tensor, lengths: Tensor) -> Tensor:
        features = model.features(joints, lengths)
        return torch.cat([model.encoder.head(features).float(), vocabulary.scores(features, rows)], dim=1)

    clips = np.concatenate([parts.test, parts.unseen])
    scores = score_clips(both, store, clips, device, batch_size, progress=True)
    order = np.concatenate([parts.classes, parts.unseen_classes]).tolist()
    labels = np.array([order.index(label) for label in store.labels[clips].tolist()])
    S = len(parts.classes)
    return OpenScores(clips, labels, scores[:, :S], scores[:, S:], len(parts.test))


def _text_words(judged: Judged) -> str:
    vocabulary = judged.model.vocabulary
    assert vocabulary is not None
    model = vocabulary.text["model"] or vocabulary.text["clip_model"]
    return f"{vocabulary.text['source']} {model}, mean of {len(vocabulary.templates)} templates"
