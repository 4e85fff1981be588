"""Sessions of onnxruntime; imports neither torch nor onnx."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mmcl.common.errors import UserError
from mmcl.models.description import CONFIG, Description, current_preprocess
from mmcl.skeletons.layout import Layout

if TYPE_CHECKING:
    from onnxruntime import InferenceSession


def open_session(model: Path | bytes, threads: int = 0) -> InferenceSession:
    """A session on the CPU.

    Args:
        model: the file, or what it holds.
        threads: of its own; 0 leaves the number to onnxruntime.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Threads that turn in circles while they wait for work, onnxruntime's default, are a sixth faster with two threads
    # on two idle processors, half as fast where somebody else computes, and slow down whatever comes after them.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        str(model) if isinstance(model, Path) else model, options, providers=["CPUExecutionProvider"]
    )


def open_checked_session(graph: Path, description: Description) -> InferenceSession:
    """A session on one of a bundle's graphs.

    Raises:
        UserError: onnxruntime is missing, or the graph is damaged or not that of the bundle.
    """
    try:
        session = open_session(graph)
    except ImportError as error:
        raise UserError('this needs onnxruntime, not installed here: run `pip install "mmcl[onnx]"`') from error
    except Exception as error:  # onnxruntime has kinds of its own, which are no public names
        words = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise UserError(f"{graph} is damaged or needs another onnxruntime: {words}") from error
    _check_graph(session.get_modelmeta().custom_metadata_map, description, graph)
    return session


def _check_graph(facts: Mapping[str, str], description: Description, graph: Path) -> None:
    """Whether a graph is a bundle's: its metadata say what it takes and gives.

    Raises:
        UserError: it is another's, or an older mmcl wrote it.
    """
    for key in ("class_names", "layout", "preprocess"):
        try:
            found, own = json.loads(facts[key]), getattr(description, key)
            if key == "layout":
                found = Layout.from_dict(found)
            elif key == "preprocess" and "stream" in found:
                found = current_preprocess(found)
            same = found == own
        except (KeyError, ValueError, TypeError, AttributeError, RecursionError, UserError):
            same = False
        if not same:
            raise UserError(
                f"{graph} is not the graph of {graph.with_name(CONFIG)}: its {key.replace('_', ' ')} differ; export it "
                "again, or use --backend torch"
            )
