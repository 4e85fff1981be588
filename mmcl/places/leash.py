"""Starts a command that ends with the process that it was started by: ``python leash.py PARENT COMMAND …``.

A worker of Ray or Slurm may be killed without a word. Its training must not go on, since it would write to the folder
in which another machine takes the run up. So the kernel is asked (Linux) to send the command SIGTERM when its parent
dies. A file of its own, without imports of mmcl, so that it costs some milliseconds; it then becomes the command.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # of linux/prctl.h


def main() -> None:
    """Tie this process to its parent, and become the command."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if hasattr(signal, "SIGUSR2"):
        # With it, Slurm tells all processes of a job that its time ends. submitit, which started this one, acts on it.
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    if os.getppid() != parent:  # it died before the kernel was asked
        sys.exit(128 + signal.SIGTERM)
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
