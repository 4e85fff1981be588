"""What ``mmcl explain`` explains, and what stands for "nothing": clips of stores, or skeleton files."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mmcl.attributions.explaining import require_weights
from mmcl.common.draws import named_seed
from mmcl.common.errors import UserError
from mmcl.data.selection import Selection, find_clip
from mmcl.data.store import ClipStore, open_store
from mmcl.models.folder import SavedModel, find_model
from mmcl.models.model import Model

STILL = "still"
BACKGROUND_CLIPS = 20  # where nothing is said


@dataclass
class ExplainedClips:
    """Clips to explain.

    Attributes:
        names: of the n clips.
        joints: (M, T, V, C) each.
        labels: true class names; None where unknown.
        rates: frames a second.
        about: where they are from.
        background: (M, T, V, C) each; none where every clip is compared with its own pose held still.
        background_words: what stands for nothing.
    """

    names: list[str]
    joints: list[np.ndarray]
    labels: list[str | None]
    rates: list[float]
    about: str
    background: list[np.ndarray] = field(default_factory=list)
    background_words: str = "each clip's own mean pose, held still"


def open_model_for(
    path: Path, which: str | None, clips: Sequence[str], layout: str | None, device: str | None
) -> tuple[SavedModel, Model]:
    """A model for what it will be shown.

    Raises:
        UserError: no model there, or one without weights.
    """
    from mmcl.common.device import pick_device

    saved = find_model(path, which)
    require_weights(saved)
    if is_store(clips[0]):
        return saved, saved.load(open_store(clips[0]).layout, pick_device(device))
    return saved, saved.load(layout or _implied(clips), pick_device(device))


def is_store(where: str) -> bool:
    """Whether a word on the command line means a clip store: a folder, here or elsewhere."""
    return "://" in where or Path(where).is_dir()


def _implied(files: Sequence[str]) -> str | None:
    from mmcl.deploy.files import implied_layout

    found = {implied_layout(Path(name)) for name in files}
    if len(found) > 1:
        raise UserError("files of several formats hold different joints: explain those of each format by themselves")
    return found.pop()


def find_source(arguments: Namespace, saved: SavedModel, model: Model) -> ExplainedClips:
    """The clips that a command line names, and their background.

    Raises:
        UserError: there are none, a file or store cannot be read, or a flag is of the other of the two.
    """
    words = arguments.clips
    _check_flags(arguments, is_store(words[0]))
    if is_store(words[0]):
        if len(words) > 1:
            raise UserError("one clip store at a time, or skeleton files; --clips chooses clips of a store")
        source, data, taken = _of_store(arguments, saved)
    else:
        source, data, taken = _of_files(words, model, arguments), None, np.empty(0, dtype=int)
    wanted = arguments.background or (None if data is None else data.store.location) or _own_store(saved)
    if wanted != STILL and wanted is not None:
        beside = data if data is not None and wanted == data.store.location else None
        beside = beside or _selection(saved, wanted, arguments.protocol)
        same = data is not None and beside.store.fingerprint == data.store.fingerprint  # perhaps by another path
        _add_background(source, beside, taken if same else taken[:0], arguments, model)
    return source


def _check_flags(arguments: Namespace, store: bool) -> None:
    """Refuse flags that say nothing of what is explained: how files are read, or which clips of a store.

    Raises:
        UserError: naming the flag.
    """
    usual = {"layout": None, "unit": "m", "axes": "xyz", "columns": None, "picture": None, "strict": False}
    if not store:
        usual = {"chosen": None, "per_class": None}
    if given := next((key for key, value in usual.items() if getattr(arguments, key) != value), None):
        flag = {"chosen": "clips"}.get(given, given.replace("_", "-"))
        what = "says how files are read, and a store says so itself" if store else "chooses clips of a store, not files"
        raise UserError(f"--{flag} {what}: leave it out")
    if arguments.chosen is not None and arguments.per_class is not None:
        raise UserError("--clips and --per-class both choose the clips: leave one of them out")
    if arguments.background == STILL and arguments.background_clips is not None:
        raise UserError(f"--background-clips are clips of a store, and --background {STILL} takes none: leave one out")


def _of_store(arguments: Namespace, saved: SavedModel) -> tuple[ExplainedClips, Selection, np.ndarray]:
    data = _selection(saved, arguments.clips[0], arguments.protocol)
    store = data.store
    if arguments.chosen is not None:
        clips = named_clips(store, arguments.chosen)
    else:
        clips = per_class(store, data.clips, arguments.per_class or 1, arguments.seed)
    source = ExplainedClips(
        [store.ids[clip] for clip in clips], [store.numbers(int(clip)) for clip in clips],
        [store.class_names[store.labels[clip]] for clip in clips], [float(store.fps)] * len(clips), store.title,
    )  # fmt: skip
    return source, data, clips


def named_clips(store: ClipStore, words: str) -> np.ndarray:
    """Positions of the clips that ``ID,ID`` names.

    Raises:
        UserError: it names none, one that the store lacks, or one twice.
    """
    names = [word.strip() for word in words.split(",") if word.strip()]
    if not names:
        raise UserError(f"--clips {words!r} names no clip: write ids or positions with commas between them")
    clips = np.array([find_clip(store, name) for name in names])
    if twice := next((name for number, name in enumerate(names) if clips[number] in clips[:number]), None):
        raise UserError(f"--clips names clip {twice} twice: leave one of them out")
    return clips


def _of_files(files: Sequence[str], model: Model, arguments: Namespace) -> ExplainedClips:
    from mmcl.deploy.files import read_joints
    from mmcl.deploy.reading_flags import reading_of

    reading = reading_of(arguments, model.description.planar, model.description.columns)
    joints = [read_joints(Path(name), model.layout, reading) for name in files]
    count = len(files)
    return ExplainedClips([Path(name).stem for name in files], joints, [None] * count, [30.0] * count, "skeleton files")


def _own_store(saved: SavedModel) -> str | None:
    """The store that a model was trained on, where it is here."""
    own = saved.description.provenance.get("data")
    return str(own) if own is not None and Path(own).is_dir() else None


def _selection(saved: SavedModel, where: str, protocol: str | None) -> Selection:
    """A store's clips, by the protocol given, or the model's own where it is trained on that store."""
    from mmcl.evaluation.judging import select

    own = saved.description.provenance.get("protocol")
    if protocol is None and own is not None and saved.is_own(own, where):
        protocol = own
    return Selection(open_store(where)) if protocol is None else select(saved, where, protocol)


def per_class(store: ClipStore, clips: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Up to ``count`` random clips of each class among some clips, class by class."""
    order = np.random.default_rng(named_seed(seed, "clips to explain")).permutation(clips)
    labels = store.labels[order]
    return np.concatenate([order[labels == label][:count] for label in np.unique(labels)])


