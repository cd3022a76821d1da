"""However a caller leaves a stream, the server sees it at once and has its slot back."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import httpcore
import httpx
import pytest

from core.transports.conftest import CHAT
from localllama import (
    ClientClosedError,
    LocalLlamaError,
    TimeoutSettings,
)
from localllama._protocol.stream import ChatStreamParser
from localllama._transports.http import AsyncHTTPTransport, HTTPTransport
from support.golden_streams import DONE, ROLE, delta
from support.raw_server import END, STALL, STREAM_HEAD, answer, chunk, raw_server
from support.waiting import wait_until

HELLO = STREAM_HEAD + chunk(ROLE + delta(content="Hello"))
NO_LIMITS = TimeoutSettings(connect_seconds=None, first_token_seconds=None, between_tokens_seconds=None)


def test_a_closed_generator_leaves_at_once(tmp_path: Path) -> None:
    with raw_server(tmp_path, [HELLO, STALL]) as server:
        stream = HTTPTransport(server.endpoint).stream(CHAT, {}, ChatStreamParser(), NO_LIMITS)
        assert next(stream).text == "Hello"
        stream.close()
        server.wait_until_left()


def test_a_forgotten_generator_leaves_at_once(tmp_path: Path) -> None:
    with raw_server(tmp_path, [HELLO, STALL]) as server:
        stream = HTTPTransport(server.endpoint).stream(CHAT, {}, ChatStreamParser(), NO_LIMITS)
        next(stream)
        del stream
        gc.collect()
        server.wait_until_left()


@pytest.fixture
def nothing_is_collected(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who reads a response lives on, as on an interpreter without reference counts: the connection must be closed."""
    kept: list[Any] = []
    iter_bytes, aiter_bytes = httpx.Response.iter_bytes, httpx.Response.aiter_bytes

    def keeping(response: httpx.Response) -> Any:
        kept.append(iter_bytes(response))
        return kept[-1]

    def akeeping(response: httpx.Response) -> Any:
        kept.append(aiter_bytes(response))
        return kept[-1]

    monkeypatch.setattr(httpx.Response, "iter_bytes", keeping)
    monkeypatch.setattr(httpx.Response, "aiter_bytes", akeeping)


@pytest.mark.usefixtures("nothing_is_collected")
def test_leaving_is_no_work_of_the_garbage_collector(tmp_path: Path) -> None:
    with raw_server(tmp_path, [HELLO, STALL]) as server:
        stream = HTTPTransport(server.endpoint).stream(CHAT, {}, ChatStreamParser(), NO_LIMITS)
        assert next(stream).text == "Hello"
        stream.close()
        server.wait_until_left()


@pytest.mark.usefixtures("nothing_is_collected")
def test_leaving_is_no_work_of_the_garbage_collector_in_asyncio(tmp_path: Path) -> None:
    with raw_server(tmp_path, [HELLO, STALL]) as server:

        async def run() -> None:
            stream = AsyncHTTPTransport(server.endpoint).stream(CHAT, {}, ChatStreamParser(), NO_LIMITS)
            assert (await anext(stream)).text == "Hello"
            await stream.aclose()
            await asyncio.to_thread(server.wait_until_left)

        asyncio.run(run())


FORGETFUL_PROGRAM = """
import builtins, sys
from localllama import TimeoutSettings
from localllama.types import Endpoint
from localllama._protocol.stream import ChatStreamParser
from localllama._transports.http import HTTPTransport

class Holder: ...

transport = HTTPTransport(Endpoint("http://localllama", socket_path=sys.argv[1]))
builtins.holder = Holder()
builtins.holder.itself = builtins.holder
builtins.holder.stream = transport.stream("/v1/chat/completions", {}, ChatStreamParser(), TimeoutSettings())
print(next(builtins.holder.stream).text)
"""


def test_a_program_may_end_with_a_stream_that_nobody_closed(tmp_path: Path) -> None:
    """It is collected last of all, when httpx's own closing crashes CPython 3.13."""
    with raw_server(tmp_path, [HELLO, STALL]) as server:
        path = server.endpoint.socket_path
        assert path is not None
        ended = subprocess.run(
            [sys.executable, "-c", FORGETFUL_PROGRAM, path], capture_output=True, text=True, timeout=60, check=False
        )
        assert (ended.returncode, ended.stdout) == (0, "Hello\n"), ended.stderr
        server.wait_until_left()


