"""Sessions of onnxruntime; imports neither torch nor onnx."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmcl.common.errors import UserError
from mmcl.common.limits import GIB, bounded_memory
from mmcl.models.description import Description
from mmcl.models.description_file import CONFIG, current_preprocess
from mmcl.models.graph_file import check_graph_file
from mmcl.models.time_limit import ended_after
from mmcl.skeletons.layout import Layout

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

LONGEST = 60.0  # seconds that a graph may take for a clip: a thousand times what the slowest of ours does
SILENT = 4  # of onnxruntime's log: what fails is raised, too, and said in one line


def open_session(
    model: Path | bytes, threads: int = 0, profile: str | None = None, settings: Mapping[str, str] | None = None
) -> InferenceSession:
    """A session on the CPU.

    Args:
        model: the file, or what it holds.
        threads: of its own; 0 leaves the number to onnxruntime.
        profile: how the file's name begins in which the session writes down what it spends its time on.
        settings: entries of onnxruntime's session configuration.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, profile
    # Threads that turn in circles while they wait for work, onnxruntime's default, are a sixth faster with two threads
    # on two idle processors, half as fast where somebody else computes, and slow down whatever comes after them.
    for key, value in {"session.intra_op.allow_spinning": "0", **(settings or {})}.items():
        options.add_session_config_entry(key, value)
    options.log_severity_level = SILENT
    return onnxruntime.InferenceSession(
        str(model) if isinstance(model, Path) else model, options, providers=["CPUExecutionProvider"]
    )


def open_checked_session(
    graph: Path, description: Description, steps: bool = False, threads: int = 0
) -> InferenceSession:
    """A session on one of a bundle's graphs.

    Args:
        graph: its file.
        description: of the bundle.
        steps: it is the graph for streams, which takes frames of bodies, not clips.
        threads: as of :func:`open_session`.

    Raises:
        UserError: onnxruntime is missing, or the graph is damaged or not that of the bundle.
    """
    check_graph_file(graph)
    try:
        with bounded_memory(4 * graph.stat().st_size + 2 * GIB):
            session = open_session(graph, threads)
    except ModuleNotFoundError as error:
        raise UserError('this needs onnxruntime, not installed here: run `pip install "mmcl[onnx]"`') from error
    except Exception as error:  # onnxruntime has kinds of its own, which are no public names
        raise UserError(f"{graph} is damaged or needs another onnxruntime: {_first_line(error)}") from error
    try:
        _check_graph(session.get_modelmeta().custom_metadata_map, description, graph)
        _check_ends(session, description, graph, steps)
    except UnicodeDecodeError as error:  # names and metadata are whatever bytes the file holds
        raise UserError(f"{graph} is damaged: it holds a text that is not UTF-8; export it again") from error
    return session


def run_graph(session: InferenceSession, outputs: Sequence[str], joints: np.ndarray, graph: Path) -> list[np.ndarray]:
    """Outputs of a bundle's graph for clips (N, M, T, V, C): (N, K) each, familiarity (N,).

    Raises:
        UserError: the graph fails, takes far too long, or gives something of another shape.
    """
    from onnxruntime import RunOptions

    options, limit = RunOptions(), LONGEST * max(1, len(joints))
    options.log_severity_level = SILENT
    try:
        with ended_after(limit, options):
            found = [np.asarray(each) for each in session.run(list(outputs), {"joints": joints}, options)]
    except Exception as error:  # as above
        if options.terminate:
            raise UserError(
                f"{graph} was ended after {limit:g} s with {len(joints)} clips: it takes too long"
            ) from error
        raise UserError(f"{graph} fails: {_first_line(error)}") from error
    for name, each in zip(outputs, found, strict=True):
        if each.ndim != (1 if name == "familiarity" else 2) or len(each) != len(joints):
            raise UserError(f"{graph} gives {each.shape} for {len(joints)} clips: it is not the graph of a bundle")
    return found


def _check_ends(session: InferenceSession, description: Description, graph: Path, steps: bool) -> None:
    """Whether a graph takes joints and gives scores of as many classes as the bundle has.

    Raises:
        UserError: it does not.
    """
    inputs = {end.name: end.shape for end in session.get_inputs()}
    outputs = {end.name: end.shape for end in session.get_outputs()}
    K, V = len(description.class_names), description.layout.joint_count
    shape = inputs.get("joints", [])
    good = len(shape) == (4 if steps else 5) and list(shape[-2:]) == [V, description.columns]
    good = good and (steps or set(inputs) == {"joints"})
    for name in ("scores", "probabilities"):
        good = good and len(outputs.get(name, [])) == 2 and outputs[name][1] == K
    if not good:
        raise UserError(f"{graph} does not take joints and give scores of {K} classes: export it again")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _check_graph(facts: Mapping[str, str], description: Description, graph: Path) -> None:
    """Whether a graph is a bundle's: its metadata say what it takes and gives, and which network it is where they can.

    Raises:
        UserError: it is another's, or an older mmcl wrote it.
    """
    own_weights = (description.record or {}).get("weights")
    known = [key for key in ("encoder", "rejection", *(["weights"] if own_weights else [])) if key in facts]
    for key in ("class_names", "layout", "preprocess", *known):
        try:
            found: Any = json.loads(facts[key])
            own: Any = own_weights if key == "weights" else getattr(description, key)
            if key == "layout":
                found = Layout.from_dict(found)
            elif key == "encoder":
                own = asdict(own)
            elif key == "preprocess" and "stream" in found:
                found = current_preprocess(found)
            same = found == own
        except (KeyError, ValueError, TypeError, AttributeError, RecursionError, UserError):
            same = False
        if not same:
            raise UserError(
                f"{graph} is not the graph of {graph.with_name(CONFIG)}: its {key.replace('_', ' ')} differ; export it "
                "again (`mmcl predict --backend torch` does without it)"
            )
