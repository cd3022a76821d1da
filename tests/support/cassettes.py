"""Recorded HTTP of a real llama-server, played back below httpx: no process, no socket.

vcrpy keeps and matches the recordings. Its own stub replaces httpx's transports only; ours is one of its own, so it is
replaced here. It also reads a whole answer before it returns, while these give it event by event, and they know two
endings that vcrpy cannot keep: a connection that was refused and one that broke off.

What the tests see while they record is what they will see when it is played: scrubbed of everything that differs from one
run to the next.
"""

from __future__ import annotations

import re
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any, Protocol

import anyio
import anyio.lowlevel
import httpcore
import httpx
import pytest
import yaml
from vcr.cassette import Cassette
from vcr.errors import UnhandledHTTPRequestError
from vcr.request import Request

from localllama._transports import connection

__all__ = ["Live", "Player", "Serializer", "install", "without_indents"]

ENDING = "X-Recorded-Ending"
REFUSED, BROKE_OFF = "refused", "broke off"
_RETRIED_STATUS = 503

Stored = dict[str, Any]


class Live(Protocol):
    """Sends a request to a real server; only there while a cassette is recorded."""

    def exchange(self, method: str, target: str, body: bytes) -> tuple[int, str, bytes, str | None]:
        """Status, content type, body, and how it ended if not by itself."""
        ...


class Player:
    """Plays a cassette, or fills it from a live server.

    Args:
        cassette: vcrpy's.
        live: The server; None to play.
    """

    def __init__(self, cassette: Cassette, live: Live | None) -> None:
        self._cassette = cassette
        self._live = live
        self._lock = threading.Lock()
        self._scrub = Scrubber()

    def response_to(self, request: httpx.Request) -> Stored:
        """The recorded answer; httpcore's error where none came."""
        # The body is one piece of bytes, so reading it here takes nothing away.
        body = request.read()
        if self._live is not None:
            body = without_indents(body)
        kind = request.headers.get("Content-Type")
        asked = Request(request.method, str(request.url), body, {"Content-Type": kind} if kind else {})
        with self._lock:
            if self._live is not None:
                self._record(asked, request)
            stored: Stored = self._cassette.play_response(asked)
        clock = request.extensions["clock"]
        if _ending(stored) == REFUSED:
            raise httpcore.ConnectError("connection refused")
        clock.restart("first_token")
        clock.is_sent = clock.has_response = True
        return stored

    def _record(self, asked: Request, request: httpx.Request) -> None:
        if self._cassette.allow_playback_repeats:
            try:
                self._cassette.responses_of(asked)
            except UnhandledHTTPRequestError:
                pass
            else:
                return
        assert self._live is not None
        target = request.url.raw_path.decode()
        while True:
            status, kind, body, ending = self._live.exchange(request.method, target, asked.body or b"")
            # How often a server that loads is asked is chance: once is kept.
            if not (status == _RETRIED_STATUS and self._was_last(asked, status)):
                break
        headers = {"Content-Type": [kind]} if kind else {}
        if ending is not None:
            headers[ENDING] = [ending]
        body = self._scrub(body)
        self._cassette.append(
            asked, {"status": {"code": status, "message": ""}, "headers": headers, "body": {"string": body}}
        )

    def _was_last(self, asked: Request, status: int) -> bool:
        last = self._cassette.data[-1:]
        return any(request.body == asked.body and response["status"]["code"] == status for request, response in last)


def without_indents(body: bytes) -> bytes:
    """Python 3.13 takes the indent out of docstrings, and so out of the descriptions of tools that are functions."""
    return re.sub(rb"(\\n) +", rb"\1", body)


def _ending(stored: Stored) -> str | None:
    return next(iter(stored["headers"].get(ENDING, [])), None)


def _pieces(stored: Stored) -> Iterator[bytes]:
    """The body, an event at a time, as a server writes it."""
    body: bytes = stored["body"]["string"]
    yield from re.findall(rb".+?(?:\n\n|\Z)", body, re.DOTALL)
    if _ending(stored) == BROKE_OFF:
        raise httpcore.RemoteProtocolError("peer closed connection without sending complete message body")


class _Body(httpx.SyncByteStream, httpx.AsyncByteStream):
    def __init__(self, stored: Stored) -> None:
        self._stored = stored

    def __iter__(self) -> Iterator[bytes]:
        yield from _pieces(self._stored)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in _pieces(self._stored):
            await anyio.lowlevel.checkpoint()  # bytes from a socket never come without the loop turning
            yield piece


def _to_response(stored: Stored) -> httpx.Response:
    headers = [(name, value) for name, values in stored["headers"].items() for value in values if name != ENDING]
    return httpx.Response(stored["status"]["code"], headers=headers, stream=_Body(stored))


def install(monkeypatch: pytest.MonkeyPatch, player: Player) -> None:
    """Let every request of the core be answered by `player`."""

    def handle(self: Any, request: httpx.Request) -> httpx.Response:
        return _to_response(player.response_to(request))

    async def handle_async(self: Any, request: httpx.Request) -> httpx.Response:
        return _to_response(player.response_to(request))

    monkeypatch.setattr(connection.ConnectionTransport, "handle_request", handle)
    monkeypatch.setattr(connection.AsyncConnectionTransport, "handle_async_request", handle_async)


# -- what is kept ---------------------------------------------------------------------------------------------------

_FIXED: tuple[tuple[bytes, bytes], ...] = (
    (rb'"created":\d+', b'"created":0'),
    (rb'"id":"chatcmpl-[^"]*"', b'"id":"chatcmpl-0"'),
    (rb'"((?:prompt|predicted)_(?:ms|per_token_ms|per_second))":[-+.\de]+', rb'"\1":1.0'),
    (rb'"time_ms":\d+', b'"time_ms":1'),
    (rb"((?:Current date|Today Date): )[-\w ]+", rb"\g<1>2000-01-01"),  # some templates tell the date
    (rb"<__media_\w+__>", b"<__media__>"),
    (rb'"model_path":"(?:[^"]*/)?([^"/]*)"', rb'"model_path":"\1"'),
    (rb'"(build_info|system_fingerprint)":"[^"]*"', rb'"\1":"b0-recorded"'),
)
_TOOL_CALL_ID = re.compile(rb'"id":"([A-Za-z0-9]{24,})"')


class Scrubber:
    """Takes out what differs between two runs of one build: clocks, paths, and the ids that are random numbers."""

    def __init__(self) -> None:
        self._ids: dict[bytes, bytes] = {}

    def __call__(self, body: bytes) -> bytes:
        for pattern, fixed in _FIXED:
            body = re.sub(pattern, fixed, body)
        return _TOOL_CALL_ID.sub(self._numbered, body)

    def _numbered(self, match: re.Match[bytes]) -> bytes:
        name = self._ids.setdefault(match[1], b"call-%d" % (len(self._ids) + 1))
        return b'"id":"%b"' % name


class _Dumper(yaml.SafeDumper):
    """Text of several lines as such, so that a change can be read."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


class Serializer:
    """vcrpy's YAML with a head that says what was recorded.

    Attributes:
        head: Build, model, template and date of the recording in progress.
    """

    def __init__(self) -> None:
        self.head: dict[str, str] = {}

    def deserialize(self, text: str) -> Any:
        """The cassette in a file."""
        return yaml.safe_load(text)

    def serialize(self, cassette: dict[str, Any]) -> str:
        """The text of a file."""
        return yaml.dump(
            {"recorded": self.head, **cassette}, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100_000
        )
