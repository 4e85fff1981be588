"""A bundle as a folder of static files that a browser runs by itself."""

from __future__ import annotations

import json
import shutil
from importlib.resources import files
from pathlib import Path
from typing import Any

from mmcl.common.errors import UserError
from mmcl.common.files import absolute, atomic_folder, write_json
from mmcl.models.description import Description, graphs_in, read_bundle
from mmcl.models.rejection import FAMILIARITY, PROBABILITY, Rejection, read_rejection
from mmcl.models.session import open_checked_session
from mmcl.page.skeleton import skeleton_facts
from mmcl.page.vendor import PACKAGES, vendored
from mmcl.pose.weights import find_weights
from mmcl.skeletons.layout import Layout, load_layout

FACTS, GRAPH, FILM_GRAPH, WEIGHTS = "page.json", "model.onnx", "film.onnx", "pose.task"
FILM_LAYOUT = "mediapipe_33"


def is_page(folder: Path) -> bool:
    """Whether a folder holds such a page."""
    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(facts, dict) and {"class_names", "own", "film"} <= facts.keys()


def write_page(bundle: Path, out: Path, weights: str | None = None, name: str | None = None) -> dict[str, Any]:
    """Write the page of a bundle.

    Args:
        bundle: with a graph in single precision, which is checked as `mmcl predict` does, or with weights of which one
            is made.
        out: folder to write; an older page there is replaced.
        weights: the ``.task`` file for videos and the camera; None takes the one that ``mmcl pose`` would use.
        name: what the page calls the bundle; None: its folder's name.

    Returns:
        The content of ``page.json``; ``without_film`` says why there are no videos, where there are none.

    Raises:
        UserError: no such bundle, a graph that is not its own, no graph can be made, what the page needs from npm
            cannot be fetched, or videos were asked for by ``weights`` and cannot be had.
    """
    description, packages = read_bundle(bundle), vendored()
    rejection = read_rejection(description.rejection, str(bundle))
    facts: dict[str, Any] = {
        "name": name or absolute(bundle).name, "class_names": description.class_names,
        "own": _facts(GRAPH, description.layout, description.columns),
        "score": PROBABILITY if rejection is None else rejection.score,
        "threshold": 0.0 if rejection is None else rejection.threshold, "film": None,
        "packages": {package.name: package.version for package in PACKAGES},
    }  # fmt: skip
    with atomic_folder(out, is_page) as folder:
        for asset in [*(part for room in ("assets", "parts") for part in files("mmcl.page").joinpath(room).iterdir())]:
            (folder / asset.name).write_bytes(asset.read_bytes())
        shutil.copytree(packages, folder / "vendor")
        graph = graphs_in(bundle).get("fp32")
        if graph is not None:
            _check_graph(graph, description, rejection)
            shutil.copyfile(graph, folder / GRAPH)
        else:
            _make_graph(bundle, None, folder / GRAPH)
        try:
            facts["film"] = _add_film(bundle, description, folder, weights)
        except UserError as error:
            if weights is not None:
                raise
            facts["without_film"] = str(error)
        write_json(folder / FACTS, facts)
    return facts


def _check_graph(graph: Path, description: Description, rejection: Rejection | None) -> None:
    """Whether `mmcl predict` would compute with a graph: a page must not answer where the command refuses to.

    Raises:
        UserError: onnxruntime is missing, or the graph is damaged, another network's, or lacks the familiarity by which
            the bundle rejects.
    """
    outputs = {end.name for end in open_checked_session(graph, description).get_outputs()}
    if rejection is not None and rejection.score == FAMILIARITY and "familiarity" not in outputs:
        raise UserError(f"{graph} does not give the familiarity by which the bundle rejects: export it again")


def _add_film(bundle: Path, own: Description, folder: Path, weights: str | None) -> dict[str, Any]:
    """Put what videos need into a page's folder: pose weights, and a graph for the joints that they give.

    Raises:
        UserError: the model takes joints of a picture, there are no pose weights, or no graph can be made.
    """
    if own.planar:
        raise UserError(
            "the page finds joints in space, and this model takes joints of a picture: `mmcl predict` takes its videos"
        )
    source, film = find_weights(weights), load_layout(FILM_LAYOUT)
    same = own.layout.joints == film.joints  # whatever the layout is called: a name says nothing of the order
    columns = own.columns if same else _make_graph(bundle, FILM_LAYOUT, folder / FILM_GRAPH)
    shutil.copyfile(source, folder / WEIGHTS)
    return _facts(GRAPH if same else FILM_GRAPH, film, columns)


def _make_graph(bundle: Path, layout: str | None, file: Path) -> int:
    """Write a graph in single precision of a bundle's weights; returns the numbers it takes of each joint."""
    from mmcl.deploy.onnx import export_graph, finish, require_onnx
    from mmcl.models.bundle import load_bundle

    require_onnx()
    model = load_bundle(bundle, layout)
    proto = finish(export_graph(model), model, {"precision": "fp32"})
    file.write_bytes(proto.SerializeToString())
    return int(model.preprocess.columns)


def _facts(graph: str, layout: Layout, columns: int) -> dict[str, Any]:
    return {
        "graph": graph, "layout": layout.name, "joints": layout.joint_count, "columns": columns,
        **skeleton_facts(layout),
    }  # fmt: skip
