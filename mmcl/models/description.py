"""What a trained model is, as plain data: ``config.json`` of a bundle, ``model.json`` of a run folder.

Reading needs neither torch nor any training package. Both may come from strangers: what they may say is in
:mod:`mmcl.models.description_file`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mmcl.common.documents import read_json
from mmcl.common.errors import UserError
from mmcl.common.files import is_file
from mmcl.models.description_file import CONFIG, FORMAT, NamedOptions, Operation, check_file
from mmcl.skeletons.layout import Layout

WEIGHTS, CARD, VOCABULARY = "model.safetensors", "README.md", "vocabulary.safetensors"
EXPORTED = "model.pt2"
GRAPHS = {"fp32": "model.onnx", "fp16": "model.fp16.onnx", "int8": "model.int8.onnx"}  # precision -> file
FAMILIAR = "familiarity.safetensors"  # what training clips look like, for "none of these"
STEPS = "model.step.onnx"  # of a causal model: the graph that takes a stream's next frames
MOST_JOINTS = 1 << 24  # of a preprocessed clip: persons x frames x joints


@dataclass(frozen=True)
class Description:
    """Everything about a trained model but its tensors.

    Attributes:
        encoder: name and options of the network.
        class_names: K names in the order of the scores.
        layout: joints that the model takes.
        encoder_layout: joints that the encoder was built for.
        preprocess: fields of :class:`mmcl.skeletons.preprocess_options.PreprocessOptions`, as JSON has them.
        surgeries: what it went through since it was built, in order.
        counts: parameters of the encoder, of the text head, and multiply-accumulates, where they were counted.
        provenance: where the weights come from, for people and for reports: data set, protocol, task, and so on.
        record: what it learned from, see :class:`mmcl.models.record.Record`, as JSON; None where nothing is known.
        vocabulary: of the text head and the table of class texts, see :mod:`mmcl.models.vocabulary`; None without.
        onnx: precision -> facts of the graphs beside the weights.
        weights: false where a bundle was left with its graphs alone.
        rejection: when an answer is none of the classes, see :mod:`mmcl.models.rejection`; None where nothing says so.
    """

    encoder: NamedOptions
    class_names: list[str]
    layout: Layout
    encoder_layout: Layout
    preprocess: dict[str, Any]
    surgeries: tuple[Operation, ...] = ()
    counts: dict[str, int] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    record: dict[str, Any] | None = None
    vocabulary: dict[str, Any] | None = None
    onnx: dict[str, dict[str, Any]] = field(default_factory=dict)
    weights: bool = True
    rejection: dict[str, Any] | None = None

    @property
    def persons(self) -> int:
        """Bodies that the encoder takes."""
        return int(self.encoder.options.get("persons", 2))

    @property
    def window(self) -> int:
        """Frames that the encoder sees."""
        return int(self.preprocess["window"])

    @property
    def planar(self) -> bool:
        """Whether it was made for keypoints of pictures, which have no depth."""
        return self.preprocess.get("dimensions") == 2

    @property
    def columns(self) -> int:
        """Numbers of a joint that it takes: x, y, z, and with a stream of confidences 4."""
        return 4 if "confidence" in self.preprocess.get("streams", ()) else 3

    @property
    def unlearned(self) -> str:
        """What is to be known of its answers where no label has taught it any; empty otherwise."""
        if not self.provenance.get("untrained_classifier"):
            return ""
        return (
            "the classifier of this model was never trained: the classes that it names mean nothing. Its features are "
            "what `mmcl probe` judges, and `mmcl train … --start.checkpoint=MODEL` trains a classifier on them"
        )

    @property
    def input(self) -> str:
        """What the model takes and gives, in words."""
        where = "raw joint positions in metres"
        if self.preprocess.get("dimensions") == 2:
            where = "raw joint positions in halves of the picture's height (z is not looked at)"
        sure = ", each with its confidence" if self.columns == 4 else ""
        shape = f"(clips, persons, frames, {self.layout.joint_count}, {self.columns})"
        return (
            f"float32 array {shape}: {where}{sure}, joints in "
            f"the order of layout '{self.layout.name}'; any number of frames; up to {self.persons} person(s) are used, "
            "the first that are there; missing joints are zero or NaN, missing persons may be left out. "
            "Output: one score per class; softmax gives probabilities."
        )

    def to_json(self) -> dict[str, Any]:
        """The content of the file."""
        operations = [{"name": o.name, "options": o.options, "structure": o.structure} for o in self.surgeries]
        return {
            "format": FORMAT, "encoder": {"name": self.encoder.name, "options": self.encoder.options},
            "surgeries": operations, "class_names": self.class_names, "layout": self.layout.to_dict(),
            "encoder_layout": self.encoder_layout.to_dict(), "preprocess": self.preprocess, "input": self.input,
            "counts": self.counts, "provenance": self.provenance, "record": self.record,
            "vocabulary": self.vocabulary, "onnx": self.onnx, "weights": self.weights,
            "rejection": self.rejection,
        }  # fmt: skip

    def changed(self, **parts: Any) -> Description:
        """The same with other parts."""
        return replace(self, **parts)


def parse_description(content: Any, where: str) -> Description:
    """The description that a file holds; arguments and errors are those of :func:`check_file`."""
    file = check_file(content, where)
    return Description(
        encoder=file.encoder, class_names=file.class_names, layout=Layout.from_dict(file.layout, f"{where} layout"),
        encoder_layout=Layout.from_dict(file.encoder_layout, f"{where} encoder_layout"), preprocess=file.preprocess,
        surgeries=tuple(file.surgeries), counts=file.counts, provenance=file.provenance, record=file.record,
        vocabulary=file.vocabulary, onnx=file.onnx, weights=file.weights,
        rejection=file.rejection,
    )  # fmt: skip


def read_description(path: Path) -> Description:
    """Read and check a description file.

    Raises:
        UserError: it is missing, too large, no JSON, or no description.
    """
    return parse_description(read_json(path), str(path))


def graphs_in(folder: Path) -> dict[str, Path]:
    """Precision -> file of the ONNX graphs that a bundle holds."""
    return {precision: folder / name for precision, name in GRAPHS.items() if (folder / name).is_file()}


def is_bundle(folder: Path) -> bool:
    """Whether a folder holds a bundle's ``config.json``; other people's models have files of that name, too."""
    try:
        content = read_json(folder / CONFIG)
    except UserError:
        return False
    needed = {"format", "encoder", "layout", "preprocess", "class_names"}
    return isinstance(content, dict) and content.keys() >= needed


def read_bundle(folder: Path) -> Description:
    """Read and check ``config.json`` of a bundle.

    Raises:
        UserError: the folder is no bundle, or holds neither weights nor a graph.
    """
    if is_file(folder) and is_bundle(folder.parent):
        graph = next((name for name, file in GRAPHS.items() if file == folder.name), "")
        chosen = f"; `mmcl predict --backend {graph}` takes this graph" if graph else ""
        raise UserError(f"{folder} is a file of a bundle: name its folder, {folder.parent}{chosen}")
    if not is_file(folder / CONFIG) or not (is_file(folder / WEIGHTS) or graphs_in(folder)):
        raise UserError(
            f"{folder} is no bundle (needs {CONFIG} and {WEIGHTS}): make one of a run with `mmcl export RUN --out DIR`"
        )
    return read_description(folder / CONFIG)
