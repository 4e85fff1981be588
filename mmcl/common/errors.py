"""Errors a user can cause, and how they end: one line on stderr and exit status 2."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from typing import NoReturn

# A full disk, a limit on the size of files, and one on what somebody may keep.
NO_ROOM = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}

ADVICE = {
    **dict.fromkeys(NO_ROOM, "make room, and run the same command again"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "change the rights of this path, or choose another one"),
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EMFILE: "use fewer workers, or allow more open files (ulimit -n)",
}


class UserError(Exception):
    """Bad input. The message says what is wrong, where, and what to do; no traceback is shown."""


class BadClip(Exception):
    """One recorded action that cannot be used: it is skipped, named and counted, never fatal by itself."""


def run(main: Callable[[], int | None]) -> NoReturn:
    """Call ``main`` and leave the process: 0 or its value, 2 after a :class:`UserError`, 130 when it was stopped.

    Ctrl-C, SIGTERM and SIGHUP stop it alike, so that what is half-written is removed and workers are ended.
    """
    from mmcl.common.interrupts import stop_as_interrupt
    from mmcl.common.printing import complain, printable_streams

    printable_streams()
    try:
        with stop_as_interrupt():
            status = main() or 0
        sys.exit(status)
    except UserError as error:
        # One from a worker of a DataLoader arrives with the worker's traceback in front of what it says.
        if _speaks():
            complain("error", str(error).rpartition("mmcl.common.errors.UserError: ")[2])
        sys.exit(2)
    except BrokenPipeError:  # `mmcl predict … | head`
        sys.stderr.close()
        sys.exit(0)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        words = _of_the_world(error)
        if words is None:
            raise
        complain("error", words)
        sys.exit(2)


def _speaks() -> bool:
    """Whether this process of a launch says what is wrong: before they know each other, all find the same mistakes."""
    if os.environ.get("RANK", "0") == "0":
        return True
    distributed = sys.modules.get("torch.distributed")
    return distributed is not None and distributed.is_available() and bool(distributed.is_initialized())


def _of_the_world(error: Exception) -> str | None:
    """What to say of an error that is nobody's mistake: no room, no memory, no permission; None of any other."""
    from mmcl.common.limits import is_no_memory

    said = str(error)
    if is_no_memory(error):
        return f"out of memory ({said or type(error).__name__}): smaller batches, fewer workers or another machine help"
    if isinstance(error, OSError):  # a full disk, a folder without permission: the message names the file
        named = error.filename is not None and error.filename2 is None and error.strerror
        what = f"{error.filename}: {error.strerror}" if named else said
        advice = ADVICE.get(error.errno or 0) if named or error.errno in NO_ROOM else None
        return "; ".join(filter(None, (what, advice)))
    if "DataLoader" in said and any(words in said for words in ("killed", "exited", "timed out")):
        return (
            f"a loader worker was ended by the system, or gave nothing ({said}): too little memory or shared memory "
            "(/dev/shm)? --data.workers=0 or fewer workers need less of both"
        )
    return None
