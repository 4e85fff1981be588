"""What can be judged: a bundle, or a run's checkpoint. Both are asked for the skeleton branch and nothing else."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from mmcl.deploy.bundle import CONFIG, Bundle, bundle_config, load_bundle
from mmcl.encoders.base import Encoder
from mmcl.engine.checkpoint import LEARNED, find_checkpoint
from mmcl.engine.config import TrainConfig
from mmcl.engine.run_folder import read_run_config
from mmcl.engine.setup import build_skeleton_branch
from mmcl.errors import UserError
from mmcl.skeletons.layout import Layout
from mmcl.skeletons.preprocess import Preprocess


@dataclass
class Judged:
    """A model to judge, and where it comes from.

    Attributes:
        model: raw joints -> scores.
        facts: checkpoint, task, selection, for the report.
        config: of the run, where it is one.
    """

    model: Bundle
    facts: dict[str, Any]
    config: TrainConfig | None


def load_judged(path: Path, layout: Layout, which: str = "last") -> Judged:
    """Load a bundle, a run folder, or one checkpoint of a run.

    Args:
        path: any of the three.
        layout: of the clips it will be shown; joints are converted by name where the model expects another.
        which: last or best, for a run folder.

    Raises:
        UserError: none of the three.
    """
    if (path / CONFIG).is_file():
        bundle = load_bundle(path, layout)
        done = bundle.config["provenance"]
        facts = {"checkpoint": str(path), "selection": done.get("selection"), "task": done.get("task")}
        return Judged(bundle, facts, None)
    if (path / LEARNED).is_file():
        path, which = path.parent.parent, path.name
    if not (path / "config.yaml").is_file():
        raise UserError(f"{path} is neither a bundle (config.json) nor a run folder (config.yaml)")
    config = read_run_config(path)
    trained_on, names = run_classes(config)
    encoder, preprocess = build_skeleton_branch(config, trained_on, len(names))
    checkpoint = find_checkpoint(path / "checkpoints", which)
    load_encoder(encoder, checkpoint)
    preprocess = Preprocess(layout, preprocess.target, preprocess.persons, config.preprocess)
    facts = {
        "checkpoint": str(checkpoint), "selection": selection(config, which), "task": config.task_name,
        "seed": config.seed,
    }  # fmt: skip
    about = bundle_config(config.encoder_name, asdict(config.encoder), preprocess, names, {}, facts)
    return Judged(Bundle(encoder, preprocess, about), facts, config)


def load_encoder(encoder: Encoder, checkpoint: Path) -> None:
    """Fill an encoder from a checkpoint of a run, and put it in evaluation mode.

    Raises:
        UserError: the checkpoint is another encoder's.
    """
    learned = load_file(checkpoint / LEARNED)
    try:
        encoder.load_state_dict(
            {key.removeprefix("encoder."): tensor for key, tensor in learned.items() if key.startswith("encoder.")}
        )
    except RuntimeError as error:
        raise UserError(f"{checkpoint} does not fit its run's config.yaml: {error}") from error
    encoder.eval()


def selection(config: TrainConfig, which: str) -> str:
    """How the checkpoint was chosen, in words; never by test clips."""
    return "last epoch" if which == "last" else f"best on validation clips {dict(config.data.validation)}"


def run_classes(config: TrainConfig) -> tuple[Layout, list[str]]:
    """Layout and class names of the clips a run was trained on.

    Raises:
        UserError: its clip store is gone.
    """
    facts = Path(config.data.path) / "store.json"
    if not facts.is_file():
        raise UserError(f"the run's clip store {config.data.path} is gone: name it with its old path, or use a bundle")
    info = json.loads(facts.read_text(encoding="utf-8"))
    return Layout.from_dict(info["layout"], str(facts)), list(info["class_names"])
