"""A bound on the memory that reading something may take: files of strangers announce what they like."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

GIB = 1 << 30
WORDS_OF_NO_MEMORY = ("can't allocate memory", "not enough memory", "bad_alloc", "bad allocation", "out of memory",
                      "cannot allocate memory", "failed to map segment")  # fmt: skip


_lock = Lock()
_bounds: list[int] = []  # of the blocks that run, in whatever threads; the least one holds
_before: tuple[int, int] = 0, 0  # the process's own limits, while there is a block


@contextmanager
def bounded_memory(more: int) -> Iterator[None]:
    """Let this process grow by so many bytes at most; beyond, allocations fail with an error and nothing is killed.

    It holds for the whole process while the block runs, so the block should be one that reads a file and no more.
    Several threads may be in such blocks at once. Where the system has no such bound (Windows, macOS), nothing is
    bounded.

    Args:
        more: bytes of address space beyond what the process has now.

    Raises:
        MemoryError: as Python does; libraries raise errors of their own, see :func:`is_no_memory`.
    """
    global _before
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        bound = pages * resource.getpagesize() + more
        with _lock:
            _before = _before if _bounds else resource.getrlimit(resource.RLIMIT_AS)
            _bounds.append(bound)
            _apply()
    except (ImportError, OSError, ValueError):
        yield
        return
    try:
        yield
    finally:
        with _lock:
            _bounds.remove(bound)
            _apply()


def _apply() -> None:
    """Bound the process by the least of all bounds; by its own limits alone where there is none."""
    import resource

    soft, hard = _before
    own = [] if soft == resource.RLIM_INFINITY else [soft]
    resource.setrlimit(resource.RLIMIT_AS, (min([*own, *_bounds], default=resource.RLIM_INFINITY), hard))


def is_no_memory(error: BaseException) -> bool:
    """Whether an error of Python or of a library says that there was no memory left."""
    said = str(error).casefold()
    return isinstance(error, MemoryError) or any(words in said for words in WORDS_OF_NO_MEMORY)
