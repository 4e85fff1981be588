"""Open vocabulary among classes that are given by name: the one whose text a clip's embedding is most similar to."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmcl.common.errors import UserError
from mmcl.common.files import check_replaceable
from mmcl.data.learned import not_learned
from mmcl.data.prompts import Prompts
from mmcl.data.store import open_store
from mmcl.deploy.texts import class_texts, named_classes
from mmcl.deploy.vocabulary import class_key, require_vocabulary
from mmcl.engine.scoring import score_clips
from mmcl.evaluation.model import Found, load_judged
from mmcl.evaluation.report import write_report


def judge_classes(
    found: Found, data: str, classes: str, out: Path | None, device: torch.device, batch_size: int
) -> tuple[dict[str, Any], Path]:
    """Judge a model among classes given by name, on those clips of a store that show one of them.

    Args:
        found: a run or a bundle with a vocabulary.
        data: clip store.
        classes: names separated by commas, or a prompts .yaml file. Classes without clips are distractors.
        out: report folder.
        device: where the model runs.
        batch_size: clips at once.

    Returns:
        The report, and its folder.

    Raises:
        UserError: no clip of these classes, or the model knows no texts.
    """
    store = open_store(data)
    judged = load_judged(found, store.layout)
    if out is not None:
        check_replaceable(out, "report.json")
    vocabulary = require_vocabulary(judged.model.vocabulary, found.path)
    prompts = named_classes(classes, vocabulary)
    texts = class_texts(prompts, vocabulary, device)
    rows = texts.rows.to(device)
    position = {class_key(name): number for number, name in enumerate(prompts.names)}
    answer = np.array([position.get(class_key(name), -1) for name in store.class_names])
    clips = np.flatnonzero(answer[store.labels] >= 0)
    kept, side = not_learned(clips, store, judged.lessons)
    clips = clips[kept]
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
        "trained_classes": [name for name in prompts.names if class_key(name) in trained],
        "unseen_classes": [name for name in prompts.names if class_key(name) not in trained], "clips": side,
        **texts.facts, "data": data, "data_fingerprint": store.fingerprint, **judged.facts,
    }  # fmt: skip
    out = out or found.report_folder(_folder_name(prompts), [texts.facts["texts_sha256"], store.fingerprint])
    return write_report(out, scores, labels, [store.ids[c] for c in clips], list(prompts.names), facts, store), out


def _folder_name(prompts: Prompts) -> str:
    """What a report's folder is called: the first class, and how many others."""
    first = re.sub(r"\W+", "_", class_key(prompts.names[0])).strip("_")[:24]
    return f"classes-{first}-and-{len(prompts.names) - 1}"