@pytest.mark.parametrize("head", [[HELLO], [STREAM_HEAD], []], ids=["token", "headers", "nothing"])
def test_a_cancelled_task_leaves_at_once(tmp_path: Path, head: list[Any]) -> None:
    with raw_server(tmp_path, [*head, STALL]) as server:

        async def run() -> None:
            transport = AsyncHTTPTransport(server.endpoint)

            has_token = asyncio.Event()

            async def read() -> None:
                async for _ in transport.stream(CHAT, {}, ChatStreamParser(), NO_LIMITS):
                    has_token.set()

            task = asyncio.create_task(read())
            await asyncio.to_thread(wait_until, lambda: server.received)
            if head == [HELLO]:
                await has_token.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.to_thread(server.wait_until_left)

        asyncio.run(run())


def test_wait_for_around_a_stream(tmp_path: Path) -> None:
    with raw_server(tmp_path, [HELLO, STALL]) as server:

        async def run() -> None:
            async for _ in AsyncHTTPTransport(server.endpoint).stream(CHAT, {}, ChatStreamParser(), NO_LIMITS):
                pass

        async def main() -> None:
            await asyncio.wait_for(run(), 0.3)

        with pytest.raises(asyncio.TimeoutError):
            asyncio.run(main())
        server.wait_until_left()


@pytest.mark.parametrize("head", [[HELLO], [STREAM_HEAD], []], ids=["token", "headers", "nothing"])
def test_close_ends_a_call_that_waits_in_another_thread(tmp_path: Path, head: list[Any]) -> None:
    caught: list[LocalLlamaError] = []
    with raw_server(tmp_path, [*head, STALL]) as server:
        transport = HTTPTransport(server.endpoint)

        def read() -> None:
            try:
                for _ in transport.stream(CHAT, {}, ChatStreamParser(), NO_LIMITS):
                    pass
            except LocalLlamaError as error:
                caught.append(error)

        thread = threading.Thread(target=read)
        thread.start()
        wait_until(lambda: server.received)
        transport.close()
        transport.close()
        thread.join(timeout=5)
        assert not thread.is_alive()
        server.wait_until_left()
    assert isinstance(caught[0], ClientClosedError)
    with pytest.raises(ClientClosedError):
        transport.get_json("/x", NO_LIMITS)
    with pytest.raises(ClientClosedError):
        next(transport.stream(CHAT, {}, ChatStreamParser(), NO_LIMITS))


def test_aclose_ends_a_call_of_another_task(tmp_path: Path) -> None:
    with raw_server(tmp_path, [HELLO, STALL]) as server:

        async def run() -> None:
            transport = AsyncHTTPTransport(server.endpoint)

            async def read() -> None:
                async for _ in transport.stream(CHAT, {}, ChatStreamParser(), NO_LIMITS):
                    pass

            task = asyncio.create_task(read())
            await asyncio.to_thread(wait_until, lambda: server.received)
            await transport.aclose()
            with pytest.raises(ClientClosedError):
                await task

        asyncio.run(run())


def _connections_in_memory() -> int:
    gc.collect()
    kinds = (httpcore.NetworkStream, httpcore.AsyncNetworkStream)
    return sum(issubclass(type(each), kinds) for each in gc.get_objects())  # `isinstance` would ask proxies of the dead


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_nothing_is_kept_of_calls_that_are_over(tmp_path: Path, is_async: bool) -> None:
    """One client of a service makes a million calls, whole ones and ones that fail."""
    whole = HELLO + chunk(delta("stop") + DONE) + END
    before = _connections_in_memory()

    def wait_until_forgotten() -> None:
        wait_until(lambda: _connections_in_memory() <= before, seconds=5, what="the end of the connections in memory")

    with raw_server(tmp_path, [whole], [HELLO], [answer(500, b"{}")]) as server:

        async def run() -> None:
            transport = AsyncHTTPTransport(server.endpoint)
            for _ in range(4):
                with contextlib.suppress(LocalLlamaError):
                    async for _ in transport.stream(CHAT, {}, ChatStreamParser(), NO_LIMITS):
                        pass
            await asyncio.to_thread(wait_until_forgotten)
            await transport.aclose()

        if is_async:
            asyncio.run(run())
        else:
            transport = HTTPTransport(server.endpoint)
            for _ in range(4):
                with contextlib.suppress(LocalLlamaError):
                    list(transport.stream(CHAT, {}, ChatStreamParser(), NO_LIMITS))
            wait_until_forgotten()
            transport.close()
        assert len(server.received) == 4
