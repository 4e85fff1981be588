"""What can be judged: a bundle, or a run's checkpoint. Both are asked for the skeleton branch and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from mmcl.common.errors import UserError
from mmcl.data.learned import Lesson, recorded_lessons
from mmcl.data.prompts import fingerprint
from mmcl.deploy.bundle import CONFIG, Bundle, bundle_config, load_bundle
from mmcl.encoders.base import Encoder, options_dict
from mmcl.engine.checkpoint import PROBE, encoder_tensors, find_checkpoint
from mmcl.engine.config import TrainConfig
from mmcl.engine.position import epochs_done, trained_data
from mmcl.engine.run_folder import check_classes, find_run, read_run_config
from mmcl.engine.setup import build_skeleton_branch, open_data
from mmcl.engine.start import run_lessons
from mmcl.evaluation.vocabulary import run_vocabulary
from mmcl.skeletons.layout import Layout
from mmcl.skeletons.preprocess import Preprocess

TOLERANCE = 1e-4  # relative, of the probe's scores: another machine's rounding, and never another network


@dataclass(frozen=True)
class Found:
    """What ``--checkpoint`` named.

    Attributes:
        path: the bundle, or the run folder.
        config: of the run, or None for a bundle.
        which: checkpoint of the run, last or best.
    """

    path: Path
    config: TrainConfig | None
    which: str

    def report_folder(self, name: str, content: Sequence[str] = ()) -> Path:
        """Where a report goes by default: into the run folder; to ``reports/`` for a bundle, which stays as it is.

        Args:
            name: what is judged, in a word.
            content: what else tells this report from others of that name: a few digits stand for it, and for the
                bundle's own folder, since others may be called the same.
        """
        if self.config is None:
            whole = self.path.resolve()
            return Path("reports") / f"{whole.name}-{name}-{fingerprint([str(whole), *content])[:6]}"
        which = "" if self.which == "last" else f"-{self.which}"
        return self.path / (f"report-{name}{which}" + (f"-{fingerprint(content)[:6]}" if content else ""))

    def is_own(self, protocol: str, data: str) -> bool:
        """Whether that is the protocol and the store that the run was trained by."""
        own = None if self.config is None else self.config.data
        return own is not None and protocol == own.protocol and Path(data).resolve() == Path(own.path).resolve()


@dataclass
class Judged:
    """A model to judge.

    Attributes:
        model: raw joints -> scores.
        dataset: what it was trained on, where that is known.
        facts: checkpoint, task, selection, for the report.
        lessons: which clips it has learned from, where that is known.
    """

    model: Bundle
    dataset: str | None
    facts: dict[str, Any]
    lessons: tuple[Lesson, ...]


def find_model(path: Path, which: str = "last") -> Found:
    """Recognise a bundle, a run folder, or one checkpoint of a run.

    Raises:
        UserError: none of the three.
    """
    if (path / CONFIG).is_file():
        return Found(path, None, which)
    path, which = find_run(path, which)
    return Found(path, read_run_config(path), which)


def load_judged(found: Found, layout: Layout) -> Judged:
    """Load a model for clips in a layout; joints are converted by name where the model expects another.

    Raises:
        UserError: damaged files, no checkpoint, the run's clips are gone, or what is built is not what was trained.
    """
    if found.config is None:
        bundle = load_bundle(found.path, layout)
        done = bundle.config["provenance"]
        facts = {"checkpoint": str(found.path)} | {key: done.get(key) for key in ("selection", "task", "adapted")}
        return Judged(bundle, done.get("dataset"), facts, recorded_lessons(done))
    config = found.config
    data = open_data(config)
    check_classes(found.path, data.class_names)
    encoder, preprocess = build_skeleton_branch(config, data.store.layout, len(data.class_names))
    checkpoint = find_checkpoint(found.path / "checkpoints", found.which)
    load_encoder(encoder, checkpoint)
    check_probe(encoder, preprocess, checkpoint)
    preprocess = Preprocess(layout, preprocess.target, preprocess.persons, preprocess.options)
    facts = {
        "checkpoint": str(checkpoint), "selection": selection(config, checkpoint), "task": config.task_name,
        "seed": config.seed, **_adaptation(config),
    }  # fmt: skip
    if config.data.shuffle_texts:
        facts["control"] = "every class was given the text of another one"
    if trained_data(checkpoint) != data.store.fingerprint:
        facts["note"] = f"{data.store.location} is not what it was when the model was trained: its content has changed"
    about = bundle_config(config.encoder_name, options_dict(encoder), preprocess, data.class_names, {}, facts)
    vocabulary = run_vocabulary(config, checkpoint, data.store)
    lessons = run_lessons(found.path, config, checkpoint, data.store.dataset)
    return Judged(Bundle(encoder, preprocess, about, vocabulary), data.store.dataset, facts, lessons)


def _adaptation(config: TrainConfig) -> dict[str, Any]:
    """What a run started from and how few clips it had, where it was no ordinary one."""
    start, shots = config.start, config.data.shots
    weights = "" if start.weights else " (its shape alone, random weights)"
    began = {"started_from": start.checkpoint + weights, "trained_part": start.train} if start.checkpoint else {}
    return began | ({"shots": shots} if shots else {})


def load_encoder(encoder: Encoder, checkpoint: Path) -> None:
    """Fill an encoder from a checkpoint of a run, and put it in evaluation mode.

    Raises:
        UserError: the checkpoint is another encoder's.
    """
    try:
        encoder.load_state_dict(encoder_tensors(checkpoint)[0])
    except (RuntimeError, SafetensorError) as error:
        raise UserError(f"{checkpoint} is damaged or does not fit its run's config.yaml: {error}") from error
    encoder.eval()


def check_probe(encoder: Encoder, preprocess: Preprocess, checkpoint: Path) -> None:
    """Whether a network gives the scores that were recorded with its checkpoint: one forward pass of eight clips.

    Weights that fit are not enough: a config.yaml that was edited, or a layout that is described otherwise by now,
    makes another network of them.

    Args:
        encoder: filled, in evaluation mode, on the CPU, as it was when the scores were recorded.
        preprocess: from the joints of the run's store.
        checkpoint: folder of the checkpoint.

    Raises:
        UserError: it gives others, or the record is damaged.
    """
    try:
        probe = load_file(checkpoint / PROBE)
        joints, lengths, expected = probe["joints"], probe["lengths"], probe["scores"]
    except (OSError, KeyError, SafetensorError) as error:
        raise UserError(f"{checkpoint / PROBE} is damaged: {error}") from error
    words = "its run's clips have other joints"
    if joints.shape[3] == preprocess.source.joint_count:
        with torch.no_grad():
            found = encoder(preprocess(joints, lengths))
        scale = max(1.0, float(expected.nan_to_num().abs().max()))
        if torch.allclose(found, expected, rtol=0, atol=TOLERANCE * scale, equal_nan=True):  # nan: training diverged
            return
        words = f"scores of the clips that were recorded with it differ by {float((found - expected).abs().max()):.1g}"
    raise UserError(
        f"{checkpoint}: the network is not what it was when it was trained ({words}): config.yaml, the clip store's "
        "layout or mmcl has changed since; put them back"
    )


def selection(config: TrainConfig, checkpoint: Path) -> str:
    """How the checkpoint was chosen, in words; never by test clips."""
    if checkpoint.name.strip(".").removesuffix(".old") == "best":
        return f"best on validation clips {dict(config.data.validation)}"
    done, complete = epochs_done(checkpoint, config.schedule.epochs)
    return "last epoch" if complete else f"epoch {done}: the run is not complete"
