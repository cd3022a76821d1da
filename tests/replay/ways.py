"""One request in each of the four ways: they must come to the same answer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from localllama import (
    AsyncLocalLlamaClient,
    ChatChunk,
    ChatRequest,
    ChatResult,
    LocalLlamaClient,
    SamplingSettings,
    ServerSettings,
)

BASE_URL = "http://localllama"
GREEDY = {"temperature": 0, "seed": 1, "max_tokens": 48}


def settings(**changes: Any) -> ServerSettings:
    built: ServerSettings = ServerSettings.build({"base_url": BASE_URL, **changes})
    return built


def sampling(**changes: Any) -> SamplingSettings:
    built: SamplingSettings = SamplingSettings.build({**GREEDY, **changes})
    return built


@contextmanager
def new_client(**changes: Any) -> Iterator[LocalLlamaClient]:
    with LocalLlamaClient(settings(), sampling=sampling(**changes)) as client:
        yield client


def streamed(request: ChatRequest, **changes: Any) -> tuple[list[ChatChunk], ChatResult]:
    with new_client(**changes) as client, client.stream_chat(request) as stream:
        chunks = list(stream)
        return chunks, stream.result()


async def _in_both_async_ways(request: ChatRequest, changes: dict[str, Any]) -> list[ChatResult]:
    async with AsyncLocalLlamaClient(settings(), sampling=sampling(**changes)) as client:
        whole = await client.chat(request)
        async with client.stream_chat(request) as stream:
            chunks = [chunk async for chunk in stream]
            last = stream.result()
        assert "".join(chunk.text for chunk in chunks) == last.text
        assert "".join(chunk.reasoning for chunk in chunks).endswith(last.reasoning)
        return [whole, last]


def in_each_way(request: ChatRequest, *, costs_alike: bool = True, **changes: Any) -> ChatResult:
    """The one answer of `chat`, `stream_chat` and their async twins.

    It costs less from the second call of a client on where the first one learned what this template does to a grammar.
    """
    with new_client(**changes) as client:
        results = [client.chat(request)]
    chunks, last = streamed(request, **changes)
    assert "".join(chunk.text for chunk in chunks) == last.text
    # What was thought before an answer was asked for again has been seen already.
    assert "".join(chunk.reasoning for chunk in chunks).endswith(last.reasoning)
    assert sum(chunk.usage is not None for chunk in chunks) == 1
    results += [last, *asyncio.run(_in_both_async_ways(request, changes))]
    first, *others = [_comparable(result, costs_alike=costs_alike) for result in results]
    assert all(other == first for other in others), results
    return results[0]


def _comparable(result: ChatResult, *, costs_alike: bool) -> ChatResult:
    # The ids of calls that came in an envelope are random numbers.
    result = replace(result, tool_calls=tuple(replace(call, id="") for call in result.tool_calls))
    return result if costs_alike else replace(result, usage=None, timings=None)
