"""What the C library does with memory that is free again. No result depends on it; without glibc, nothing happens."""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Any

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # from glibc's malloc.h; see mallopt(3)
NEVER = 2**31 - 1
CHOSEN_BY_USER = "MALLOC_"  # how the variables begin by which glibc's users choose these things themselves


def keep_freed_memory() -> bool:
    """Have the memory that a training step frees stay with the process, for the next step.

    By default glibc gives large blocks back to the system as soon as they are free. A step on a CPU frees all its
    activations, so that the next one has the system clear and map every page anew: 600,000 page faults a step, and a
    fifth of its time, for CTR-GCN at full width with 32 clips of two persons in bf16. The process grows no larger than
    its largest step makes it anyway.

    Returns:
        Whether it was done: not without glibc, nor where the user's environment says what glibc is to do.
    """
    library = _c_library()
    if library is None or any(name.startswith(CHOSEN_BY_USER) for name in os.environ):
        return False
    return bool(library.mallopt(M_MMAP_MAX, 0)) and bool(library.mallopt(M_TRIM_THRESHOLD, NEVER))


def return_freed_memory() -> None:
    """Give free memory back to the system, so that what is taken next is seen to be taken."""
    library = _c_library()
    if library is not None:
        library.malloc_trim(0)


def _c_library() -> Any:
    """The C library of this process if it is glibc, else None."""
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "gnu_get_libc_version") else None
