"""Time limits: each fires when it should, names itself, and ends the connection; signs of life count, noise does not."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from core.transports.conftest import Twin
from localllama import (
    RequestTimeoutError,
    TimeoutSettings,
)
from localllama._protocol.stream import ChatStreamParser
from localllama._transports.http import AsyncHTTPTransport, HTTPTransport
from support.golden_streams import DONE, LAST, ROLE, TEXT, delta, progress
from support.raw_server import END, STALL, STREAM_HEAD, answer, chunk, raw_server

HELLO = STREAM_HEAD + chunk(ROLE + delta(content="Hello"))


def limits(**seconds: float) -> TimeoutSettings:
    return TimeoutSettings(**{f"{name}_seconds": value for name, value in seconds.items()})


PING = chunk(b":\n\n")


def test_pings_and_headers_are_no_first_token(twin: Twin, tmp_path: Path) -> None:
    with raw_server(tmp_path, [STREAM_HEAD, *[PING, 0.05] * 100]) as server:
        started = time.monotonic()
        _, error = twin.stream(server.endpoint, timeouts=limits(first_token=0.3))
        assert 0.25 < time.monotonic() - started < 2
        server.wait_until_left()
    assert isinstance(error, RequestTimeoutError)
    assert (error.limit, error.seconds) == ("first_token", 0.3)
    assert "first_token_seconds" in str(error)


def test_pings_are_no_further_token(twin: Twin, tmp_path: Path) -> None:
    with raw_server(tmp_path, [HELLO, *[PING, 0.05] * 100]) as server:
        chunks, error = twin.stream(server.endpoint, timeouts=limits(between_tokens=0.3))
        server.wait_until_left()
    assert [item.text for item in chunks] == ["Hello"]
    assert isinstance(error, RequestTimeoutError)
    assert error.limit == "between_tokens"


def test_progress_is_a_sign_of_life(twin: Twin, tmp_path: Path) -> None:
    steps: list[Any] = [STREAM_HEAD]
    for done in range(8):
        steps += [chunk(progress(done)), 0.15]
    with raw_server(tmp_path, [*steps, chunk(TEXT) + END]) as server:
        chunks, error = twin.stream(server.endpoint, timeouts=limits(first_token=0.6))
    assert error is None
    assert sum(item.progress is not None for item in chunks) == 10


def test_the_whole_call_has_a_limit_too(twin: Twin, tmp_path: Path) -> None:
    token = chunk(delta(content="x"))
    with raw_server(tmp_path, [HELLO, *[token, 0.05] * 100]) as server:
        started = time.monotonic()
        chunks, error = twin.stream(server.endpoint, timeouts=limits(total=0.5))
        assert time.monotonic() - started < 2
        server.wait_until_left()
    assert len(chunks) > 3
    assert isinstance(error, RequestTimeoutError)
    assert (error.limit, error.seconds) == ("total", 0.5)


@pytest.mark.parametrize("limit", ["first_token", "total"])
def test_calls_without_a_stream_have_limits(twin: Twin, tmp_path: Path, limit: str) -> None:
    with raw_server(tmp_path, [b"HTTP/1.1 200 OK\r\n", STALL]) as server:
        with pytest.raises(RequestTimeoutError) as caught:
            twin.json(server.endpoint, "/props", timeouts=limits(**{limit: 0.2}))
        server.wait_until_left()
    assert caught.value.limit == limit


def test_a_server_that_does_not_read_the_request(twin: Twin, tmp_path: Path) -> None:
    # Nobody accepts, but the kernel takes the connection; the body does not fit its buffers.
    with raw_server(tmp_path) as server:
        started = time.monotonic()
        _, error = twin.stream(server.endpoint, body={"messages": ["x" * 20_000_000]}, timeouts=limits(first_token=0.3))
        assert time.monotonic() - started < 3
    assert isinstance(error, RequestTimeoutError)
    assert error.limit == "first_token"


def test_a_full_queue_of_connections_is_waited_for(twin: Twin, tmp_path: Path) -> None:
    # Linux answers a non-blocking connect to such a socket with EAGAIN instead of letting it wait.
    with raw_server(tmp_path, backlog=0) as server, ExitStack() as waiting:
        assert server.endpoint.socket_path is not None
        is_full = False
        while not is_full:
            one = waiting.enter_context(socket.socket(socket.AF_UNIX))
            one.setblocking(False)
            is_full = one.connect_ex(server.endpoint.socket_path) != 0
        started = time.monotonic()
        _, error = twin.stream(server.endpoint, timeouts=limits(connect=0.4, first_token=20))
        assert time.monotonic() - started > 0.3
    assert isinstance(error, RequestTimeoutError)
    assert error.limit == "connect"


def test_a_burst_on_a_short_queue(twin: Twin, tmp_path: Path) -> None:
    with raw_server(tmp_path, [0.01, answer(200, b"{}")], backlog=1) as server:
        if twin.is_async:

            async def burst() -> list[Any]:
                transport = AsyncHTTPTransport(server.endpoint)
                return await asyncio.gather(*(transport.get_json("/x", TimeoutSettings()) for _ in range(40)))

            assert asyncio.run(burst()) == [{}] * 40
        else:
            transport = HTTPTransport(server.endpoint)
            results: list[Any] = []
            threads = [
                threading.Thread(target=lambda: results.append(transport.get_json("/x", TimeoutSettings())))
                for _ in range(40)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(timeout=20)
            assert results == [{}] * 40


def test_a_slow_reader_is_not_a_slow_server(twin: Twin, tmp_path: Path) -> None:
    words = [
        STREAM_HEAD + chunk(ROLE),
        *(chunk(delta(content="x")) for _ in range(4)),
        chunk(delta("stop") + LAST + DONE) + END,
    ]
    with raw_server(tmp_path, words) as server:
        _, error = twin.stream(
            server.endpoint, timeouts=limits(between_tokens=0.2), on_chunk=lambda _: time.sleep(0.25)
        )
    assert error is None


@pytest.mark.parametrize("is_streamed", [False, True])
def test_the_total_counts_from_the_begin_of_the_call_that_a_request_is_a_part_of(
    tmp_path: Path, is_streamed: bool
) -> None:
    """A call may ask the server several things before the answer; its limit is one for all of them."""
    with raw_server(tmp_path, [STALL]) as server:
        transport = HTTPTransport(server.endpoint)
        call_began = time.monotonic() - 100
        with pytest.raises(RequestTimeoutError) as caught:
            if is_streamed:
                list(transport.stream("/v1/chat/completions", {}, ChatStreamParser(), limits(total=60), call_began))
            else:
                transport.get_json("/props", limits(total=60), call_began)
        transport.close()
    assert (caught.value.limit, caught.value.seconds) == ("total", 60)
