"""The real servers that cassettes are recorded from. Used by `make record` alone; to play a cassette nothing here runs.

LOCALLLAMA_TEST_LLAMA_SERVER      the compiled llama-server
LOCALLLAMA_TEST_TEMPLATES   the directory `models/templates` of the sources of llama.cpp
LOCALLLAMA_TEST_BUILD       what it calls itself where it does not know: builds of an archive say "b0"
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpcore
import httpx

from localllama._transports.clock import CallClock
from localllama._transports.connection import ConnectionTransport, LiveSockets
from localllama.settings import TimeoutSettings

from .cassettes import BROKE_OFF, REFUSED
from .parrot_model import build_parrot_model
from .waiting import wait_until

__all__ = ["Stage", "StagedServer", "staged_server"]

_DEADLINE_SECONDS = 120
_LOADING = 503


@dataclass(frozen=True)
class Stage:
    """What is served in a test.

    Attributes:
        model: "micro", "smollm2", or "parrot", which says what `says` is.
        says: For the parrot.
        template: A file of llama.cpp's `models/templates`, without its suffix; None: the model's own.
        n_ctx: The context window.
        arguments: More of the command line.
        is_caught_loading: The first request meets the server while it loads.
        breaks_after: The server is killed after so many events of a stream.
    """

    model: str = "smollm2"
    says: str = ""
    template: str | None = None
    n_ctx: int = 4096
    arguments: tuple[str, ...] = ()
    is_caught_loading: bool = False
    breaks_after: int | None = None


class StagedServer:
    """One llama-server on a UNIX socket.

    Args:
        stage: What it serves.
        model_path: The file of the model.
        directory: For its socket and its log.
    """

    def __init__(self, stage: Stage, model_path: Path, directory: Path) -> None:
        self._stage = stage
        self._directory = directory
        self._socket_path = directory / "r.sock"
        program = Path(os.environ["LOCALLLAMA_TEST_LLAMA_SERVER"])
        self._command = [str(program), "-m", str(model_path), "--host", str(self._socket_path)]
        self._command += ["-c", str(stage.n_ctx), "-np", "1", "-t", "1", "--alias", stage.model, *stage.arguments]
        if stage.template is not None:
            file = Path(os.environ["LOCALLLAMA_TEST_TEMPLATES"]) / f"{stage.template}.jinja"
            self._command += ["--chat-template-file", str(file)]
        self._child: subprocess.Popen[bytes] | None = None
        self._start()

    def _start(self) -> None:
        with (self._directory / "log").open("wb") as log:
            self._child = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def end(self) -> None:
        """Kill it."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.wait()
        self._socket_path.unlink(missing_ok=True)

    def wait_until_ready(self) -> None:
        """Wait until `/health` answers 200."""

        def is_ready() -> bool:
            assert self._child is None or self._child.poll() is None, (self._directory / "log").read_text()
            with contextlib.suppress(httpcore.ConnectError):
                return self._send("GET", "/health", b"")[0] == httpx.codes.OK
            return False

        wait_until(is_ready, seconds=_DEADLINE_SECONDS, what="the server")

    def exchange(self, method: str, target: str, body: bytes) -> tuple[int, str, bytes, str | None]:
        """Send a request; see `cassettes.Live`."""
        if self._child is None:
            return 0, "", b"", REFUSED
        if self._stage.is_caught_loading and not (self._directory / "caught").exists():
            return self._caught_loading(method, target, body)
        self.wait_until_ready()
        return self._send(method, target, body)

    def build(self) -> str:
        """What the server says it is."""
        return os.environ["LOCALLLAMA_TEST_BUILD"]

    def _caught_loading(self, method: str, target: str, body: bytes) -> tuple[int, str, bytes, str | None]:
        deadline = time.monotonic() + _DEADLINE_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(httpcore.ConnectError):
                answer = self._send(method, target, body)
                if answer[0] == _LOADING:
                    (self._directory / "caught").touch()
                    return answer
                self.end()
                self._start()
        raise AssertionError("the server loaded faster than it could be asked, every time")

    def _send(self, method: str, target: str, body: bytes) -> tuple[int, str, bytes, str | None]:
        headers = {"Content-Type": "application/json", "Content-Length": str(len(body))} if body else {}
        headers["Connection"] = "close"
        request = httpx.Request(
            method, f"http://localllama{target}", headers=headers, content=body, extensions={"clock": _clock()}
        )
        response = _REAL_HANDLE(ConnectionTransport(str(self._socket_path), LiveSockets()), request)
        kind = response.headers.get("Content-Type", "")
        pieces, ending = b"", None
        limit = self._stage.breaks_after if kind.startswith("text/event-stream") else None
        try:
            for piece in response.iter_raw():
                pieces += piece
                if limit is not None and pieces.count(b"\n\n") >= limit and self._child is not None:
                    self.end()
        except httpcore.RemoteProtocolError:
            ending = BROKE_OFF
            # What was on its way when it died is chance.
            events = pieces.split(b"\n\n")[:limit]
            pieces = b"".join(event + b"\n\n" for event in events)
        finally:
            response.close()
        return response.status_code, kind, pieces, ending


_REAL_HANDLE = ConnectionTransport.handle_request


def _clock() -> CallClock:
    return CallClock(TimeoutSettings(total_seconds=_DEADLINE_SECONDS))


@contextlib.contextmanager
def staged_server(stage: Stage, micro_model: Path) -> Iterator[tuple[StagedServer, dict[str, str]]]:
    """Serve a stage; gives the server and the head of its cassette."""
    from localllama._models.store import fetch_model

    with tempfile.TemporaryDirectory() as directory:
        if stage.model == "parrot":
            path = build_parrot_model(Path(directory) / "parrot.gguf", stage.says)
        else:
            path = micro_model if stage.model == "micro" else fetch_model("smollm2-135m")
        server = StagedServer(stage, path, Path(directory))
        try:
            if not stage.is_caught_loading:
                server.wait_until_ready()
            today = dt.datetime.now(dt.timezone.utc).date().isoformat()
            yield (
                server,
                {
                    "build": server.build(),
                    "model": stage.model,
                    "template": f"{stage.template}.jinja" if stage.template else "the model's own",
                    "date": today,
                },
            )
        finally:
            server.end()
