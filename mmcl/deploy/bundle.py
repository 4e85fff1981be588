"""A bundle: the skeleton branch and everything needed to use it, in one folder.

``model.safetensors`` (exactly the encoder's tensors), ``config.json`` (encoder, layouts, preprocessing, class names,
input in words, counts, provenance), ``README.md`` (model card), and where it has an open vocabulary,
``vocabulary.safetensors``. Loads with torch, safetensors and numpy alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mmcl.common.errors import UserError
from mmcl.deploy.config import CARD, CONFIG, FORMAT, WEIGHTS, graphs_in, read_config
from mmcl.deploy.vocabulary import Vocabulary, read_vocabulary, require_vocabulary, write_vocabulary
from mmcl.encoders.base import Encoder, build_encoder
from mmcl.skeletons.layout import Layout, load_layout
from mmcl.skeletons.preprocess import Preprocess, PreprocessOptions


class Bundle(nn.Module):
    """Raw joints in, class scores out.

    Attributes:
        encoder: the bare network on preprocessed (N, M, T, V, C).
        preprocess: layout conversion, centring, window, stream.
        config: content of ``config.json``.
        class_names: K names in the order of the scores.
        layout: layout of the raw joints.
        vocabulary: the way to classes that were never trained, by text; None where it was trained without.
    """

    def __init__(
        self, encoder: Encoder, preprocess: Preprocess, config: dict[str, Any], vocabulary: Vocabulary | None = None
    ) -> None:
        super().__init__()
        self.encoder, self.preprocess, self.config, self.vocabulary = encoder, preprocess, config, vocabulary
        self.class_names: list[str] = config["class_names"]
        self.layout: Layout = preprocess.source
        self._lean: tuple[list[tuple[int, int]], nn.Module] | None = None
        self.eval()

    def forward(self, joints: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Class scores of raw clips: (N, K), unnormalised. Arguments as in :meth:`features`."""
        return self.encoder.head(self.features(joints, lengths))

    def features(self, joints: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Features of raw clips, which the head turns into scores.

        Args:
            joints: (N, M, T, V, C) float32 joints in the bundle's layout, metres; any M and T.
            lengths: (N,) real frames of each clip where shorter ones are padded at the end; None where all have T.

        Returns:
            (N, Df), not normalised.

        Raises:
            UserError: the joints have another shape than the layout.
        """
        if joints.dim() != 5 or joints.shape[3] != self.layout.joint_count:
            raise UserError(
                f"this model takes joints (clips, persons, frames, {self.layout.joint_count}, 3) of layout "
                f"'{self.layout.name}', not {tuple(joints.shape)}; another layout can be named when loading"
            )
        x = self.preprocess(joints, lengths)
        if self.training or torch.is_grad_enabled() or torch.compiler.is_compiling():
            return self.encoder.features(x)
        found: Tensor = self._lean_encoder().features(x)  # type: ignore[operator]
        return found

    def _lean_encoder(self) -> nn.Module:
        """The encoder with its constants folded, made anew where its tensors are other ones or have changed."""
        tensors = [*self.encoder.parameters(), *self.encoder.buffers()]
        state = [(each.data_ptr(), 0 if each.is_inference() else each._version) for each in tensors]
        if self._lean is None or self._lean[0] != state:
            self._lean = state, self.encoder.lean(self.preprocess.options.window)
        return self._lean[1]

    def open_scores(self, joints: Tensor, lengths: Tensor | None, rows: Tensor) -> Tensor:
        """Scores of raw clips for classes given by text, trained or not.

        Args:
            joints: (N, M, T, V, C), as in :meth:`features`.
            lengths: (N,) or None, as in :meth:`features`.
            rows: (n, D) embeddings of the classes' texts: ``vocabulary.rows_of(["wave", "throw a ball"])``.

        Returns:
            (N, n) cosine / temperature; softmax gives probabilities among these classes.

        Raises:
            UserError: the bundle has no vocabulary.
        """
        vocabulary = require_vocabulary(self.vocabulary, "this model")
        return vocabulary.scores(self.features(joints, lengths), rows)


def write_bundle(
    folder: Path, encoder: Encoder, config: Mapping[str, Any], vocabulary: Vocabulary | None = None
) -> None:
    """Write the files of a bundle into an existing (temporary) folder.

    Args:
        folder: where.
        encoder: whose weights are written.
        config: from :func:`bundle_config`, given the same vocabulary.
        vocabulary: projection and table of class texts, where the run has learned the former.
    """
    if vocabulary is not None:
        write_vocabulary(folder, vocabulary)
    tensors = {key: tensor.detach().cpu().contiguous().clone() for key, tensor in encoder.state_dict().items()}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / WEIGHTS).chmod(0o644)  # safetensors makes it readable by its owner only
    write_facts(folder, config)


def write_facts(folder: Path, config: Mapping[str, Any]) -> None:
    """Write ``config.json`` and the model card."""
    from mmcl.deploy.card import model_card

    (folder / CONFIG).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / CARD).write_text(model_card(config), encoding="utf-8")


def bundle_config(
    encoder_name: str, encoder_options: Mapping[str, Any], preprocess: Preprocess, class_names: list[str],
    counts: Mapping[str, int], provenance: Mapping[str, Any], vocabulary: Vocabulary | None = None,
) -> dict[str, Any]:  # fmt: skip
    """The content of ``config.json``."""
    source, options = preprocess.source, preprocess.options
    config = {
        "format": FORMAT,
        "encoder": {"name": encoder_name, "options": dict(encoder_options)},
        "class_names": list(class_names),
        "layout": source.to_dict(),
        "encoder_layout": preprocess.target.to_dict(),
        "preprocess": asdict(options),
        "input": (
            f"float32 array (clips, persons, frames, {source.joint_count}, 3): raw joint positions in metres, joints "
            f"in the order of layout '{source.name}'; any number of frames; up to {preprocess.persons} person(s) are "
            "used, the first that are there; missing ones may be left out or zero. Output: one score per class; "
            "softmax gives probabilities."
        ),
        "counts": dict(counts),
        "provenance": dict(provenance),
    }  # fmt: skip
    return config if vocabulary is None else {**config, "vocabulary": vocabulary.facts}


def load_bundle(folder: str | Path, layout: str | Layout | None = None, device: str = "cpu") -> Bundle:
    """Load a bundle in evaluation mode.

    Args:
        folder: made by ``mmcl export`` or ``mmcl import-checkpoint``.
        layout: layout of the joints you will feed, where it differs from the bundle's own: joints are then converted
            by name inside the model. A name, a .yaml file, or a Layout.
        device: where to put it.

    Raises:
        UserError: no bundle, damaged files, or joints that cannot be converted.
    """
    folder = Path(folder)
    config = read_config(folder)
    if not (folder / WEIGHTS).is_file():
        raise UserError(
            f"{folder} holds no {WEIGHTS}, only {', '.join(path.name for path in graphs_in(folder).values())} for "
            "onnxruntime: `mmcl predict --backend onnx` runs it; without --drop-weights, `mmcl export` writes both"
        )
    try:
        target = Layout.from_dict(config["encoder_layout"], f"{folder / CONFIG} encoder_layout")
        source = Layout.from_dict(config["layout"], f"{folder / CONFIG} layout")
        options = PreprocessOptions.from_dict(config["preprocess"], f"{folder / CONFIG} preprocess")
        encoder = build_encoder(
            config["encoder"]["name"], target, len(config["class_names"]), config["encoder"]["options"]
        )
        encoder.load_state_dict(load_file(folder / WEIGHTS))
    except (KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise UserError(f"{folder} is damaged or of another version of mmcl: {error}") from error
    if layout is not None:
        source = layout if isinstance(layout, Layout) else load_layout(layout)
    vocabulary = read_vocabulary(folder, config.get("vocabulary"), encoder.feature_width)
    persons = config["encoder"]["options"]["persons"]
    return Bundle(encoder, Preprocess(source, target, persons, options), config, vocabulary).to(torch.device(device))
