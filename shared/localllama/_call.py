"""One call to a server, without its I/O: what is sent, how its answer is read, what is sent again.

Both clients drive the same `Call`; what differs between them is only how they wait. A step that needs an answer of the
server yields an `Exchange`, is sent the decoded JSON, or has the server's error thrown in.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from ._connection import Connection
from ._protocol.adapt import adapt_messages
from ._protocol.capabilities import parse_props
from ._protocol.decoding import DecodingPlan, plan_decoding
from ._protocol.prepared import PreparedSchemas
from ._protocol.request import build_chat_body, build_completion_body
from ._protocol.schemas import GenerationBounds
from ._protocol.stream import CompletionStreamParser, StreamParser
from ._speed import note_speed
from .errors import (
    APIStatusError,
    ChatTemplateError,
    ClientClosedError,
    ConfigurationError,
    EndpointNotFoundError,
    LocalLlamaError,
    ServerConnectionError,
    StreamInterruptedError,
)
from .settings import SamplingSettings, TimeoutSettings
from .types import ChatChunk, ChatRequest, ChatResult, Endpoint, ServerInfo, ToolSpec

__all__ = [
    "Call",
    "CompletionCall",
    "Exchange",
    "Notes",
    "PlanForm",
    "Sending",
    "count_tokens",
    "is_refusal_of_tools",
    "learn_server",
    "planned",
    "render_prompt",
    "rendered",
]

Exchange = tuple[str, str, dict[str, Any] | None]
"""A small JSON request: method, path, body."""

Notes = dict[str, Any]
"""What was learned of one server; forgotten with it."""


T = TypeVar("T")

_REFUSED_TOOLS = "tools that the template breaks on"
_CHARACTERS_PER_TOKEN = 5
_STEP = 1000  # characters; limits that differ little share what was prepared


@dataclass(frozen=True)
class PlanForm:
    """In which way a request is decoded, where its first way did not do.

    Attributes:
        max_tokens: The limit of the call.
        is_enveloped: Calls in an envelope, whatever the template can do.
        is_choice: Only the name of the tool.
        is_for_repair: Schemas in their narrow form.
        is_tight: Free strings and lists are so short that the answer must end within the limit.
    """

    max_tokens: int | None = None
    is_enveloped: bool = False
    is_choice: bool = False
    is_for_repair: bool = False
    is_tight: bool = False


@dataclass(frozen=True)
class Sending:
    """One request that is streamed.

    Attributes:
        path: Where it goes.
        body: The JSON.
        parser: Reads the answer.
    """

    path: str
    body: Mapping[str, Any]
    parser: StreamParser


class Call(ABC):
    """One streamed generation.

    Args:
        sampling: All sampling settings of the call.
        timeouts: Its limits.

    Attributes:
        timeouts: As given.
        is_shown: Whether the caller sees the pieces as they come; then nothing that was shown is generated again.
    """

    def __init__(self, sampling: SamplingSettings, timeouts: TimeoutSettings) -> None:
        self.timeouts = timeouts
        self.is_shown = True
        self._sampling = sampling
        self._parser: StreamParser | None = None
        self._prepared_for: Notes = {}
        self._was_sent_again = False

    def prepare(self, notes: Notes) -> Generator[Exchange, Any, Sending]:
        """What is sent to the server that `notes` are about; asked for anew each time it is sent."""
        sending = yield from self._prepare(notes)
        self._parser = sending.parser
        self._prepared_for = notes
        return sending

    @abstractmethod
    def _prepare(self, notes: Notes) -> Generator[Exchange, Any, Sending]: ...

    @property
    def has_begun(self) -> bool:
        """Whether text, thinking or a tool call came."""
        return self._parser is not None and self._parser.has_begun

    def result(self) -> ChatResult:
        """All that has come so far."""
        return self._parser.result() if self._parser is not None else ChatResult()

    def show(self, chunk: ChatChunk) -> tuple[ChatChunk, ...]:
        """What the caller sees of a chunk."""
        return (chunk,)

    def note_speed(self) -> None:
        """Remember how fast the generation was that has just ended."""
        if self._parser is not None:
            note_speed(self._prepared_for, self._parser.result().timings)

    def is_finished(self) -> bool:
        """Judge the whole answer: True if it is the caller's, False if the call is to be sent once more.

        Raises:
            StructuredOutputError: It has not the form that was asked for, and is not asked for again.
        """
        return True

    def held(self) -> tuple[ChatChunk, ...]:
        """Chunks that were held back until the answer was judged."""
        return ()

    def after_failure(self, error: LocalLlamaError, connection: Connection, endpoint: Endpoint) -> None:
        """Decide what a failure means. Returns if the call is to be sent once more, raises otherwise.

        Raises:
            ClientClosedError: We closed the connection ourselves.
            StreamInterruptedError: The answer had begun.
            ServerCrashedError: The server died again.
            LocalLlamaError: The failure itself, where sending again would not help.
        """
        if connection.is_closed:
            raise ClientClosedError("The client was closed while this call was running.") from error
        if isinstance(error, ServerConnectionError | StreamInterruptedError):
            self._after_break(error, connection, endpoint)
        else:
            self._after_refusal(error)

    def _after_break(
        self, error: ServerConnectionError | StreamInterruptedError, connection: Connection, endpoint: Endpoint
    ) -> None:
        """A call of which nothing has come is sent once more if the server died, to the new one.

        Twice would only kill that one too. An answer that has begun is not repeated.
        """
        crash = connection.crash_of(endpoint)
        if self.has_begun:
            if crash is None:
                raise error
            raise StreamInterruptedError(
                f"The answer broke off: {crash.message}", hint=crash.hint, partial=self.result()
            ) from crash
        if crash is None:
            raise error
        if self._was_sent_again:
            raise crash from error
        self._was_sent_again = True

    def _after_refusal(self, error: LocalLlamaError) -> None:
        raise error


class CompletionCall(Call):
    """A completion of a raw prompt; no chat template is applied.

    Raises:
        ConfigurationError: The prompt is empty.
    """

    def __init__(self, prompt: str, sampling: SamplingSettings, timeouts: TimeoutSettings) -> None:
        super().__init__(sampling, timeouts)
        if not prompt:
            raise ConfigurationError("prompt is empty: llama.cpp needs at least one token to go on from")
        self._body = build_completion_body(prompt, sampling)

    def _prepare(self, notes: Notes) -> Generator[Exchange, Any, Sending]:  # noqa: ARG002  # nothing has to be learned
        yield from ()
        return Sending("/completion", self._body, CompletionStreamParser())


def learn_server(notes: Notes) -> Generator[Exchange, Any, ServerInfo]:
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


def planned(request: ChatRequest, notes: Notes, form: PlanForm | None = None) -> Generator[Exchange, Any, DecodingPlan]:
    """How the request is decoded, with its messages written as the server's chat template takes them."""
    plan = DecodingPlan(request)
    if request.tools or request.response_format is not None:
        server = yield from learn_server(notes)
        form = form or PlanForm()
        schemas: PreparedSchemas = notes.setdefault("schemas", PreparedSchemas())
        prepared = schemas.form(_bounds(form, server), is_for_repair=form.is_for_repair)
        ways = {"is_enveloped": form.is_enveloped, "is_choice": form.is_choice}
        plan = plan_decoding(request, server, prepared, **ways)
        if plan.request.tools and _key_of(plan.request.tools) in notes.get(_REFUSED_TOOLS, ()):
            server = replace(server, template=replace(server.template, supports_tools=False))
            plan = plan_decoding(request, server, prepared, **ways)
    messages = yield from adapt_messages(plan.request, notes.setdefault("rewritings", {}))
    if messages is plan.request.messages:
        return plan
    return replace(plan, request=replace(plan.request, messages=messages))


