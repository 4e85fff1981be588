"""Sessions of onnxruntime; imports neither torch nor onnx."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnxruntime import InferenceSession


def open_session(model: Path | bytes, threads: int = 0, spin: bool = False) -> InferenceSession:
    """A session on the CPU.

    Args:
        model: the file, or what it holds.
        threads: of its own; 0 leaves the number to onnxruntime.
        spin: let threads turn in circles while they wait for work, as onnxruntime does unless told: a sixth faster on a
            machine that does nothing else, half as fast on one that does (measured with two threads on two processors).
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    if not spin:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        str(model) if isinstance(model, Path) else model, options, providers=["CPUExecutionProvider"]
    )
