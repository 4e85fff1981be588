"""A bound on the memory that reading something may take: files of strangers announce what they like."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

GIB = 1 << 30
WORDS_OF_NO_MEMORY = ("can't allocate memory", "not enough memory", "bad_alloc", "bad allocation", "out of memory",
                      "cannot allocate memory", "failed to map segment")  # fmt: skip


@contextmanager
def bounded_memory(more: int) -> Iterator[None]:
    """Let this process grow by so many bytes at most; beyond, allocations fail with an error and nothing is killed.

    It holds for the whole process while the block runs, so the block should be one that reads a file and no more.
    Where the system has no such bound (Windows, macOS), nothing is bounded.

    Args:
        more: bytes of address space beyond what the process has now.

    Raises:
        MemoryError: as Python does; libraries raise errors of their own, see :func:`is_no_memory`.
    """
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        bound = pages * resource.getpagesize() + more
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    except (ImportError, OSError, ValueError):
        yield
        return
    if soft != resource.RLIM_INFINITY and soft <= bound:
        yield
        return
    resource.setrlimit(resource.RLIMIT_AS, (bound, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def is_no_memory(error: BaseException) -> bool:
    """Whether an error of Python or of a library says that there was no memory left."""
    said = str(error).casefold()
    return isinstance(error, MemoryError) or any(words in said for words in WORDS_OF_NO_MEMORY)