def is_refusal_of_tools(error: LocalLlamaError, plan: DecodingPlan, notes: Notes) -> bool:
    """Whether the chat template broke on the tools; then these tools go into our own prompt from now on.

    Templates that write schemas out in the language of their model often take simple ones only: a `$ref`, a union or a tool
    without arguments ends in an error of Jinja. The messages were tried before, so it is the tools.
    """
    if not plan.request.tools or not isinstance(error, ChatTemplateError) or "While executing" not in error.message:
        return False
    notes.setdefault(_REFUSED_TOOLS, set()).add(_key_of(plan.request.tools))
    return True


def _key_of(tools: Sequence[ToolSpec]) -> str:
    return json.dumps([(tool.name, tool.parameters) for tool in tools], default=repr)


def _bounds(form: PlanForm, server: ServerInfo) -> GenerationBounds:
    n_tokens = form.max_tokens if form.max_tokens and form.max_tokens > 0 else server.n_ctx
    if n_tokens <= 0:
        return GenerationBounds()
    if form.is_tight:
        return GenerationBounds.for_tokens(n_tokens)
    # No text that a model means is longer than that, and a runaway one ends before the limit cuts it in some languages.
    most = GenerationBounds.max_string_length
    return GenerationBounds(max_string_length=min(most, -(-n_tokens * _CHARACTERS_PER_TOKEN // _STEP) * _STEP))


def render_prompt(request: ChatRequest, notes: Notes) -> Generator[Exchange, Any, str]:
    """The prompt that the template makes of a conversation."""
    return (yield from _with_tools_that_render(request, notes, rendered))


def rendered(request: ChatRequest) -> Generator[Exchange, Any, str]:
    """The prompt that the template makes of messages that are adapted already."""
    body = build_chat_body(request, SamplingSettings(), stream=False)
    answer = yield "POST", "/apply-template", body
    prompt: str = answer["prompt"]
    return prompt


def count_tokens(request: ChatRequest, notes: Notes) -> Generator[Exchange, Any, int]:
    """Tokens of a conversation with the template around it."""
    return (yield from _with_tools_that_render(request, notes, _counted))


def _counted(request: ChatRequest) -> Generator[Exchange, Any, int]:
    body = build_chat_body(request, SamplingSettings(), stream=False)
    try:
        answer = yield "POST", "/v1/chat/completions/input_tokens", body
        count: int = answer["input_tokens"]
    except EndpointNotFoundError:
        # Builds before b9495 have no such endpoint: render, then count as the server would read the prompt.
        prompt = yield from rendered(request)
        question = {"content": prompt, "add_special": True, "parse_special": True}
        count = len((yield "POST", "/tokenize", question)["tokens"])
    return count


def _with_tools_that_render(
    request: ChatRequest, notes: Notes, steps: Callable[[ChatRequest], Generator[Exchange, Any, T]]
) -> Generator[Exchange, Any, T]:
    plan = yield from planned(request, notes)
    try:
        return (yield from steps(plan.request))
    except ChatTemplateError as error:
        if not is_refusal_of_tools(error, plan, notes):
            raise
    plan = yield from planned(request, notes)
    return (yield from steps(plan.request))
