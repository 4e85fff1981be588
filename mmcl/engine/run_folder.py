"""A run folder: config.yaml, texts.yaml, metrics.jsonl, tracker files, checkpoints/, summary.json."""

from __future__ import annotations

import platform
import time
from pathlib import Path

from mmcl.common.arguments import out_path
from mmcl.common.documents import read_mapping
from mmcl.common.errors import UserError
from mmcl.common.files import absolute, check_place, is_file, write_text
from mmcl.common.leftovers import meant_for
from mmcl.common.options import differences
from mmcl.data.class_texts import Prompts
from mmcl.data.prompts import load_prompts, write_prompts
from mmcl.engine.config import FREE_KEYS, TrainConfig
from mmcl.engine.parsing import read_run_config
from mmcl.engine.position import refuse_earlier
from mmcl.models.description import Description, read_description
from mmcl.models.run_checkpoints import RUN_MODEL

TEXTS = "texts.yaml"  # a prompts file: all that was said about the data set when the run was begun
LOCK, WRITER = ".lock", ".writer.json"


def check_run(config: TrainConfig) -> None:
    """Whether the run may start (or go on) in its folder; nothing is written.

    What a run left that never saved a checkpoint is no obstacle.

    Raises:
        UserError: there is a run already and ``resume`` is off, or it was started with another configuration.
    """
    import yaml

    folder = Path(config.out)
    if out_path(config.out) != folder:
        raise UserError(f"--out {config.out} is an address: give the path of the folder, {out_path(config.out)}")
    check_place(folder)
    if not (folder / "config.yaml").is_file():
        if folder.exists() and (not folder.is_dir() or not all(map(_of_a_beginning, folder.iterdir()))):
            raise UserError(f"{folder} exists and is no run folder: choose another --out")
        if inside := [place for place in absolute(folder).parents if is_file(place / "store.json")]:
            raise UserError(
                f"{folder} lies in the clip store {inside[0]}, and would go when that is prepared again: choose "
                "another --out"
            )
        return
    if not has_saved(folder):
        return
    if not config.resume:
        raise UserError(f"{folder} holds a run already: add --resume=true to go on with it, or choose another --out")
    refuse_earlier(folder / "checkpoints" / "last")
    begun = read_run_config(folder)
    for key, was, now in differences(*(yaml.safe_load(one.text) for one in (begun, config))):
        if key not in FREE_KEYS:
            raise UserError(
                f"cannot resume {folder}: {key} was {was} and is now {now}; "
                "resume with the same configuration, or choose another --out"
            )


def _of_a_beginning(path: Path) -> bool:
    """Whether a run may have left this that was killed before it had its ``config.yaml``."""
    if path.name == TEXTS:  # elsewhere, it may be anybody's
        return path.with_name(LOCK).is_file()
    return path.name in (LOCK, WRITER) or meant_for(path.name) in (WRITER, TEXTS, "config.yaml")


def check_joints(folder: Path, description: Description) -> None:
    """Whether a run that goes on has the joints that it was begun with; its layout may be a file that has changed.

    Raises:
        UserError: they are others.
    """
    if not (folder / RUN_MODEL).is_file():
        return
    begun = read_description(folder / RUN_MODEL)
    for was, now in ((begun.layout, description.layout), (begun.encoder_layout, description.encoder_layout)):
        if was.to_dict() != now.to_dict():
            raise UserError(
                f"cannot resume {folder}: layout '{now.name}' is not what it was when the run was begun; bring it "
                "back, or choose another --out"
            )


def has_saved(folder: Path) -> bool:
    """Whether there is anything of a checkpoint, be it damaged; what a killed process was writing is nothing yet."""
    checkpoints = folder / "checkpoints"
    return checkpoints.is_dir() and any(not path.name.endswith(".saving") for path in checkpoints.iterdir())


def start_run(config: TrainConfig, texts: Prompts | None = None) -> Path:
    """Make the run folder with its ``config.yaml``, where it is not there yet; of a moved store, note where it is now.

    Args:
        config: of the run.
        texts: what the task is told about the data set's classes, for ``texts.yaml``; None where it asked for nothing.
    """
    import yaml

    saved = Path(config.out) / "config.yaml"
    if not saved.is_file():
        if texts is not None:
            write_prompts(saved.with_name(TEXTS), texts)
        write_text(saved, config.text)
    before = read_mapping(saved)
    if not isinstance(before.get("data"), dict):
        raise UserError(f"{saved} is damaged: it says nothing of data; put it back, or choose another --out")
    if before["data"].get("path") != config.data.path:
        before["data"]["path"] = config.data.path
        write_text(saved, yaml.safe_dump(before, sort_keys=False, allow_unicode=True))
    return saved.parent


def check_shared(folder: Path, seconds: float = 30.0) -> None:
    """Whether this process sees the run folder that the main one has made: on several machines it must be shared.

    Args:
        folder: the run's.
        seconds: how long a network file system may take to show it.

    Raises:
        UserError: it does not.
    """
    until = time.monotonic() + seconds
    while not (folder / "config.yaml").is_file():
        if time.monotonic() > until:
            raise UserError(
                f"{folder} of the main process cannot be seen from {platform.node()}: all machines of a run must "
                "share its --out, since each saves its part of a checkpoint there"
            )
        time.sleep(0.2)


def recorded_texts(folder: Path) -> Prompts | None:
    """The texts that a run was trained with; None where it needed none, or is older than this record.

    Raises:
        UserError: the file is damaged.
    """
    return load_prompts(folder / TEXTS) if (folder / TEXTS).is_file() else None


def check_texts(config: TrainConfig, texts: Prompts) -> None:
    """Whether a run that goes on is told what it was told when it was begun.

    Raises:
        UserError: naming what has changed.
    """
    before = recorded_texts(Path(config.out)) if config.resume else None
    if before is None or before == texts:
        return
    old, new = (
        {**prompts.content(), "classes": {entry["name"]: entry for entry in prompts.classes()}}
        for prompts in (before, texts)
    )
    order = ("the order of classes", ", ".join(before.names), ", ".join(texts.names))
    key, was, now = next(differences(old, new), order)
    raise UserError(
        f"cannot resume {config.out}: its prompts have changed since it was begun: {key} was {was} and is now "
        f"{now}; put them back to what {Path(config.out) / TEXTS} says, or choose another --out"
    )
