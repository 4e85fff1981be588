"""A bundle: the skeleton branch and everything needed to use it, in one folder.

``model.safetensors`` (exactly the encoder's tensors), ``config.json`` (encoder, layouts, preprocessing, class names,
input in words, counts, provenance), ``README.md`` (model card). Loads with torch, safetensors and numpy alone.
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

from mmcl.encoders.base import Encoder, build_encoder
from mmcl.errors import UserError
from mmcl.skeletons.layout import Layout, load_layout
from mmcl.skeletons.preprocess import Preprocess, PreprocessOptions

FORMAT = 1
WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"


class Bundle(nn.Module):
    """Raw joints in, class scores out.

    Attributes:
        encoder: the bare network on preprocessed (N, M, T, V, C).
        preprocess: layout conversion, centring, window, stream.
        config: content of ``config.json``.
        class_names: K names in the order of the scores.
        layout: layout of the raw joints.
    """

    def __init__(self, encoder: Encoder, preprocess: Preprocess, config: dict[str, Any]) -> None:
        super().__init__()
        self.encoder, self.preprocess, self.config = encoder, preprocess, config
        self.class_names: list[str] = config["class_names"]
        self.layout: Layout = preprocess.source
        self.eval()

    def forward(self, joints: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Class scores of raw clips.

        Args:
            joints: (N, M, T, V, C) float32 joints in the bundle's layout, metres; any M and T.
            lengths: (N,) real frames of each clip where shorter ones are padded at the end; None where all have T.

        Returns:
            (N, K) unnormalised scores.

        Raises:
            UserError: the joints have another shape than the layout.
        """
        if joints.dim() != 5 or joints.shape[3] != self.layout.joint_count:
            raise UserError(
                f"this model takes joints (clips, persons, frames, {self.layout.joint_count}, 3) of layout "
                f"'{self.layout.name}', not {tuple(joints.shape)}; another layout can be named when loading"
            )
        return self.encoder(self.preprocess(joints, lengths))


def write_bundle(folder: Path, encoder: Encoder, config: Mapping[str, Any]) -> None:
    """Write the files of a bundle into an existing (temporary) folder."""
    from mmcl.deploy.card import model_card

    tensors = {key: tensor.detach().cpu().contiguous().clone() for key, tensor in encoder.state_dict().items()}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / WEIGHTS).chmod(0o644)  # safetensors makes it readable by its owner only
    (folder / CONFIG).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / CARD).write_text(model_card(config), encoding="utf-8")


def bundle_config(
    encoder_name: str, encoder_options: Mapping[str, Any], preprocess: Preprocess, class_names: list[str],
    counts: Mapping[str, int], provenance: Mapping[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """The content of ``config.json``."""
    source, options = preprocess.source, preprocess.options
    return {
        "format": FORMAT,
        "encoder": {"name": encoder_name, "options": dict(encoder_options)},
        "class_names": list(class_names),
        "layout": source.to_dict(),
        "encoder_layout": preprocess.target.to_dict(),
        "preprocess": asdict(options),
        "input": (
            f"float32 array (clips, persons, frames, {source.joint_count}, 3): raw joint positions in metres, joints "
            f"in the order of layout '{source.name}'; any number of frames; up to {preprocess.persons} person(s) are "
            "used, in the order given; missing ones may be left out or zero. Output: one score per class; softmax "
            "gives probabilities."
        ),
        "counts": dict(counts),
        "provenance": dict(provenance),
    }  # fmt: skip


def read_config(folder: Path) -> dict[str, Any]:
    """Read and check ``config.json`` of a bundle.

    Raises:
        UserError: the folder is no bundle.
    """
    path = folder / CONFIG
    if not path.is_file() or not (folder / WEIGHTS).is_file():
        raise UserError(
            f"{folder} is no bundle (needs {CONFIG} and {WEIGHTS}): make one with `mmcl export --run RUN --out DIR`"
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        version = config["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not a bundle's config.json ({error})") from error
    if version != FORMAT:
        raise UserError(f"{path}: bundle format {version}, this mmcl reads {FORMAT}")
    return config


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
    try:
        target = Layout.from_dict(config["encoder_layout"], f"{folder / CONFIG} encoder_layout")
        source = Layout.from_dict(config["layout"], f"{folder / CONFIG} layout")
        options = PreprocessOptions(**config["preprocess"])
        encoder = build_encoder(
            config["encoder"]["name"], target, len(config["class_names"]), config["encoder"]["options"]
        )
        encoder.load_state_dict(load_file(folder / WEIGHTS))
    except (KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise UserError(f"{folder} is damaged or of another version of mmcl: {error}") from error
    if layout is not None:
        source = layout if isinstance(layout, Layout) else load_layout(layout)
    persons = config["encoder"]["options"]["persons"]
    return Bundle(encoder, Preprocess(source, target, persons, options), config).to(torch.device(device))
