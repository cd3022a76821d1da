"""A server that is nothing but a socket: it sends exactly the bytes of a script, cut, late, broken off or never.

A script is a list of steps for one connection. It begins after the request has been read. When it ends, the connection is
closed.

    bytes          send them
    a number       wait that many seconds, or less if the client leaves
    RESET          close so that the client sees a reset
    STALL          send nothing more until the client leaves
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from localllama.types import Endpoint

from .waiting import wait_until

RESET: Final = "RESET"
STALL: Final = "STALL"
Step = bytes | float | str
STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """Data as one chunk of a chunked body."""
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


END = chunk(b"")


def answer(status: int, body: bytes, kind: str = "application/json") -> bytes:
    """A whole response."""
    return f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


@dataclass
class Received:
    """One request, and how its connection went.

    Attributes:
        head: Request line and headers.
        body: The body.
        is_left: Whether the client closed the connection while the script was still running.
    """

    head: str
    body: bytes
    is_left: bool = False

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class RawServer:
    """Where it listens and what it received."""

    endpoint: Endpoint
    received: list[Received] = field(default_factory=list)
    scripts: list[Sequence[Step]] = field(default_factory=list)

    def wait_until_left(self, index: int = 0) -> None:
        """Wait until the client has closed that connection."""
        wait_until(
            lambda: len(self.received) > index and self.received[index].is_left, seconds=5, what="the client to leave"
        )


@contextlib.contextmanager
def raw_server(
    directory: Path, *scripts: Sequence[Step], api_key: str | None = None, backlog: int = 16, is_tcp: bool = False
) -> Iterator[RawServer]:
    """Serve one script for each connection, the last one for all further ones. Without scripts nothing is accepted."""
    listener = socket.socket(socket.AF_INET if is_tcp else socket.AF_UNIX, socket.SOCK_STREAM)
    if is_tcp:
        listener.bind(("127.0.0.1", 0))
        endpoint = Endpoint(f"http://127.0.0.1:{listener.getsockname()[1]}", api_key=api_key)
    else:
        path = directory / "s.sock"
        listener.bind(str(path))
        endpoint = Endpoint("http://localllama", socket_path=str(path), api_key=api_key)
    listener.listen(backlog)
    server = RawServer(endpoint, scripts=list(scripts))
    is_over = threading.Event()
    threads: list[threading.Thread] = []

    def accept() -> None:
        count = 0
        while not is_over.is_set():
            if select.select([listener], [], [], 0.02)[0]:
                connection, _ = listener.accept()
                script = server.scripts[min(count, len(server.scripts) - 1)]
                count += 1
                thread = threading.Thread(target=_serve, args=(connection, script, server, is_over), daemon=True)
                threads.append(thread)
                thread.start()

    if scripts:
        threads.append(threading.Thread(target=accept, daemon=True))
        threads[0].start()
    try:
        yield server
    finally:
        is_over.set()
        for thread in threads:
            thread.join(timeout=10)
        listener.close()


def _serve(connection: socket.socket, script: Sequence[Step], server: RawServer, is_over: threading.Event) -> None:
    with connection, contextlib.suppress(ConnectionError):
        request = _read_request(connection)
        if request is None:
            return
        server.received.append(request)
        for step in script:
            if step == RESET:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return
            if isinstance(step, bytes):
                try:
                    connection.sendall(step)
                except ConnectionError:
                    request.is_left = True
                    return
            else:
                seconds = 60.0 if isinstance(step, str) else step
                if _has_left(connection, seconds, is_over):
                    request.is_left = True
                    return


def _has_left(connection: socket.socket, seconds: float, is_over: threading.Event) -> bool:
    deadline = time.monotonic() + seconds
    while not is_over.is_set():
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        if select.select([connection], [], [], min(left, 0.02))[0]:
            try:
                return not connection.recv(1)
            except ConnectionError:  # it left with something unread
                return True
    return False


def _read_request(connection: socket.socket) -> Received | None:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        if not piece:
            return None
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    text = head.decode()
    lengths = [line.split(":")[1] for line in text.lower().split("\r\n") if line.startswith("content-length:")]
    while len(body) < int(lengths[0] if lengths else 0):
        body += connection.recv(65536)
    return Received(text, body)