def _add_background(
    source: ExplainedClips, data: Selection, taken: np.ndarray, arguments: Namespace, model: Model
) -> None:
    store = data.store
    if store.layout.joints != model.layout.joints:
        raise UserError(
            f"{store.location} has joints of layout '{store.layout.name}', and the clips to explain those of "
            f"'{model.layout.name}': --background names another store, or still"
        )
    side = data.split.train if data.split is not None else np.arange(len(store))
    side = side[~np.isin(side, taken)]  # a clip that stands for nothing explains nothing of itself
    if not len(side):
        raise UserError(f"{store.location} has no clips beside those to explain: use --background still")
    chosen = np.random.default_rng(named_seed(arguments.seed, "background clips")).permutation(side)
    source.background = [store.numbers(int(clip)) for clip in chosen[: arguments.background_clips or BACKGROUND_CLIPS]]
    words = "of the training side" if data.split is not None else "chosen at random"
    source.background_words = f"{len(source.background)} clips of {store.title} {words}"


def gathered(clips: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Clips (M, T, V, C) as one batch (N, M, T, V, C), padded with zeros, and their lengths (N,)."""
    bodies, frames = (max(clip.shape[axis] for clip in clips) for axis in (0, 1))
    batch = np.zeros((len(clips), bodies, frames, *clips[0].shape[2:]), dtype=np.float32)
    for row, clip in zip(batch, clips, strict=True):
        row[: clip.shape[0], : clip.shape[1]] = np.nan_to_num(clip)
    return torch.from_numpy(batch), torch.tensor([clip.shape[1] for clip in clips])
