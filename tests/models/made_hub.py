"""A hub on this machine: the part of the Hugging Face hub's HTTP interface that uploads and downloads of models use."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_made_up"
LFS = (".safetensors", ".onnx")


class Hub:
    """Repositories in memory: commits (digest -> files), branches and tags (name -> digest), large files by digest."""

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, Any]] = {}
        self.large: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.url = ""

    def commit(self, repo: str, branch: str, files: dict[str, bytes | None]) -> str:
        found = self.repos[repo]
        content = {**found["commits"].get(found["refs"].get(branch), {}), **files}
        content = {name: data for name, data in content.items() if data is not None}
        digest = hashlib.sha1(repr(sorted(content.items())).encode()).hexdigest()
        found["commits"][digest] = content
        found["refs"][branch] = digest
        return digest

    def at(self, repo: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        found = self.repos.get(repo)
        digest = None if found is None else found["refs"].get(revision, revision)
        return None if found is None or digest not in found["commits"] else (digest, found["commits"][digest])


class Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *words: Any) -> None:
        pass

    def answer(self, content: Any = b"", status: int = 200, headers: dict[str, str] | None = None) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for key, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(key, value)
        if not isinstance(content, bytes):
            self.send_header("Content-Type", "application/json")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def route(self) -> None:
        path = unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.hub.requests.append(f"{self.command} {path}")
        for pattern, name in ROUTES:
            if match := re.fullmatch(pattern, f"{self.command} {path}"):
                if name in WRITING and self.headers.get("Authorization") != f"Bearer {TOKEN}":
                    return self.answer({"error": "Invalid username or password."}, 401)
                return getattr(self, name)(body, *match.groups())
        return self.answer({"error": f"nothing at {path}"}, 404)

    do_GET = do_HEAD = do_POST = do_PUT = route  # noqa: N815

    def create(self, body: bytes) -> None:
        wanted = json.loads(body)
        repo = f"{wanted['organization']}/{wanted['name']}"
        if repo in self.hub.repos:
            return self.answer({"error": "exists", "url": f"{self.hub.url}/{repo}"}, 409)
        self.hub.repos[repo] = {"commits": {}, "refs": {}, "private": "private" in str(wanted)}
        self.hub.commit(repo, "main", {".gitattributes": b""})
        return self.answer({"url": f"{self.hub.url}/{repo}"})

    def validate(self, body: bytes) -> None:
        self.answer({"errors": [], "warnings": []})

    def preupload(self, body: bytes, repo: str, revision: str) -> None:
        if self.hub.at(repo, revision) is None:
            return self.answer({"error": "no such revision"}, 404, {"X-Error-Code": "RevisionNotFound"})
        names = [file["path"] for file in json.loads(body)["files"]]
        modes = ["lfs" if name.endswith(LFS) else "regular" for name in names]
        rows = [{"path": n, "uploadMode": m, "shouldIgnore": False} for n, m in zip(names, modes, strict=True)]
        return self.answer({"files": rows})

    def batch(self, body: bytes, repo: str) -> None:
        objects = [
            {**each, "actions": {"upload": {"href": f"{self.hub.url}/large/{each['oid']}", "header": {}}}}
            for each in json.loads(body)["objects"]
        ]
        self.answer({"transfer": "basic", "objects": objects})

    def store(self, body: bytes, oid: str) -> None:
        assert hashlib.sha256(body).hexdigest() == oid
        self.hub.large[oid] = body
        self.answer()

    def add(self, body: bytes, repo: str, revision: str) -> None:
        files = {}
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.hub.large[value["oid"]]
            elif entry["key"] == "deletedFile":
                files[value["path"]] = None
        digest = self.hub.commit(repo, revision, files)
        self.answer({"commitUrl": f"{self.hub.url}/{repo}/commit/{digest}", "commitOid": digest})

    def info(self, body: bytes, repo: str, revision: str = "main") -> None:
        found = self.hub.at(repo, revision)
        if found is None:
            code = "RepoNotFound" if repo not in self.hub.repos else "RevisionNotFound"
            return self.answer({"error": code}, 404, {"X-Error-Code": code})
        siblings = [{"rfilename": name} for name in found[1]]
        return self.answer({"id": repo, "modelId": repo, "sha": found[0], "siblings": siblings, "tags": []})

    def tree(self, body: bytes, repo: str, revision: str) -> None:
        found = self.hub.at(repo, revision)
        assert found is not None
        rows = []
        for name, content in found[1].items():
            row: dict[str, Any] = {"type": "file", "path": name, "size": len(content), "oid": _blob(content)}
            if name.endswith(LFS):
                row["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
            rows.append(row)
        self.answer(rows)

    def resolve(self, body: bytes, repo: str, revision: str, name: str) -> None:
        found = self.hub.at(repo, revision)
        if found is None or name not in found[1]:
            return self.answer({"error": "EntryNotFound"}, 404, {"X-Error-Code": "EntryNotFound"})
        content = found[1][name]
        tag = hashlib.sha256(content).hexdigest() if name.endswith(LFS) else _blob(content)
        headers = {"ETag": f'"{tag}"', "X-Repo-Commit": found[0], "X-Linked-Size": str(len(content))}
        return self.answer(content, 200, headers)


def _blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


WRITING = ("create", "preupload", "batch", "add")
REPO = r"([\w.-]+/[\w.-]+)"
ROUTES = (
    (r"POST /api/repos/create", "create"),
    (r"POST /api/validate-yaml", "validate"),
    (rf"POST /api/models/{REPO}/preupload/(.+)", "preupload"),
    (rf"POST /{REPO}\.git/info/lfs/objects/batch", "batch"),
    (r"PUT /large/([0-9a-f]+)", "store"),
    (rf"POST /api/models/{REPO}/commit/(.+)", "add"),
    (rf"GET /api/models/{REPO}/revision/(.+)", "info"),
    (rf"GET /api/models/{REPO}/tree/([^/]+)", "tree"),
    (rf"GET /api/models/{REPO}", "info"),
    (rf"(?:GET|HEAD) /{REPO}/resolve/([^/]+)/(.+)", "resolve"),
)


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A hub that answers until the block ends."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("OneHub", (Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
