"""Models in folders: a bundle, a run, one checkpoint of a run, or a bundle that holds nothing but ONNX graphs.

Every verb names a model by such a folder and opens it here. A run folder says in ``model.json`` what it trains, so that
neither its clip store nor its configuration is needed to open it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mmcl.common.device import pick_device
from mmcl.common.errors import UserError
from mmcl.common.files import absolute, is_file
from mmcl.common.limits import GIB, bounded_memory
from mmcl.data.class_texts import fingerprint
from mmcl.encoders.base import Encoder
from mmcl.models.bundle import build_network, fill_encoder, load_bundle, read_tensors, source_layout
from mmcl.models.description import WEIGHTS, Description, read_bundle, read_description
from mmcl.models.description_file import CONFIG
from mmcl.models.hub import local
from mmcl.models.model import Model
from mmcl.models.recorded_scores import check_probe
from mmcl.models.run_checkpoints import ENCODER, LEARNED, RUN_MODEL, find_checkpoint, find_run, progress
from mmcl.models.vocabulary import Vocabulary
from mmcl.models.vocabulary_file import make_vocabulary
from mmcl.skeletons.layout import Layout
from mmcl.skeletons.preprocess import Preprocess


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


def find_model(path: str | Path, which: str | None = None) -> SavedModel:
    """Recognise a bundle, a run folder, or one checkpoint of a run, and read what it is.

    Args:
        path: the folder, or ``hf://user/name`` for a bundle on the hub.
        which: checkpoint of a run, last (where it is None) or best; a bundle or a checkpoint says it itself.

    Raises:
        UserError: none of the three, a damaged one, or ``which`` is something else than ``path``.
    """
    path, wanted = local(path), which
    if is_file(path / CONFIG):
        if wanted is not None:
            raise UserError(
                f"--which {wanted} is of a run, and {path} is a bundle, which holds one network: leave it out"
            )
        return SavedModel(path, read_bundle(path), None)
    folder, which = find_run(path, wanted or "last")
    if wanted not in (None, which):
        raise UserError(f"--which {wanted} is another checkpoint than {path}: leave it out, or give the run {folder}")
    checkpoint = find_checkpoint(folder / "checkpoints", which)
    if is_file(folder / RUN_MODEL):
        description = read_description(folder / RUN_MODEL)
    else:
        from mmcl.models.old_runs import describe_old_run  # needs the clip store, which needs more than inference does

        description = describe_old_run(folder, checkpoint)
    provenance = {**description.provenance, **progress(folder, checkpoint, description)}
    return SavedModel(folder, description.changed(provenance=provenance), checkpoint)


def open_model(
    path: str | Path, which: str | None = None, layout: str | Layout | None = None, device: str | torch.device = "cpu"
) -> Model:
    """Open a model for use: a bundle, a run folder, or one checkpoint of a run.

    A bundle that holds ONNX graphs alone gives a :class:`mmcl.models.graph_model.GraphModel`, which has scores and
    neither features nor gradients.

    Args:
        path: the folder.
        which: checkpoint of a run, last (where it is None) or best.
        layout: of the joints that it will be shown, where that is not its own: a name, a .yaml file, or a Layout.
        device: where to put it.

    Raises:
        UserError: no model there, damaged files, joints that cannot be converted, or a device that is not to be had.
    """
    saved = find_model(path, which)
    if saved.graphs_only:
        from mmcl.models.graph_model import GraphModel

        return GraphModel(saved.path, saved.description, layout)  # type: ignore[return-value]
    return saved.load(layout, pick_device(None if device is None else str(device)))
