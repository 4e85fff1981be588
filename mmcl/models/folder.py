"""Models in folders: a bundle, a run, one checkpoint of a run, or a bundle that holds nothing but ONNX graphs.

Every verb names a model by such a folder and opens it here. A run folder says in ``model.json`` what it trains, so that
neither its clip store nor its configuration is needed to open it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmcl.common.documents import read_json
from mmcl.common.errors import UserError
from mmcl.common.files import absolute
from mmcl.common.limits import GIB, bounded_memory
from mmcl.data.prompts import fingerprint
from mmcl.encoders.base import Encoder
from mmcl.models.bundle import build_network, fill_encoder, load_bundle, read_tensors, source_layout
from mmcl.models.description import CONFIG, WEIGHTS, Description, read_bundle, read_description
from mmcl.models.hub import local
from mmcl.models.model import Model
from mmcl.models.vocabulary import Vocabulary, make_vocabulary
from mmcl.skeletons.layout import Layout
from mmcl.skeletons.preprocess import Preprocess

RUN_MODEL = "model.json"  # in a run folder: the description of what it trains, without facts of a checkpoint
LEARNED, PROBE, POSITION = "learned.safetensors", "probe.safetensors", "position.json"  # of a checkpoint
ENCODER = "encoder."  # prefix of the encoder's tensors in a checkpoint
TOLERANCE = 1e-4  # relative, of the probe's scores: another machine's rounding, and never another network


@dataclass(frozen=True)
class SavedModel:
    """A model in a folder, looked at and not loaded.

    Attributes:
        path: the bundle, or the run folder.
        description: of the model; of a run, its provenance is that of this checkpoint.
        checkpoint: folder of the checkpoint; None for a bundle.
    """

    path: Path
    description: Description
    checkpoint: Path | None

    @property
    def which(self) -> str:
        """Which checkpoint of a run: last or best."""
        return "last" if self.checkpoint is None else self.checkpoint.name.strip(".").removesuffix(".old")

    @property
    def graphs_only(self) -> bool:
        """Whether it is a bundle without weights."""
        return self.checkpoint is None and not (self.path / WEIGHTS).is_file()

    @property
    def weights(self) -> Path:
        """The file of its tensors.

        Raises:
            UserError: it holds graphs alone, which can be judged and used, and not trained or changed.
        """
        if self.graphs_only:
            raise UserError(
                f"{self.path} holds ONNX graphs and no {WEIGHTS}: it can be used and judged, and neither trained on "
                "nor changed; `mmcl export` without --drop-weights keeps the weights"
            )
        return self.path / WEIGHTS if self.checkpoint is None else self.checkpoint / LEARNED

    def encoder_tensors(self) -> tuple[dict[str, Tensor], int]:
        """The encoder's tensors by their names in it, and how many others the file holds.

        Raises:
            UserError: the file is damaged, or there are none.
        """
        tensors = read_tensors(self.weights)
        if self.checkpoint is None:
            return tensors, 0
        own = {key.removeprefix(ENCODER): tensor for key, tensor in tensors.items() if key.startswith(ENCODER)}
        return own, len(tensors) - len(own)

    @property
    def network(self) -> str:
        """Digest of the encoder's tensors, by which records and reports name it; of graphs alone, their record's."""
        from mmcl.models.record import tensors_digest  # late: needs the clip store, which inference does not

        if self.graphs_only:
            return str((self.description.record or {}).get("weights", ""))
        return tensors_digest(self.encoder_tensors()[0])

    def load(self, layout: str | Layout | None = None, device: str | torch.device = "cpu") -> Model:
        """Load the model in evaluation mode.

        Args:
            layout: of the joints that it will be shown, where that is not its own; they are converted by name.
            device: where to put it.

        Raises:
            UserError: damaged files, no weights, or what is built is not what was trained.
        """
        if self.checkpoint is None:
            assert self.weights is not None  # says what is wrong with a bundle of graphs alone
            return load_bundle(self.path, layout, device)
        description = self.description
        with bounded_memory(8 * self.weights.stat().st_size + GIB):
            encoder, options = build_network(description, str(self.path / RUN_MODEL))
        fill_encoder(encoder, self.encoder_tensors()[0], self.weights)
        own = Preprocess(description.layout, description.encoder_layout, encoder.options.persons, options)
        check_probe(encoder, own, self.checkpoint)
        source = source_layout(description, layout)
        preprocess = Preprocess(source, description.encoder_layout, encoder.options.persons, options)
        vocabulary = self._vocabulary(encoder)
        return Model(description, encoder, preprocess, vocabulary, self.path).to(device)

    def _vocabulary(self, encoder: Encoder) -> Vocabulary | None:
        facts = self.description.vocabulary
        if facts is None:
            return None
        tensors = read_tensors(self.weights)
        if facts.get("format") == 1:
            from mmcl.models.old_runs import renamed_text_head

            tensors = renamed_text_head(tensors, facts["head"]["options"]["learned"])
        return make_vocabulary(facts, tensors, encoder.feature_width, str(self.weights))

    def report_folder(self, name: str, content: Sequence[str] = ()) -> Path:
        """Where a report goes by default: into the run folder; to ``reports/`` for a bundle, which stays as it is.

        Args:
            name: what is judged, in a word.
            content: what else tells this report from others of that name: a few digits stand for it, and for the
                bundle's own folder, since others may be called the same.
        """
        if self.checkpoint is None:
            whole = absolute(self.path)
            return Path("reports") / f"{whole.name}-{name}-{fingerprint([str(whole), *content])[:6]}"
        which = "" if self.which == "last" else f"-{self.which}"
        return self.path / (f"report-{name}{which}" + (f"-{fingerprint(content)[:6]}" if content else ""))

    def is_own(self, protocol: str, data: str) -> bool:
        """Whether that is the protocol and the store that the run was trained by."""
        own = self.description.provenance
        path = own.get("data")
        return path is not None and protocol == own.get("protocol") and absolute(data) == absolute(path)


def find_model(path: str | Path, which: str = "last") -> SavedModel:
    """Recognise a bundle, a run folder, or one checkpoint of a run, and read what it is.

    Args:
        path: the folder, or ``hf://user/name`` for a bundle on the hub.
        which: checkpoint of a run, last or best; where ``path`` is a checkpoint, that one counts.

    Raises:
        UserError: none of the three, or a damaged one.
    """
    path = local(path)
    if (path / CONFIG).is_file():
        return SavedModel(path, read_bundle(path), None)
    folder, which = find_run(path, which)
    checkpoint = find_checkpoint(folder / "checkpoints", which)
    if (folder / RUN_MODEL).is_file():
        description = read_description(folder / RUN_MODEL)
    else:
        from mmcl.models.old_runs import describe_old_run  # needs the clip store, which needs more than inference does

        description = describe_old_run(folder, checkpoint)
    provenance = {**description.provenance, **_progress(folder, checkpoint, description)}
    return SavedModel(folder, description.changed(provenance=provenance), checkpoint)


def open_model(
    path: str | Path, which: str = "last", layout: str | Layout | None = None, device: str | torch.device = "cpu"
) -> Model:
    """Open a model for use: a bundle, a run folder, or one checkpoint of a run.

    A bundle that holds ONNX graphs alone gives a :class:`mmcl.models.graph_model.GraphModel`, which has scores and
    neither features nor gradients.

    Args:
        path: the folder.
        which: checkpoint of a run, last or best.
        layout: of the joints that it will be shown, where that is not its own: a name, a .yaml file, or a Layout.
        device: where to put it.

    Raises:
        UserError: no model there, damaged files, or joints that cannot be converted.
    """
    saved = find_model(path, which)
    if saved.graphs_only:
        from mmcl.models.graph_model import GraphModel

        return GraphModel(saved.path, saved.description, layout)  # type: ignore[return-value]
    return saved.load(layout, device)


def find_run(path: Path, which: str = "last") -> tuple[Path, str]:
    """The run folder, and the name of the checkpoint, that a run folder or one of its checkpoints stands for.

    Raises:
        UserError: it is neither.
    """
    if (path / LEARNED).is_file():
        path, which = path.parent.parent, path.name
    if not (path / "config.yaml").is_file():
        raise UserError(f"{path} is neither a bundle (config.json) nor a run folder (config.yaml)")
    return path, which


def find_checkpoint(folder: Path, name: str = "last") -> Path:
    """The folder of one checkpoint of a run.

    Args:
        folder: ``RUN/checkpoints``.
        name: ``last`` or ``best``.

    Raises:
        UserError: it is not there.
    """
    path = folder / name
    if not path.exists() and (folder / f".{name}.old").is_dir():  # killed between two renames: the older one is whole
        path = folder / f".{name}.old"
    if not (path / LEARNED).is_file():
        raise UserError(
            f"no checkpoint at {path}: has the run saved one? (give the run folder, see `mmcl train --help`)"
        )
    return path


def _progress(folder: Path, checkpoint: Path, description: Description) -> dict[str, Any]:
    """What a checkpoint adds to the provenance of its run: where it is, how it was chosen, whether the run is done."""
    done = description.provenance
    try:
        position = read_json(checkpoint / POSITION)
        epochs = int(position.get("epochs", position.get("epoch")))  # of the run; before there were stages, of the run
    except (UserError, ValueError, AttributeError, TypeError, OverflowError) as error:
        raise UserError(f"{checkpoint / POSITION} is damaged: {error}") from error
    finished, name = (folder / "summary.json").is_file(), checkpoint.name.strip(".").removesuffix(".old")
    complete = bool(position.get("complete", finished))
    if name == "best":
        selection = f"best on validation clips {done.get('validation') or {}}"
    elif name != "last":  # a stage's own, which is as it should be once the run has gone on to its end
        selection, complete = f"kept after stage {name} (epoch {epochs})", finished
    else:
        selection = "last epoch" if complete else f"epoch {epochs}: the run is not complete"
    return {"checkpoint": str(checkpoint), "selection": selection, "complete": complete}


def check_probe(encoder: Encoder, preprocess: Preprocess, checkpoint: Path) -> None:
    """Whether a network gives the scores that were recorded with its checkpoint: one forward pass of a few clips.

    Weights that fit are not enough: a description that was edited, or code that changed since, makes another network of
    them.

    Args:
        encoder: filled, in evaluation mode, on the CPU, as it was when the scores were recorded.
        preprocess: from the joints of the run's store.
        checkpoint: folder of the checkpoint.

    Raises:
        UserError: it gives others, or the record is damaged.
    """
    probe = read_tensors(checkpoint / PROBE)
    if missing := {"joints", "lengths", "scores"} - probe.keys():
        raise UserError(f"{checkpoint / PROBE} is damaged: it lacks {', '.join(sorted(missing))}")
    joints, lengths, expected = probe["joints"], probe["lengths"], probe["scores"].float()
    if not _are_clips(joints, lengths):
        raise UserError(f"{checkpoint / PROBE} is damaged: it holds no clips with their lengths")
    words = "the joints recorded with it are others"
    if joints.shape[3] == preprocess.source.joint_count:
        with torch.no_grad():
            found = preprocess.averaged(encoder, joints, lengths)
        scale = max(1.0, float(expected.nan_to_num().abs().amax())) if expected.numel() else 1.0
        if found.shape == expected.shape and torch.allclose(found, expected, rtol=0, atol=TOLERANCE * scale):
            return
        words = "the scores recorded with it differ"
        if found.shape == expected.shape:
            words += f" by {float((found - expected).abs().max()):.1g}"
    raise UserError(
        f"{checkpoint}: the network is not what it was when it was trained ({words}): {RUN_MODEL} or mmcl has changed "
        "since; put it back"
    )


def _are_clips(joints: Tensor, lengths: Tensor) -> bool:
    """Whether tensors of a stranger are clips (N, M, T, V, C) and whole numbers (N,)."""
    clips = joints.dim() == 5 and joints.numel() > 0 and joints.is_floating_point() and 2 <= joints.shape[4] <= 4
    whole = not (lengths.is_floating_point() or lengths.is_complex())
    return clips and whole and lengths.shape == (len(joints),)
