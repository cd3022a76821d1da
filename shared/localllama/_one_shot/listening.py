"""The HTTP side of a stand-in: a socket, one thread for each request, and the news that a caller has left."""

from __future__ import annotations

import contextlib
import hmac
import json
import socket
import socketserver
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any

from .endpoints import Answer, Answering, error_object, event_bytes, refusal
from .job import RefusalError
from .program_runs import CallerLeftError, ProgramError

__all__ = ["StandInServer", "listen"]

_LARGEST_BODY_BYTES = 100 * 1024 * 1024
_BACKLOG = 128
_STREAMS = ("/v1/chat/completions", "/completion")
_LOADING = {"error": {"message": "Loading model", "type": "unavailable_error", "code": 503}}


class StandInServer(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """Listens from its making on; answers "loading" until it is given what answers.

    Attributes:
        answering: What answers; None while the program is tried.
        describe: Makes the error object of a failure.
    """

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = False

    def __init__(self, address: Any, family: int, api_key: str | None) -> None:
        self.address_family = family
        self._api_key = api_key
        self.answering: Answering | None = None
        self.describe: Callable[[ProgramError], dict[str, Any]] = lambda error: error_object(
            error, "", lambda *_: "failed"
        )
        super().__init__(address, _Request)

    def server_activate(self) -> None:
        """Listen, with room for a burst of calls."""
        self.socket.listen(_BACKLOG)

    def is_allowed(self, header: str | None) -> bool:
        """Whether a request with this Authorization header may be answered."""
        if self._api_key is None:
            return True
        return hmac.compare_digest((header or "").encode(), f"Bearer {self._api_key}".encode())

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller who left is no news; anything else goes to the log."""
        import sys

        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


def listen(host: str, port: int | None, api_key: str | None) -> StandInServer:
    """A server on a socket file, or on a loopback port.

    Raises:
        OSError: The address is taken.
    """
    if port is None:
        return StandInServer(host, socket.AF_UNIX, api_key)
    return StandInServer((host, port), socket.AF_INET, api_key)


class _Request(BaseHTTPRequestHandler):
    server: StandInServer
    protocol_version = "HTTP/1.1"
    server_version = "localllama"
    sys_version = ""

    def log_message(self, *_: Any) -> None:
        """Nothing: prompts are in no log."""

    def do_GET(self) -> None:
        """`/health`, `/props` and `/v1/models`."""
        answering = self._ready()
        if answering is None:
            return
        if self.path == "/health":
            self._send(200, {"status": "ok"})
        elif self.path == "/props":
            self._send(200, answering.properties())
        elif self.path == "/v1/models":
            self._send(
                200, {"object": "list", "data": [{"id": answering.properties()["model_alias"], "object": "model"}]}
            )
        else:
            self._not_found()

    def do_POST(self) -> None:
        """Everything else."""
        body = self._body()
        answering = self._ready()
        if body is None or answering is None:
            return
        try:
            if self.path in _STREAMS:
                self._stream(answering.answer(self.path, body))
            else:
                self._send(200, answering.ask(self.path, body))
        except RefusalError as error:
            self._send(*refusal(error))
        except ProgramError as error:
            self._fail(error)

    def _ready(self) -> Answering | None:
        if self.path != "/health" and not self.server.is_allowed(self.headers.get("Authorization")):
            self._send(401, {"error": {"message": "Invalid API Key", "type": "authentication_error", "code": 401}})
            return None
        answering = self.server.answering
        if answering is None:
            self._send(503, _LOADING)
        return answering

    def _body(self) -> dict[str, Any] | None:
        length = int(self.headers.get("Content-Length") or 0)
        if length > _LARGEST_BODY_BYTES:
            self._send(
                413, {"error": {"message": "the request is too large", "type": "invalid_request_error", "code": 413}}
            )
            return None
        try:
            body = json.loads(self.rfile.read(length) or b"{}")
        except ValueError:
            body = None
        if not isinstance(body, dict):
            self._send(400, {"error": {"message": "the body is no JSON object", "type": "invalid_request_error"}})
            return None
        return body

    def _stream(self, answer: Answer) -> None:
        watcher = threading.Thread(target=self._watch_caller, args=(answer,), daemon=True)
        watcher.start()
        has_begun = False
        try:
            for event in answer.events():
                if not has_begun:
                    has_begun = True
                    self._begin_stream()
                self.wfile.write(event_bytes(event))
            self.wfile.write(b"data: [DONE]\n\n")
        except (CallerLeftError, ConnectionError):
            self.close_connection = True
        except ProgramError as error:
            if has_begun:
                self.wfile.write(event_bytes({"error": self.server.describe(error)}))
            else:
                self._fail(error)
        finally:
            answer.close()
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)
            watcher.join()

    def _begin_stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True

    def _watch_caller(self, answer: Answer) -> None:
        # Nothing more is sent by the caller, so the first news is that there is none any more.
        with contextlib.suppress(OSError):
            while self.connection.recv(4096):
                pass
        answer.leave()

    def _fail(self, error: ProgramError) -> None:
        described = self.server.describe(error)
        with contextlib.suppress(OSError):
            self._send(int(described["code"]), {"error": described})

    def _not_found(self) -> None:
        self._send(404, {"error": {"message": "File Not Found", "type": "not_found_error", "code": 404}})

    def _send(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body, ensure_ascii=False).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        self.wfile.write(data)
