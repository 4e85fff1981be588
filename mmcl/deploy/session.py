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
    # Threads that turn in circles while they wait for work, onnxruntime's default, are a sixth faster with two threads
    # on two idle processors, half as fast where somebody else computes, and slow down whatever comes after them.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        str(model) if isinstance(model, Path) else model, options, providers=["CPUExecutionProvider"]
    )
