"""llama-server without us: a child with the fewest flags, and plain HTTP over its UNIX socket. The base to compare with."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from typing import Any

MESSAGES = [{"role": "user", "content": "Why is the sky blue?"}]


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(self._path)


@contextlib.contextmanager
def raw_server(command: list[str], model: str, n_ctx: int) -> Iterator[str]:
    """A server that is ready; yields its socket's path."""
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        path = os.path.join(directory, "s.sock")
        flags = ["--model", model, "--host", path, "--parallel", "1", "--ctx-size", str(n_ctx), "--batch-size", "512"]
        child = subprocess.Popen(
            [*command, *flags], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            while not _is_ready(path):
                if child.poll() is not None:
                    raise SystemExit(f"the raw server ended with code {child.returncode}")
                time.sleep(0.002)
            yield path
        finally:
            child.kill()
            child.wait()


def _is_ready(path: str) -> bool:
    connection = _UnixConnection(path)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == http.client.OK
    except OSError:
        return False
    finally:
        connection.close()


def raw_stream(path: str, max_tokens: int, **fields: Any) -> Iterator[str]:
    """The pieces of one streamed answer."""
    body = {"messages": MESSAGES, "stream": True, "max_tokens": max_tokens, "temperature": 0, **fields}
    connection = _UnixConnection(path)
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        for line in response:
            if line.startswith(b"data: {"):
                choices = json.loads(line[len(b"data: ") :])["choices"]
                if choices and choices[0]["delta"].get("content"):
                    yield choices[0]["delta"]["content"]
    finally:
        connection.close()
