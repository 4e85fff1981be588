"""Fresh processes for the verification of bundles, without the seconds that each spends on importing torch.

They are forked from a process that has imported what every bundle needs, and nothing of mmcl or of the training stack.
Outside of tests such processes start for real, and so they do in ``tests/deploy/test_bundle.py``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from mmcl.common.errors import UserError
from mmcl.deploy.verify import run_fresh

__all__ = ["FreshProcesses", "run_fresh"]

SERVER = """
import json, os, sys, traceback
import numpy, safetensors.torch, torch
torch.set_num_threads(1)

def serve(request):
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    sys.path[:0] = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path not in sys.path]
    os.dup2(os.open(request["errors"], os.O_WRONLY | os.O_CREAT, 0o600), 2)
    try:
        exec(compile(request["code"], "<string>", "exec"), {"__name__": "__main__"})
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)

for line in sys.stdin:
    child = os.fork()
    if not child:
        serve(json.loads(line))
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
"""


class FreshProcesses:
    """Stands in for :func:`mmcl.deploy.verify.run_fresh`; the server starts with the first call."""

    def __init__(self) -> None:
        self._server: subprocess.Popen[str] | None = None

    def __call__(self, code: str, what: str) -> None:
        """Run Python in a process that has imported torch, numpy and safetensors; arguments as of the real one."""
        if self._server is None:
            self._server = subprocess.Popen(
                [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        assert self._server.stdin is not None and self._server.stdout is not None
        with tempfile.TemporaryDirectory() as folder:
            errors = Path(folder) / "errors"
            environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
            request = {"code": code, "environment": environment, "folder": os.getcwd(), "errors": str(errors)}
            self._server.stdin.write(json.dumps(request) + "\n")
            self._server.stdin.flush()
            if status := int(self._server.stdout.readline()):
                said = errors.read_text(encoding="utf-8").strip().splitlines() if errors.exists() else []
                raise UserError(f"{what} does not load on its own: {[f'it ended with status {status}', *said][-1]}")

    def close(self) -> None:
        """End the server.

        Closing its input would not do: processes that tests forked, and that are still there, hold it open.
        """
        if self._server is not None:
            self._server.kill()
            self._server.communicate()
