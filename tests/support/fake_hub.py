"""A Hugging Face hub on loopback, enough for the real huggingface_hub client, with faults that a test can order.

As on the real one, the name of a file's version is its SHA-256, and the bytes may lie on another origin than the hub.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar, Literal
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
GATED = "owner/gated"
SIGNATURE = "X-Signature=geheim"

Kind = Literal["LIST", "HEAD", "BYTES"]


@dataclass(frozen=True)
class Seen:
    """One request.

    Attributes:
        kind: What was asked for: the names of a repository's files, facts about one of them, or its bytes.
        path: Its path, as it came.
        token: What came in the Authorization header.
        start: The first byte that was asked for.
        is_at_storage: Whether it came to the other origin, where the bytes are.
    """

    kind: Kind
    path: str
    token: str | None
    start: int
    is_at_storage: bool


@dataclass(frozen=True)
class Refusal:
    """An answer that is an error."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class FakeHub:
    """What the hub has and does; tests change it while it runs.

    Attributes:
        repositories: Name -> file name -> content. `GATED` answers 403 to everything.
        commit: The commit of every repository.
        tokens: Which repositories are private, and who may read them.
        refusals: The next answers to each kind of request.
        cuts: How many bytes the next answers send before the connection breaks.
        hold: An answer waits for it after the cut, or after half of its bytes.
        false_bytes: Sent instead of a content, whose checksum the hub still names.
        has_storage: The hub redirects to another origin, which serves the bytes.
        endpoint: The address of the hub.
        storage: The address of the other origin.
        seen: All requests in order.
    """

    repositories: Mapping[str, Mapping[str, bytes]]
    commit: str = COMMIT
    tokens: dict[str, str] = field(default_factory=dict)
    refusals: defaultdict[Kind, deque[Refusal]] = field(default_factory=lambda: defaultdict(deque))
    cuts: deque[int] = field(default_factory=deque)
    hold: threading.Event | None = None
    false_bytes: dict[bytes, bytes] = field(default_factory=dict)
    has_storage: bool = False
    endpoint: str = ""
    storage: str = ""
    seen: list[Seen] = field(default_factory=list)

    def starts(self) -> list[int]:
        """Where each request for bytes began."""
        return [request.start for request in self.seen if request.kind == "BYTES"]

    def count(self, kind: Kind) -> int:
        """How many requests of a kind came."""
        return sum(request.kind == kind for request in self.seen)


class _Requests(BaseHTTPRequestHandler):
    hub: ClassVar[FakeHub]
    is_storage: ClassVar[bool]
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def _answer(self) -> None:
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        is_api = parts[:2] == ["api", "models"]
        kind: Kind = "LIST" if is_api else "HEAD" if self.command == "HEAD" else "BYTES"
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        token = self.headers.get("Authorization")
        is_redirected = self.hub.has_storage and not self.is_storage
        if not (is_redirected and kind == "BYTES"):
            self.hub.seen.append(Seen(kind, self.path, token, start, self.is_storage))
        if self.hub.refusals[kind] and not (is_redirected and kind == "BYTES"):
            refusal = self.hub.refusals[kind].popleft()
            return self._send(refusal.status, b"", refusal.headers)
        repository = "/".join(parts[2:4] if is_api else parts[:2])
        files = self.hub.repositories.get(repository)
        if is_api and not repository:
            return self._send(200, json.dumps([{"id": name} for name in self.hub.repositories]).encode(), {})
        if not self.is_storage and (refused := self._refused(repository, token, is_known=files is not None)):
            return self._send(refused.status, b"{}", refused.headers)
        assert files is not None
        if is_api:
            return self._send(200, self._listing(repository, files, parts[4:5]), {})
        content = files.get("/".join(parts[4:]))
        if content is None:
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": self.hub.commit})
        return self._send_file(content, start, is_redirected=is_redirected)

    def _refused(self, repository: str, token: str | None, *, is_known: bool) -> Refusal | None:
        if repository == GATED:
            return Refusal(403, {"X-Error-Code": "GatedRepo"})
        if not is_known:
            return Refusal(404, {"X-Error-Code": "RepoNotFound"})
        wanted = self.hub.tokens.get(repository)
        if wanted is None or token == f"Bearer {wanted}":
            return None
        if token is None:
            return Refusal(401, {"X-Error-Code": "RepoNotFound"})
        return Refusal(401, {"X-Error-Message": "Invalid credentials in Authorization header"})

    def _listing(self, repository: str, files: Mapping[str, bytes], kind: list[str]) -> bytes:
        if kind == ["tree"]:
            return json.dumps(
                [{"type": "file", "path": name, "size": len(files[name]), "oid": COMMIT} for name in files]
            ).encode()
        siblings = [{"rfilename": name} for name in files]
        return json.dumps({"id": repository, "sha": self.hub.commit, "siblings": siblings}).encode()

    def _send_file(self, content: bytes, start: int, *, is_redirected: bool) -> None:
        digest = f'"{hashlib.sha256(content).hexdigest()}"'
        if is_redirected:
            headers = {
                "X-Repo-Commit": self.hub.commit,
                "X-Linked-Etag": digest,
                "X-Linked-Size": str(len(content)),
                "Location": f"{self.hub.storage}{self.path}?{SIGNATURE}",
            }
            return self._send(302, b"", headers)
        body = self.hub.false_bytes.get(content, content)
        headers = {"ETag": digest, "X-Repo-Commit": self.hub.commit, "Accept-Ranges": "bytes"}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
            return self._send(206, body[start:], headers, is_file=True)
        return self._send(200, body, headers, is_file=True)

    def _send(self, status: int, body: bytes, headers: Mapping[str, str], *, is_file: bool = False) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if not is_file:
            self.wfile.write(body)
            return
        is_cut = bool(self.hub.cuts)
        end = self.hub.cuts.popleft() if is_cut else len(body) // 2
        self.wfile.write(body[:end])
        if self.hub.hold is not None:
            self.hub.hold.wait(60)
        if is_cut:
            self.close_connection = True
        else:
            self.wfile.write(body[end:])

    def log_message(self, *args: object) -> None:
        """Tests print nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *args: object) -> None:
        """A client that was killed is no error here."""


@contextmanager
def serving_hub(repositories: Mapping[str, Mapping[str, bytes]]) -> Iterator[FakeHub]:
    """Serve `repositories`; yields what a test can change and look at."""
    hub = FakeHub(repositories)
    with ExitStack() as stack:
        hub.endpoint = stack.enter_context(_served(hub, is_storage=False))
        hub.storage = stack.enter_context(_served(hub, is_storage=True))
        yield hub


@contextmanager
def fake_hub(repositories: Mapping[str, Mapping[str, bytes]]) -> Iterator[str]:
    """Serve `repositories` without a fault; yields the endpoint."""
    with serving_hub(repositories) as hub:
        yield hub.endpoint


@contextmanager
def _served(hub: FakeHub, *, is_storage: bool) -> Iterator[str]:
    requests = type("Requests", (_Requests,), {"hub": hub, "is_storage": is_storage})
    server = _Server(("127.0.0.1", 0), requests)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
