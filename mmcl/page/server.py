"""Serves a page's folder to browsers on this machine, and to nobody else."""

from __future__ import annotations

import io
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO

from mmcl.common.errors import UserError

HERE = "127.0.0.1"


class _Handler(SimpleHTTPRequestHandler):
    """Files of one folder, with the types that browsers insist on, and nothing kept from one visit to the next."""

    extensions_map = {
        **SimpleHTTPRequestHandler.extensions_map, ".js": "text/javascript", ".mjs": "text/javascript",
        ".wasm": "application/wasm", ".onnx": "application/octet-stream", ".task": "application/octet-stream",
    }  # fmt: skip

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        super().end_headers()

    def list_directory(self, path: object) -> None:  # type: ignore[override]
        """Folders are not listed."""
        self.send_error(404)

    def send_head(self) -> io.BytesIO | BinaryIO | None:
        """Answer those who ask for this machine by its own name: a page of somebody else's cannot read along."""
        host = (self.headers.get("Host") or "").rsplit(":", 1)[0].lower()
        if host not in (HERE, "localhost"):
            self.send_error(403)
            return None
        try:
            return super().send_head()
        except ValueError:  # a name that no file can have, such as one with a NUL
            self.send_error(404)
            return None

    def copyfile(self, source: Any, outputfile: Any) -> None:
        """Send a file, unless the browser has gone away meanwhile."""
        try:
            super().copyfile(source, outputfile)
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Requests are not printed."""


class _Server(ThreadingHTTPServer):
    """A server to which browsers that go away in the middle of a word are nothing to report."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep the traceback of anything but a connection that was lost."""
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


def make_server(folder: Path, port: int) -> ThreadingHTTPServer:
    """A server of a folder's files on this machine.

    Args:
        folder: of the page.
        port: 0 takes any that is free.

    Raises:
        UserError: the port is taken.
    """
    try:
        return _Server((HERE, port), partial(_Handler, directory=str(folder)))
    except OSError as error:
        raise UserError(f"port {port} of {HERE} cannot be used ({error.strerror}): name another by --port") from error
