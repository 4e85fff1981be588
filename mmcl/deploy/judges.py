"""What judges for ``mmcl predict``: a bundle on torch or as a graph, among its classes or those that are asked for."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from mmcl.common.errors import UserError
from mmcl.common.printing import complain
from mmcl.deploy.reading_flags import reading_of

if TYPE_CHECKING:
    from torch import Tensor

    from mmcl.models.rejection import Rejection
    from mmcl.models.vocabulary import Vocabulary


def judge_of(arguments: argparse.Namespace) -> tuple[Any, list[str] | None]:
    """The predictor that was asked for, and the classes that it is to judge alone, if any."""
    from mmcl.models.description import read_bundle

    predictor = open_predictor(arguments)
    only: list[str] | None = None
    if arguments.classes is not None:
        only, rows = open_classes(predictor.vocabulary, arguments.classes)
        predictor.judge_only(only, rows)
    elif unlearned := read_bundle(arguments.bundle).unlearned:
        complain("note", unlearned)
    return predictor, only


def open_predictor(arguments: argparse.Namespace) -> Any:
    """The bundle on what shall compute; torch is imported only if that is torch.

    Raises:
        UserError: what was asked for is not to be had.
    """
    from mmcl.deploy.onnx_predictor import OnnxPredictor, choose_graph

    backend = arguments.backend
    if arguments.classes is not None or arguments.device is not None or arguments.explain:
        if backend not in ("auto", "torch"):
            raise UserError(f"--classes, --device and --explain need torch: leave out --backend {backend}")
        backend = "torch"
    reading = reading_of(arguments)
    graph = choose_graph(arguments.bundle, backend, arguments.files, arguments.layout)
    if graph is not None:
        return OnnxPredictor(arguments.bundle, graph, arguments.layout, reading)
    try:
        from mmcl.deploy.predictor import Predictor
    except ModuleNotFoundError as error:
        raise UserError(
            f"this needs {error.name}, not installed here: `pip install torch`, or a bundle with an ONNX graph "
            "(`mmcl export --onnx`) and files in its own layout"
        ) from error
    if arguments.explain:
        from mmcl.attributions.explaining import require_weights
        from mmcl.models.folder import find_model

        require_weights(find_model(arguments.bundle))
    return Predictor(arguments.bundle, arguments.layout, arguments.device or "cpu", reading)


def open_classes(vocabulary: Vocabulary, classes: str) -> tuple[list[str], Tensor]:
    """Names and (n, D) texts of the classes asked for: from the bundle's table, or by its text model where it is here.

    Raises:
        UserError: the table lacks one, and its text cannot be computed here.
    """
    import torch

    from mmcl.deploy.texts import class_texts, named_classes

    asked = named_classes(classes, vocabulary)
    texts = class_texts(asked, vocabulary, torch.device("cpu"))
    if texts.why:
        complain("note", f"{texts.why}: computed by the text model")
    return list(asked.names), texts.rows


def rejection_of(arguments: argparse.Namespace) -> Rejection | None:
    """When an answer is none of the classes: by the bundle, unless classes or answers were asked for."""
    from mmcl.models.description import read_bundle
    from mmcl.models.rejection import read_rejection

    if arguments.no_reject or arguments.classes is not None:
        return None
    return read_rejection(read_bundle(arguments.bundle).rejection, str(arguments.bundle))
