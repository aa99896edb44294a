"""A local HTTP server that answers what `datasets.load_dataset("user/name")` asks of the Hugging Face Hub."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
PRIVATE = "user/private"  # answers 401, as a private data set does to a stranger
GATED = "user/gated"  # answers 403

Repositories = Mapping[str, Mapping[str, bytes]]  # files by path, by `user/name`


@contextmanager
def serve(repositories: Repositories) -> Iterator[str]:
    """Serve data set repositories and give the address to set HF_ENDPOINT to."""
    handler = type("Handler", (_Handler,), {"repositories": repositories})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    repositories: Repositories
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if match := re.fullmatch(r"/datasets/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._file(match[1], match[3])
            return
        match = re.fullmatch(r"/api/datasets/([^/]+/[^/]+)(?:/(revision|tree|paths-info)/([^/]+)/?(.*))?", path)
        if not match:
            self._reply(404)
            return
        self._about(match[1], match[2], match[4] or "")

    do_HEAD = do_POST = do_GET  # noqa: N815 - the names that http.server calls

    def _file(self, repository: str, path: str) -> None:
        files = self._files(repository)
        if files is None:
            return
        if path not in files:
            self._refuse(404, "EntryNotFound")
            return
        self._reply(200, files[path], {"ETag": f'"{_oid(files[path])}"', "X-Repo-Commit": COMMIT})

    def _about(self, repository: str, kind: str | None, folder: str) -> None:
        files = self._files(repository)
        if files is None:
            return
        if kind == "tree":
            self._json([entry for entry in _entries(files) if _lies_in(entry["path"], folder)])
            return
        if kind == "paths-info":
            wanted = set(parse_qs(self.body.decode()).get("paths", []))
            self._json([entry for entry in _entries(files) if entry["path"] in wanted])
            return
        siblings = [{"rfilename": path} for path in files]
        self._json({"id": repository, "sha": COMMIT, "private": False, "tags": [], "siblings": siblings})

    def _files(self, repository: str) -> Mapping[str, bytes] | None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if repository in (PRIVATE, GATED):
            self._refuse(*((401, "RepoNotFound") if repository == PRIVATE else (403, "GatedRepo")))
            return None
        if repository not in self.repositories:
            self._refuse(404, "RepoNotFound")
            return None
        return self.repositories[repository]

    def _refuse(self, status: int, code: str) -> None:
        self._reply(status, b"{}", {"X-Error-Code": code})

    def _json(self, answer: object) -> None:
        self._reply(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _reply(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _entries(files: Mapping[str, bytes]) -> list[dict[str, Any]]:
    folders = {str(folder) for path in files for folder in PurePosixPath(path).parents} - {"."}
    return [{"type": "directory", "path": folder, "oid": COMMIT, "size": 0} for folder in sorted(folders)] + [
        {"type": "file", "path": path, "oid": _oid(data), "size": len(data)} for path, data in files.items()
    ]


def _lies_in(path: str, folder: str) -> bool:
    return not folder or path.startswith(f"{folder}/")


def _oid(data: bytes) -> str:
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()
