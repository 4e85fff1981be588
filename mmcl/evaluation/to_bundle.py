"""A run's skeleton branch becomes a bundle, compared on the way with what the trained network gave."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from mmcl.common.errors import UserError
from mmcl.common.files import atomic_folder
from mmcl.deploy.bundle import bundle_config, load_bundle, write_bundle
from mmcl.deploy.config import EXTRAS, Extras, is_bundle
from mmcl.deploy.formats import write_extras
from mmcl.deploy.judge import JUDGED, Judges, evenly
from mmcl.deploy.texts import class_texts, named_classes
from mmcl.deploy.verify import verify_bundle
from mmcl.deploy.vocabulary import Vocabulary, require_vocabulary
from mmcl.encoders.base import Encoder, options_dict
from mmcl.encoders.counting import count_macs, count_parameters
from mmcl.engine.checkpoint import LEARNED, PROBE, find_checkpoint
from mmcl.engine.config import TrainConfig
from mmcl.engine.run_folder import check_classes, read_run_config
from mmcl.engine.scoring import score_clips
from mmcl.engine.setup import Experiment, build_skeleton_branch, open_data
from mmcl.evaluation.model import load_encoder, selection
from mmcl.evaluation.vocabulary import run_vocabulary
from mmcl.skeletons.preprocess import Preprocess
from mmcl.tasks import TASKS


def export_run(
    folder: Path, out: Path, which: str = "last", classes: str | None = None, extras: Extras = EXTRAS
) -> dict[str, Any]:
    """Write the skeleton branch of a run as a bundle, put in place only once it has been verified.

    Args:
        folder: the run.
        out: bundle folder to write.
        which: checkpoint, last or best.
        classes: whose texts the bundle's table shall hold, as on the command line; None for no table.
        extras: graphs to write beside the weights, or in their place.

    Returns:
        ``config.json`` of the bundle, and the measured difference under ``verified``.

    Raises:
        UserError: no run, no checkpoint, ``classes`` for a run without a projection, the verification failed, or a
            graph differs by more than it may (nothing is written then).
    """
    config = read_run_config(folder)
    checkpoint = find_checkpoint(folder / "checkpoints", which)
    data = open_data(config)
    check_classes(folder, data.class_names)
    vocabulary = _vocabulary(folder, config, checkpoint, data, classes)
    if vocabulary is not None and config.data.shuffle_texts:
        raise UserError(
            f"{folder} is a control: it was trained with every class's text exchanged for another's, which a bundle's "
            "vocabulary would not show; judge it with `mmcl zero-shot`"
        )
    encoder, preprocess = build_skeleton_branch(config, data.store.layout, len(data.class_names))
    load_encoder(encoder, checkpoint)
    counts = {"parameters": count_parameters(encoder), "macs": count_macs(encoder, config.preprocess.window)}
    if vocabulary is not None:
        counts["projection"] = count_parameters(vocabulary)
    facts = bundle_config(
        config.encoder_name, options_dict(encoder), preprocess, data.class_names, counts,
        _provenance(folder, config, checkpoint, data), vocabulary,
    )  # fmt: skip
    embeddings = _trained_embeddings(config, encoder, preprocess, checkpoint)
    with atomic_folder(out, is_bundle) as temporary:
        write_bundle(temporary, encoder, facts, vocabulary)
        parameters = counts["parameters"] + counts.get("projection", 0)
        difference = verify_bundle(temporary, checkpoint / PROBE, parameters, embeddings)
        if extras != EXTRAS:
            judges = _judges(temporary, config, data) if extras.onnx else None
            facts = write_extras(temporary, checkpoint / PROBE, facts, judges, extras)
    return {**facts, "verified": difference}


def _judges(bundle: Path, config: TrainConfig, data: Experiment) -> Judges:
    """The run's clips, and what the bundle gives for those of the test side."""
    store, test = data.store, evenly(data.split.test, JUDGED)
    scores = score_clips(load_bundle(bundle), store, test, torch.device("cpu"), progress=True)
    return Judges(
        read=lambda clip: store.joints(clip)[None], training=data.split.train, test=test,
        labels=data.split.targets(store.labels[test]), reference=torch.from_numpy(scores).softmax(dim=-1).numpy(),
        protocol=f"{config.data.protocol} test",
    )  # fmt: skip


def _provenance(folder: Path, config: TrainConfig, checkpoint: Path, data: Experiment) -> dict[str, Any]:
    """Where the weights come from, for the model card."""
    summary_file = folder / "summary.json"
    summary = json.loads(summary_file.read_text(encoding="utf-8")) if summary_file.is_file() else {}
    return {
        "dataset": data.store.dataset,
        "protocol": config.data.protocol,
        "data_fingerprint": summary["data"]["fingerprint"] if summary else data.store.fingerprint,
        "task": config.task_name,
        "helped_by": summary.get("loaded") or None,
        "started_from": summary.get("start"),
        "shots": summary.get("shots"),
        "epochs": config.schedule.epochs,
        "seed": config.seed,
        "selection": selection(config, checkpoint),
        "complete": bool(summary),
    }


def _vocabulary(
    folder: Path, config: TrainConfig, checkpoint: Path, data: Experiment, classes: str | None
) -> Vocabulary | None:
    """The run's projection, with a table of class texts where one is asked for; None where it has learned none."""
    vocabulary = run_vocabulary(config, checkpoint, data.store)
    if classes is None:
        return vocabulary
    vocabulary = require_vocabulary(vocabulary, folder)
    asked = named_classes(classes, vocabulary)
    return vocabulary.extended(asked, class_texts(asked, vocabulary, torch.device("cpu")).rows)


def _trained_embeddings(
    config: TrainConfig, encoder: Encoder, preprocess: Preprocess, checkpoint: Path
) -> Tensor | None:  # fmt: skip
    """(N, D) unit-length embeddings of the probe's clips, by the checkpoint's own tensors; None where it has none."""
    space = TASKS[config.task_name].text_space(load_file(checkpoint / LEARNED), config.task)
    if space is None:
        return None
    probe, tensors = load_file(checkpoint / PROBE), space.projection
    with torch.no_grad():
        features = encoder.features(preprocess(probe["joints"], probe["lengths"]))
    hidden = F.relu(features @ tensors["0.weight"].T + tensors["0.bias"])
    return F.normalize(hidden @ tensors["2.weight"].T + tensors["2.bias"], dim=-1)
