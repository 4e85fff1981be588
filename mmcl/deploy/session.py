"""Sessions of onnxruntime; imports neither torch nor onnx."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

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
    # Threads that spin while they wait are a little faster on a machine that does nothing else, and slow it down by
    # half on one that does; small blocks of work wait for a thread that lost its core less long.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.dynamic_block_base", "4")
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        str(model) if isinstance(model, Path) else model, options, providers=["CPUExecutionProvider"]
    )
