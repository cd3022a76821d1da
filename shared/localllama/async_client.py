"""The asynchronous client: the twin of `client.py`, with the same names as coroutines."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from ._call import Call, CompletionCall, Exchange, Notes, learn_server
from ._call import count_tokens as count_tokens_steps
from ._call import render_prompt as render_prompt_steps
from ._client_base import ClientBase
from ._connection import Limits, in_daemon_thread, is_safe_to_repeat, retry_policy
from ._frames import LettingGo, let_go
from .errors import APIStatusError, MalformedResponseError, ServerConnectionError, StreamInterruptedError
from .settings import SamplingSettings, TimeoutSettings
from .types import ChatChunk, ChatRequest, ChatResult, Endpoint, ServerInfo, StartProgress

if TYPE_CHECKING:
    from typing_extensions import Self

    from ._transports.http import AsyncHTTPTransport

__all__ = ["AsyncChatStream", "AsyncLocalLlamaClient"]

T = TypeVar("T")


class AsyncChatStream:
    """A streamed answer: an async iterator of `ChatChunk`s that can be closed and asked for what came so far.

    Closing the stream, or cancelling the task that reads it, ends the generation on the server at once.
    """

    def __init__(self, chunks: AsyncGenerator[ChatChunk, None], result: Callable[[], ChatResult]) -> None:
        self._chunks = chunks
        self._result = result

    def __aiter__(self) -> AsyncIterator[ChatChunk]:
        return self

    async def __anext__(self) -> ChatChunk:
        with LettingGo():
            return await self._chunks.__anext__()

    async def aclose(self) -> None:
        """End the generation. Idempotent."""
        await self._chunks.aclose()

    def result(self) -> ChatResult:
        """All that has come so far, as one `ChatResult`; the whole answer once the stream has ended."""
        return self._result()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()


class AsyncLocalLlamaClient(ClientBase["AsyncHTTPTransport"]):
    """Talks to one model from asyncio code. Arguments, sharing and closing as for `LocalLlamaClient`.

    One object may be used from several event loops, one after the other or at the same time: nothing is kept between two
    calls that belongs to a loop. The start of the server runs in a thread; everything else is true async I/O.
    """

    # -- generation -------------------------------------------------------------------------------------------------

    async def chat(
        self,
        request: ChatRequest,
        *,
        sampling: SamplingSettings | None = None,
        timeouts: TimeoutSettings | None = None,
    ) -> ChatResult:
        """Generate a whole answer; see `LocalLlamaClient.chat`."""
        self._connection.refuse_if_closed()
        return await self._whole(self._chat_call(request, sampling, timeouts))

    def stream_chat(
        self,
        request: ChatRequest,
        *,
        sampling: SamplingSettings | None = None,
        timeouts: TimeoutSettings | None = None,
    ) -> AsyncChatStream:
        """Generate an answer as a stream; not a coroutine, the request is sent when the first chunk is asked for."""
        self._connection.refuse_if_closed()
        return self._stream(self._chat_call(request, sampling, timeouts))

    async def complete(
        self, prompt: str, *, sampling: SamplingSettings | None = None, timeouts: TimeoutSettings | None = None
    ) -> ChatResult:
        """Go on from a raw prompt, without a chat template."""
        self._connection.refuse_if_closed()
        return await self._whole(CompletionCall(prompt, sampling or self.sampling, timeouts or self.timeouts))

    def stream_complete(
        self, prompt: str, *, sampling: SamplingSettings | None = None, timeouts: TimeoutSettings | None = None
    ) -> AsyncChatStream:
        """Go on from a raw prompt as a stream."""
        self._connection.refuse_if_closed()
        return self._stream(CompletionCall(prompt, sampling or self.sampling, timeouts or self.timeouts))

    async def _whole(self, call: Call) -> ChatResult:
        call.is_shown = False
        async with self._stream(call) as stream:
            async for _ in stream:
                continue
            return stream.result()

    def _stream(self, call: Call) -> AsyncChatStream:
        return AsyncChatStream(self._chunks(call), call.result)

    async def _chunks(self, call: Call) -> AsyncGenerator[ChatChunk, None]:
        while True:
            endpoint = await self._endpoint()
            try:
                with self._connection.in_use():
                    chunks = self._send(call, endpoint)
                    try:
                        async for chunk in chunks:
                            for shown in call.show(chunk):
                                yield shown
                    finally:
                        # An async generator is not closed with the one that reads it.
                        await chunks.aclose()
                call.note_speed()
                if call.is_finished():
                    break
                continue
            except (APIStatusError, MalformedResponseError) as error:
                call.after_failure(error, self._connection, endpoint)
                let_go(error)
                continue
            except (ServerConnectionError, StreamInterruptedError) as error:
                # Waits a moment for the news of the server's death, so not on the event loop.
                decide = partial(call.after_failure, error, self._connection, endpoint)
                failure = error
            await in_daemon_thread(decide)
            let_go(failure)
        for chunk in call.held():
            yield chunk

    async def _send(self, call: Call, endpoint: Endpoint) -> AsyncGenerator[ChatChunk, None]:
        from tenacity import AsyncRetrying

        transport = self._kept_transport(endpoint)
        # One clock for all that is asked and sent; the start of the server has a limit of its own.
        limits = (call.timeouts, time.monotonic())

        async def open_stream() -> tuple[AsyncGenerator[ChatChunk, None], ChatChunk | None]:
            sending = await self._drive(call.prepare(self._connection.notes(endpoint)), endpoint, limits)
            chunks = transport.stream(sending.path, sending.body, sending.parser, *limits)
            try:
                return chunks, await chunks.__anext__()
            except StopAsyncIteration:
                return chunks, None

        opened: tuple[AsyncGenerator[ChatChunk, None], ChatChunk | None] = await AsyncRetrying(
            **retry_policy(self._connection.max_retries)
        )(open_stream)
        chunks, first = opened
        try:
            if first is not None:
                yield first
            async for chunk in chunks:
                yield chunk
        finally:
            await chunks.aclose()

    # -- questions --------------------------------------------------------------------------------------------------

    async def tokenize(self, text: str, *, add_special: bool = False, parse_special: bool = False) -> list[int]:
        """The token ids of a text; see `LocalLlamaClient.tokenize`."""
        body = {"content": text, "add_special": add_special, "parse_special": parse_special}
        answer = await self._ask("POST", "/tokenize", body)
        tokens: list[int] = answer["tokens"]
        return tokens

    async def detokenize(self, tokens: list[int]) -> str:
        """The text of token ids."""
        answer = await self._ask("POST", "/detokenize", {"tokens": tokens})
        text: str = answer["content"]
        return text

    async def count_tokens(self, request: ChatRequest) -> int:
        """Tokens that a conversation takes in the context window."""
        return await self._answer_to(lambda notes: count_tokens_steps(request, notes))

    async def render_prompt(self, request: ChatRequest) -> str:
        """The prompt that the model's chat template makes of a conversation."""
        return await self._answer_to(lambda notes: render_prompt_steps(request, notes))

    async def server_info(self) -> ServerInfo:
        """What the server says of itself; starts it."""
        return await self._answer_to(learn_server)

    async def _ask(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        def steps(_: Notes) -> Generator[Exchange, Any, Any]:
            return (yield method, path, body)

        return await self._answer_to(steps)

    async def _answer_to(self, steps: Callable[[Notes], Generator[Exchange, Any, T]]) -> T:
        with LettingGo():
            endpoint = await self._endpoint()
            return await self._drive(steps(self._connection.notes(endpoint)), endpoint)

    async def _drive(self, steps: Generator[Exchange, Any, T], endpoint: Endpoint, limits: Limits | None = None) -> T:
        transport = self._kept_transport(endpoint)
        try:
            exchange = next(steps)
            while True:
                try:
                    answer = await self._exchange(transport, limits or (self.timeouts, None), *exchange)
                except APIStatusError as error:
                    if is_safe_to_repeat(error):
                        raise
                    exchange = steps.throw(error)
                else:
                    exchange = steps.send(answer)
        except StopIteration as stop:
            value: T = stop.value
            return value

    async def _exchange(
        self, transport: AsyncHTTPTransport, limits: Limits, method: str, path: str, body: dict[str, Any] | None
    ) -> Any:
        if method == "GET":
            return await transport.get_json(path, *limits)
        return await transport.post_json(path, body or {}, *limits)

    # -- life -------------------------------------------------------------------------------------------------------

    async def start(self, on_progress: Callable[[StartProgress], None] | None = None) -> None:
        """Fetch the model and start the server now; `on_progress` is called in the thread that does it."""
        with LettingGo():
            await self._endpoint(on_progress)

    async def aclose(self) -> None:
        """Give the server up; it stops, within two seconds, if no other client uses it. Idempotent."""
        self._connection.mark_closed()
        for transport in self._taken_transports():
            await transport.aclose()
        await in_daemon_thread(self._connection.close)

    def close(self) -> None:
        """`aclose` for callers that are not in a coroutine."""
        self._connection.close()
        self._transports.clear()

    async def _endpoint(self, on_progress: Callable[[StartProgress], None] | None = None) -> Endpoint:
        ready = self._connection.ready_endpoint()
        if ready is not None:
            return ready
        return await in_daemon_thread(lambda: self._connection.endpoint(on_progress))

    def _new_transport(self, endpoint: Endpoint) -> AsyncHTTPTransport:
        from ._transports.http import AsyncHTTPTransport

        return AsyncHTTPTransport(endpoint)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()
