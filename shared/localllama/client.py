"""The synchronous client: the user's object of the core.

Glue only: reference to file, runtime, lease, transport. What is decided in a call is in `_call.py`, how a server lives in
`_server/`, what goes over the wire in `_protocol/`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from ._call import Call, CompletionCall, Exchange, Notes, learn_server
from ._call import count_tokens as count_tokens_steps
from ._call import render_prompt as render_prompt_steps
from ._client_base import ClientBase
from ._connection import Limits, is_safe_to_repeat, retry_policy
from ._frames import LettingGo, let_go
from .errors import APIStatusError, MalformedResponseError, ServerConnectionError, StreamInterruptedError
from .settings import SamplingSettings, TimeoutSettings
from .types import ChatChunk, ChatRequest, ChatResult, Endpoint, ServerInfo, StartProgress

if TYPE_CHECKING:
    from typing_extensions import Self

    from ._transports.http import HTTPTransport

__all__ = ["ChatStream", "LocalLlamaClient"]

T = TypeVar("T")


class ChatStream:
    """A streamed answer: an iterator of `ChatChunk`s that can be closed and asked for what came so far.

    The request is sent when the first chunk is asked for. Closing the stream, or dropping it, ends the generation on the
    server at once and frees its slot.
    """

    def __init__(self, chunks: Generator[ChatChunk, None, None], result: Callable[[], ChatResult]) -> None:
        self._chunks = chunks
        self._result = result

    def __iter__(self) -> Iterator[ChatChunk]:
        return self

    def __next__(self) -> ChatChunk:
        with LettingGo():
            return next(self._chunks)

    def close(self) -> None:
        """End the generation. Idempotent."""
        self._chunks.close()

    def result(self) -> ChatResult:
        """All that has come so far, as one `ChatResult`; the whole answer once the stream has ended."""
        return self._result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class LocalLlamaClient(ClientBase["HTTPTransport"]):
    """Talks to one model. Nothing starts until the first call that needs the server.

    Clients with equal settings, in all threads of this process, share one server; the last one that is closed (or
    dropped) stops it. Thread-safe. A copy, or an unpickled client, is a fresh one with the same settings.

    Closing: `close()` may be called any number of times. A call that another thread is making at that moment raises
    `ClientClosedError`, if this was the last client of its server, and every later call does. In a forked child the
    client works on, with a server of the child's own.

    Args:
        settings: How to serve the model, or where it is served.
        sampling: Defaults for each call.
        timeouts: Limits for each call.
        max_retries: How often a call is tried again where that is surely safe: no connection, or 503 while the model
            loads. A call whose server died before a byte of the answer is sent once more to the next server in any case.

    Raises:
        ConfigurationError: A value is out of range.
    """

    # -- generation -------------------------------------------------------------------------------------------------

    def chat(
        self,
        request: ChatRequest,
        *,
        sampling: SamplingSettings | None = None,
        timeouts: TimeoutSettings | None = None,
    ) -> ChatResult:
        """Generate a whole answer. It is streamed underneath, so that giving up ends the generation.

        Args:
            request: The conversation.
            sampling: All sampling settings of this call; default: the client's.
            timeouts: All limits of this call; default: the client's.

        Raises:
            LocalLlamaError: See `localllama.errors` for each kind.
        """
        self._connection.refuse_if_closed()
        return self._whole(self._chat_call(request, sampling, timeouts))

    def stream_chat(
        self,
        request: ChatRequest,
        *,
        sampling: SamplingSettings | None = None,
        timeouts: TimeoutSettings | None = None,
    ) -> ChatStream:
        """Generate an answer as a stream. Arguments and errors as in `chat`."""
        self._connection.refuse_if_closed()
        return self._stream(self._chat_call(request, sampling, timeouts))

    def complete(
        self, prompt: str, *, sampling: SamplingSettings | None = None, timeouts: TimeoutSettings | None = None
    ) -> ChatResult:
        """Go on from a raw prompt, without a chat template. Arguments and errors as in `chat`."""
        self._connection.refuse_if_closed()
        return self._whole(CompletionCall(prompt, sampling or self.sampling, timeouts or self.timeouts))

    def stream_complete(
        self, prompt: str, *, sampling: SamplingSettings | None = None, timeouts: TimeoutSettings | None = None
    ) -> ChatStream:
        """Go on from a raw prompt as a stream."""
        self._connection.refuse_if_closed()
        return self._stream(CompletionCall(prompt, sampling or self.sampling, timeouts or self.timeouts))

    def _whole(self, call: Call) -> ChatResult:
        call.is_shown = False
        with self._stream(call) as stream:
            for _ in stream:
                continue
            return stream.result()

    def _stream(self, call: Call) -> ChatStream:
        return ChatStream(self._chunks(call), call.result)

    def _chunks(self, call: Call) -> Generator[ChatChunk, None, None]:
        while True:
            endpoint = self._connection.endpoint()
            try:
                with self._connection.in_use(), closing(self._send(call, endpoint)) as chunks:
                    for chunk in chunks:
                        yield from call.show(chunk)
                call.note_speed()
                if call.is_finished():
                    break
            except (APIStatusError, MalformedResponseError, ServerConnectionError, StreamInterruptedError) as error:
                call.after_failure(error, self._connection, endpoint)
                let_go(error)
        yield from call.held()

    def _send(self, call: Call, endpoint: Endpoint) -> Generator[ChatChunk, None, None]:
        from tenacity import Retrying

        transport = self._kept_transport(endpoint)
        # One clock for all that is asked and sent; the start of the server has a limit of its own.
        limits = (call.timeouts, time.monotonic())

        def open_stream() -> tuple[Generator[ChatChunk, None, None], ChatChunk | None]:
            sending = self._drive(call.prepare(self._connection.notes(endpoint)), endpoint, limits)
            chunks = transport.stream(sending.path, sending.body, sending.parser, *limits)
            return chunks, next(chunks, None)

        chunks, first = Retrying(**retry_policy(self._connection.max_retries))(open_stream)
        try:
            if first is not None:
                yield first
            yield from chunks
        finally:
            chunks.close()

    # -- questions --------------------------------------------------------------------------------------------------

    def tokenize(self, text: str, *, add_special: bool = False, parse_special: bool = False) -> list[int]:
        """The token ids of a text, by the model's own tokenizer.

        Args:
            text: Any text.
            add_special: Add the begin token and the like, as the model wants them.
            parse_special: Read control tokens such as `<|im_end|>` in the text as such. Off by default, unlike in
                llama-server itself, because text of others could forge them.
        """
        body = {"content": text, "add_special": add_special, "parse_special": parse_special}
        tokens: list[int] = self._ask("POST", "/tokenize", body)["tokens"]
        return tokens

    def detokenize(self, tokens: list[int]) -> str:
        """The text of token ids."""
        text: str = self._ask("POST", "/detokenize", {"tokens": tokens})["content"]
        return text

    def count_tokens(self, request: ChatRequest) -> int:
        """Tokens that a conversation takes in the context window: messages, tools and the template around them."""
        return self._answer_to(lambda notes: count_tokens_steps(request, notes))

    def render_prompt(self, request: ChatRequest) -> str:
        """The prompt that the model's chat template makes of a conversation."""
        return self._answer_to(lambda notes: render_prompt_steps(request, notes))

    def server_info(self) -> ServerInfo:
        """What the server says of itself; starts it."""
        return self._answer_to(learn_server)

    def _ask(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        def steps(_: Notes) -> Generator[Exchange, Any, Any]:
            return (yield method, path, body)

        return self._answer_to(steps)

    def _answer_to(self, steps: Callable[[Notes], Generator[Exchange, Any, T]]) -> T:
        with LettingGo():
            endpoint = self._connection.endpoint()
            return self._drive(steps(self._connection.notes(endpoint)), endpoint)

    def _drive(self, steps: Generator[Exchange, Any, T], endpoint: Endpoint, limits: Limits | None = None) -> T:
        transport = self._kept_transport(endpoint)
        try:
            exchange = next(steps)
            while True:
                try:
                    answer = self._exchange(transport, limits or (self.timeouts, None), *exchange)
                except APIStatusError as error:
                    if is_safe_to_repeat(error):
                        raise
                    exchange = steps.throw(error)
                else:
                    exchange = steps.send(answer)
        except StopIteration as stop:
            value: T = stop.value
            return value

    def _exchange(
        self, transport: HTTPTransport, limits: Limits, method: str, path: str, body: dict[str, Any] | None
    ) -> Any:
        if method == "GET":
            return transport.get_json(path, *limits)
        return transport.post_json(path, body or {}, *limits)

    # -- life -------------------------------------------------------------------------------------------------------

    def start(self, on_progress: Callable[[StartProgress], None] | None = None) -> None:
        """Fetch the model and start the server now, rather than in the first call.

        Args:
            on_progress: Called often while the model is fetched and loaded, in the thread that starts the server.
        """
        with LettingGo():
            self._connection.endpoint(on_progress)

    def close(self) -> None:
        """Give the server up; it stops, within two seconds, if no other client uses it. Idempotent."""
        self._connection.mark_closed()
        for transport in self._taken_transports():
            transport.close()
        self._connection.close()

    def _new_transport(self, endpoint: Endpoint) -> HTTPTransport:
        from ._transports.http import HTTPTransport

        return HTTPTransport(endpoint)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
