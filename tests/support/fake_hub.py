"""A Hugging Face hub on loopback with a few repositories, enough for the real huggingface_hub client."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import ClassVar
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
GATED = "owner/gated"


class _Hub(BaseHTTPRequestHandler):
    repositories: ClassVar[Mapping[str, Mapping[str, bytes]]] = {}
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        is_api = parts[:2] == ["api", "models"]
        repository = "/".join(parts[2:4] if is_api else parts[:2])
        if repository == GATED:
            return self._send(403, b"{}", {"X-Error-Code": "GatedRepo"}, with_body)
        files = self.repositories.get(repository)
        if files is None:
            return self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"}, with_body)
        if is_api:
            return self._send(200, self._listing(repository, files, parts[4:5]), {}, with_body)
        content = files.get("/".join(parts[4:]))
        if content is None:
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}, with_body)
        etag = f'"{hashlib.sha256(content).hexdigest()}"'
        return self._send(200, content, {"ETag": etag, "X-Repo-Commit": COMMIT}, with_body)

    def _listing(self, repository: str, files: Mapping[str, bytes], kind: list[str]) -> bytes:
        if kind == ["tree"]:
            return json.dumps(
                [{"type": "file", "path": name, "size": len(files[name]), "oid": COMMIT} for name in files]
            ).encode()
        siblings = [{"rfilename": name} for name in files]
        return json.dumps({"id": repository, "sha": COMMIT, "siblings": siblings}).encode()

    def _send(self, status: int, content: bytes, headers: Mapping[str, str], with_body: bool) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        """Tests print nothing."""


@contextmanager
def fake_hub(repositories: Mapping[str, Mapping[str, bytes]]) -> Iterator[str]:
    """Serve `repositories` (name -> file name -> content); yields the endpoint. `GATED` answers 403 to everything."""

    hub_class = type("Hub", (_Hub,), {"repositories": repositories})
    server = ThreadingHTTPServer(("127.0.0.1", 0), hub_class)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
