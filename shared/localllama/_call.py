"""One call to a server, without its I/O: what is sent, what is tried again, how a failure is told.

Both clients drive the same `Call`; what differs between them is only how they wait.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import replace
from typing import Any

from ._connection import Connection
from ._protocol.adapt import adapt_messages
from ._protocol.capabilities import parse_props
from ._protocol.request import build_chat_body, build_completion_body
from ._protocol.stream import ChatStreamParser, CompletionStreamParser, StreamParser
from .errors import (
    APIStatusError,
    ClientClosedError,
    ConfigurationError,
    EndpointNotFoundError,
    ServerConnectionError,
    StreamInterruptedError,
)
from .settings import SamplingSettings, TimeoutSettings
from .types import ChatRequest, ChatResult, Endpoint, ServerInfo

__all__ = [
    "Call",
    "Exchange",
    "adapted",
    "chat_call",
    "completion_call",
    "count_tokens",
    "learn_server",
    "render_prompt",
]

Exchange = tuple[str, str, dict[str, Any] | None]
"""A small JSON request: method, path, body."""


class Call:
    """One streamed generation.

    Attributes:
        path: Where it is sent.
        request: The conversation, or None for a raw prompt.
        timeouts: Its limits.
        parser: Reads the answer; a new one for each time it is sent.
    """

    def __init__(
        self,
        path: str,
        request: ChatRequest | None,
        timeouts: TimeoutSettings,
        body: Callable[[ChatRequest | None], dict[str, Any]],
        new_parser: Callable[[], StreamParser],
    ) -> None:
        self.path = path
        self.request = request
        self.timeouts = timeouts
        self._body = body
        self._new_parser = new_parser
        self.parser: StreamParser | None = None
        self._was_sent_again = False

    def body(self, request: ChatRequest | None) -> dict[str, Any]:
        """The JSON to send, for the request as it was adapted to the server."""
        return self._body(request)

    def fresh_parser(self) -> StreamParser:
        """A parser for one more sending."""
        self.parser = self._new_parser()
        return self.parser

    def result(self) -> ChatResult:
        """All that has come so far."""
        return self.parser.result() if self.parser is not None else ChatResult()

    def after_break(
        self,
        error: ServerConnectionError | StreamInterruptedError,
        connection: Connection,
        endpoint: Endpoint,
    ) -> None:
        """Decide what a broken connection means. Returns if the call is to be sent once more, raises otherwise.

        A call of which nothing has come is sent once more if the server died, to the new one; twice would only kill that
        one too. Of an answer that has begun the caller has seen text, so it is not repeated.

        Raises:
            ClientClosedError: We closed the connection ourselves.
            StreamInterruptedError: The answer had begun.
            ServerCrashedError: The server died again.
            ServerConnectionError: The server seems to live.
        """
        if connection.is_closed:
            raise ClientClosedError("The client was closed while this call was running.") from error
        crash = connection.crash_of(endpoint)
        has_begun = self.parser is not None and self.parser.has_begun
        if has_begun:
            if crash is not None:
                raise StreamInterruptedError(
                    f"The answer broke off: {crash.message}", hint=crash.hint, partial=self.result()
                ) from crash
            raise error
        if crash is None:
            raise error
        if self._was_sent_again:
            raise crash from error
        self._was_sent_again = True


def chat_call(request: ChatRequest, sampling: SamplingSettings, timeouts: TimeoutSettings) -> Call:
    """A chat completion.

    Raises:
        ConfigurationError: The request has no messages.
    """
    if not request.messages:
        raise ConfigurationError("messages is empty: give at least one message")

    def body(adapted_request: ChatRequest | None) -> dict[str, Any]:
        return build_chat_body(adapted_request or request, sampling)

    return Call("/v1/chat/completions", request, timeouts, body, ChatStreamParser)


def completion_call(prompt: str, sampling: SamplingSettings, timeouts: TimeoutSettings) -> Call:
    """A completion of a raw prompt; no chat template is applied.

    Raises:
        ConfigurationError: The prompt is empty.
    """
    if not prompt:
        raise ConfigurationError("prompt is empty: llama.cpp needs at least one token to go on from")

    def body(_: ChatRequest | None) -> dict[str, Any]:
        return build_completion_body(prompt, sampling)

    return Call("/completion", None, timeouts, body, CompletionStreamParser)


def learn_server(notes: dict[str, Any]) -> Generator[Exchange, Any, ServerInfo]:
    """Ask `/props` once in a server's life."""
    info: ServerInfo | None = notes.get("server_info")
    if info is None:
        try:
            info = parse_props((yield "GET", "/props", None))
        except APIStatusError:
            # Not llama-server, or one that hides it: nothing is known, and messages are sent as they are.
            info = ServerInfo(n_ctx=0)
        notes["server_info"] = info
    return info


def adapted(request: ChatRequest, notes: dict[str, Any]) -> Generator[Exchange, Any, ChatRequest]:
    """The request with its messages written as the server's chat template takes them; as they are, where it does."""
    known = notes.setdefault("rewritings", {})
    messages = yield from adapt_messages(request, known)
    return request if messages is request.messages else replace(request, messages=messages)


def render_prompt(request: ChatRequest, notes: dict[str, Any]) -> Generator[Exchange, Any, str]:
    """The prompt that the template makes of a conversation."""
    body = build_chat_body((yield from adapted(request, notes)), SamplingSettings(), stream=False)
    answer = yield "POST", "/apply-template", body
    prompt: str = answer["prompt"]
    return prompt


def count_tokens(request: ChatRequest, notes: dict[str, Any]) -> Generator[Exchange, Any, int]:
    """Tokens of a conversation with the template around it."""
    body = build_chat_body((yield from adapted(request, notes)), SamplingSettings(), stream=False)
    try:
        answer = yield "POST", "/v1/chat/completions/input_tokens", body
        count: int = answer["input_tokens"]
    except EndpointNotFoundError:
        # Builds before b9495 have no such endpoint: render, then count as the server would read the prompt.
        prompt = (yield "POST", "/apply-template", body)["prompt"]
        question = {"content": prompt, "add_special": True, "parse_special": True}
        count = len((yield "POST", "/tokenize", question)["tokens"])
    return count
