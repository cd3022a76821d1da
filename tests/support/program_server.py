"""Running a runtime's program directly, without the core's supervisor and client: for tests of the program itself."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.waiting import wait_until


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a UNIX socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localllama", timeout=20)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        self.sock.connect(self._path)


def ask(path: str, method: str, url: str, body: Any = None) -> tuple[int, Any]:
    """One request; the status and the decoded JSON."""
    connection = UnixConnection(path)
    with contextlib.closing(connection):
        connection.request(method, url, None if body is None else json.dumps(body))
        response = connection.getresponse()
        return response.status, json.loads(response.read())


@dataclass
class ProgramServer:
    """A running program and where it listens."""

    process: subprocess.Popen[bytes]
    socket_path: str
    log: Path

    def ask(self, method: str, url: str, body: Any = None) -> tuple[int, Any]:
        return ask(self.socket_path, method, url, body)

    def wait_until_ready(self) -> ProgramServer:
        def is_ready() -> bool:
            assert self.process.poll() is None, self.log.read_text(errors="replace")
            try:
                return self.ask("GET", "/health")[0] == 200
            except OSError:
                return False

        wait_until(is_ready, seconds=30, what="readiness")
        return self


@contextlib.contextmanager
def program_server(
    command: Sequence[str],
    arguments: Sequence[str],
    directory: Path,
    *,
    env: Mapping[str, str] | None = None,
    stdin: int = subprocess.DEVNULL,
) -> Iterator[ProgramServer]:
    """Start `command` on a socket in `directory`, and kill it in the end."""
    socket_path = str(directory / "program.sock")
    log = directory / "program.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--host", socket_path, *arguments],
            stdin=stdin,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(os.environ if env is None else env),
        )
    try:
        yield ProgramServer(process, socket_path, log)
    finally:
        process.kill()
        process.wait()
        if process.stdin is not None:
            process.stdin.close()
