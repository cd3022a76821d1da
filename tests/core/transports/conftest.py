"""Both twins behind one face, so that every case runs on both."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from localllama import ChatChunk, LocalLlamaError, TimeoutSettings
from localllama._protocol.stream import ChatStreamParser, StreamParser
from localllama._transports.http import AsyncHTTPTransport, HTTPTransport
from localllama.types import Endpoint

CHAT = "/v1/chat/completions"
Outcome = tuple[list[ChatChunk], LocalLlamaError | None]


class Twin:
    """Runs calls on one of the twins and returns what came, and the error that ended it."""

    def __init__(self, is_async: bool) -> None:
        self.is_async = is_async

    def stream(
        self,
        endpoint: Endpoint,
        *,
        parser: StreamParser | None = None,
        timeouts: TimeoutSettings | None = None,
        body: dict[str, Any] | None = None,
        path: str = CHAT,
        on_chunk: Callable[[ChatChunk], None] = lambda _: None,
    ) -> Outcome:
        arguments = (path, body or {"messages": []}, parser or ChatStreamParser(), timeouts or TimeoutSettings())
        chunks: list[ChatChunk] = []

        def take(item: ChatChunk) -> None:
            chunks.append(item)
            on_chunk(item)

        async def run() -> None:
            transport = AsyncHTTPTransport(endpoint)
            async for item in transport.stream(*arguments):
                take(item)
            await transport.aclose()

        try:
            if self.is_async:
                asyncio.run(run())
            else:
                transport = HTTPTransport(endpoint)
                for item in transport.stream(*arguments):
                    take(item)
                transport.close()
        except LocalLlamaError as error:
            return chunks, error
        return chunks, None

    def json(
        self, endpoint: Endpoint, path: str, body: dict[str, Any] | None = None, timeouts: TimeoutSettings | None = None
    ) -> Any:
        limits = timeouts or TimeoutSettings()

        async def run() -> Any:
            transport = AsyncHTTPTransport(endpoint)
            if body is None:
                return await transport.get_json(path, limits)
            return await transport.post_json(path, body, limits)

        if self.is_async:
            return asyncio.run(run())
        transport = HTTPTransport(endpoint)
        return transport.get_json(path, limits) if body is None else transport.post_json(path, body, limits)


@pytest.fixture(params=["sync", "async"])
def twin(request: pytest.FixtureRequest) -> Twin:
    return Twin(request.param == "async")
