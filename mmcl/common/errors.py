"""Errors a user can cause, and how they end: one line on stderr and exit status 2."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NoReturn


class UserError(Exception):
    """Bad input. The message says what is wrong, where, and what to do; no traceback is shown."""


class BadClip(Exception):
    """One recorded action that cannot be used: it is skipped, named and counted, never fatal by itself."""


def run(main: Callable[[], int | None]) -> NoReturn:
    """Call ``main`` and leave the process: 0 or its value, 2 after a :class:`UserError`, 130 after Ctrl-C."""
    try:
        sys.exit(main() or 0)
    except UserError as error:
        # One from a worker of a DataLoader arrives with the worker's traceback in front of what it says.
        said = str(error).rpartition("mmcl.common.errors.UserError: ")[2]
        print(f"error: {' '.join(said.split())}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # `mmcl predict … | head`
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:  # a full disk, a folder without permission: the message names the file
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)
