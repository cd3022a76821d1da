"""A stand-in for the core's clients that answers from a script and writes down what it was asked."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from typing_extensions import Self

from localllama import (
    ChatChunk,
    ChatRequest,
    ChatResult,
    LocalLlamaError,
    ModelInfo,
    SamplingSettings,
    ServerSettings,
    TimeoutSettings,
    ToolCall,
    Usage,
)

USAGE = Usage(prompt_tokens=7, completion_tokens=3, total_tokens=10, cached_tokens=2)
HELLO = (
    ChatChunk(text="Hel", id="chatcmpl-1", model="served"),
    ChatChunk(text="lo", id="chatcmpl-1", model="served"),
    ChatChunk(finish_reason="stop", id="chatcmpl-1", model="served", system_fingerprint="b1-abc"),
    ChatChunk(usage=USAGE, id="chatcmpl-1", model="served"),
)


@dataclass
class Sent:
    """What one call gave to the core."""

    settings: ServerSettings
    request: ChatRequest
    sampling: SamplingSettings
    timeouts: TimeoutSettings


@dataclass
class Script:
    """What the stand-in answers: the chunks, then the error if there is one."""

    chunks: Sequence[ChatChunk] = HELLO
    error: LocalLlamaError | None = None
    info: ModelInfo | LocalLlamaError | None = None
    sent: list[Sent] = field(default_factory=list)
    closed_streams: int = 0
    closed_clients: int = 0
    clients: int = 0

    @property
    def last(self) -> Sent:
        return self.sent[-1]


class _Stream:
    def __init__(self, script: Script) -> None:
        self._script = script
        self._parts: list[ChatChunk] = []

    def __iter__(self) -> Iterator[ChatChunk]:
        for chunk in self._script.chunks:
            self._parts.append(chunk)
            yield chunk
        if self._script.error:
            raise self._script.error

    async def __aiter__(self) -> AsyncIterator[ChatChunk]:
        for chunk in self:
            yield chunk

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._script.closed_streams += 1

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._script.closed_streams += 1

    def result(self) -> ChatResult:
        last = self._parts[-1]
        deltas = [delta for part in self._parts for delta in part.tool_calls]
        arguments = "".join(delta.arguments for delta in deltas)
        return ChatResult(
            text="".join(part.text for part in self._parts),
            reasoning="".join(part.reasoning for part in self._parts),
            tool_calls=tuple(ToolCall(delta.id, delta.name, arguments) for delta in deltas if delta.id),
            finish_reason="stop",
            usage=last.usage,
            timings=last.timings,
            model="served",
            id="chatcmpl-1",
        )


class _Client:
    def __init__(self, script: Script, settings: ServerSettings) -> None:
        self.script = script
        self.settings = settings
        script.clients += 1

    def stream_chat(self, request: ChatRequest, *, sampling: SamplingSettings, timeouts: TimeoutSettings) -> _Stream:
        self.script.sent.append(Sent(self.settings, request, sampling, timeouts))
        return _Stream(self.script)

    def model_info(self) -> ModelInfo | None:
        if isinstance(self.script.info, LocalLlamaError):
            raise self.script.info
        return self.script.info

    def close(self) -> None:
        self.script.closed_clients += 1


class _SyncClient(_Client):
    def chat(self, request: ChatRequest, **options: Any) -> ChatResult:
        with self.stream_chat(request, **options) as stream:
            for _ in stream:
                continue
            return stream.result()


class _AsyncClient(_Client):
    async def chat(self, request: ChatRequest, **options: Any) -> ChatResult:
        async with self.stream_chat(request, **options) as stream:
            async for _ in stream:
                continue
            return stream.result()

    async def aclose(self) -> None:
        self.script.closed_clients += 1


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    """Put the stand-in in place of both clients of the core."""
    from langchain_localllama import _clients

    script = Script()

    class Sync(_SyncClient):
        def __init__(self, settings: ServerSettings, *, max_retries: int) -> None:
            super().__init__(script, settings)

    class Async(_AsyncClient):
        def __init__(self, settings: ServerSettings, *, max_retries: int) -> None:
            super().__init__(script, settings)

    monkeypatch.setattr(_clients, "LocalLlamaClient", Sync)
    monkeypatch.setattr(_clients, "AsyncLocalLlamaClient", Async)
    return script
