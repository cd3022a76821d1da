"""The values that cross the core's boundary: messages in, chunks and results out.

All are frozen dataclasses without behaviour of their own, so that both wrappers map to and from them with plain code.
Field names are those of llama.cpp and of the OpenAI chat API wherever these have one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from .info import Endpoint as Endpoint  # noqa: PLC0414  # internal, so not in __all__
from .info import ModelInfo, ServerInfo, StartProgress, TemplateCapabilities

__all__ = [
    "AudioPart",
    "ChatChunk",
    "ChatRequest",
    "ChatResult",
    "ContentPart",
    "FinishReason",
    "ImagePart",
    "Message",
    "ModelInfo",
    "PromptProgress",
    "Role",
    "ServerInfo",
    "StartProgress",
    "TemplateCapabilities",
    "TextPart",
    "Timings",
    "TokenLogprob",
    "ToolCall",
    "ToolCallDelta",
    "ToolChoice",
    "ToolSpec",
    "Usage",
]

Role = Literal["system", "user", "assistant", "tool"]
FinishReason = Literal["stop", "length", "tool_calls"]
ToolChoice = str
""""auto", "none", "required", or the name of one tool."""


@dataclass(frozen=True)
class TextPart:
    """A piece of text in a message."""

    text: str


@dataclass(frozen=True)
class ImagePart:
    """An image in a message.

    Attributes:
        data: Base64 of the encoded image (PNG, JPEG, ...), without a `data:` prefix.
        mime_type: Such as "image/png".
    """

    data: str = field(repr=False)
    mime_type: str = "image/png"


@dataclass(frozen=True)
class AudioPart:
    """A sound in a message.

    Attributes:
        data: Base64 of the file.
        format: "wav" or "mp3", the two that llama-server takes.
    """

    data: str = field(repr=False)
    format: str = "wav"


ContentPart = TextPart | ImagePart | AudioPart


@dataclass(frozen=True)
class ToolCall:
    """One call of a tool.

    Attributes:
        id: Links the call to its result; never empty.
        name: The tool's name.
        arguments: JSON text of the arguments, as the model wrote it.
    """

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class ToolCallDelta:
    """A fragment of a tool call in a stream.

    Attributes:
        index: Which call of the answer this belongs to, from 0.
        id: Only in the first fragment of a call.
        name: Only in the first fragment of a call.
        arguments: The next piece of the JSON text; append it.
    """

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""


@dataclass(frozen=True)
class ToolSpec:
    """A tool that the model may call.

    Attributes:
        name: Its name.
        description: What it does, for the model.
        parameters: JSON Schema of its arguments (an object schema).
    """

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=lambda: {"type": "object", "properties": {}})


@dataclass(frozen=True)
class Message:
    """One turn of a conversation.

    Attributes:
        role: Who speaks.
        content: Text, or parts when there is more than text.
        name: Name of the speaker, if any; templates mostly ignore it.
        tool_calls: The calls of an assistant turn.
        tool_call_id: For role "tool": the call that this answers.
        reasoning: For role "assistant": the thinking of that turn, sent back as `reasoning_content`.
    """

    role: Role
    content: str | tuple[ContentPart, ...] = ""
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    reasoning: str | None = None

    @property
    def text(self) -> str:
        """All text of the content, parts joined with a newline."""
        if isinstance(self.content, str):
            return self.content
        return "\n".join(part.text for part in self.content if isinstance(part, TextPart))


@dataclass(frozen=True)
class ChatRequest:
    """Everything of one chat call except the sampling settings.

    Attributes:
        messages: The conversation so far; never empty.
        tools: Tools that the model may call.
        tool_choice: None leaves it to llama.cpp ("auto" when there are tools).
        parallel_tool_calls: None leaves it to the template's capabilities.
        response_format: An OpenAI `response_format` object. Its schema is made fit for the server, and the answer is checked
            against it as it was given. With tools beside it the model may call them first.
        on_invalid: What happens to an answer that breaks its schema after all repairs: "raise", or "return" as it is.
        max_repairs: How often `chat` asks the model to repair such an answer. A stream, whose text was seen, is never
            repaired.
        finds_leaked_calls: Where the template's own syntax is used, also look in the text for calls that the server's parser
            missed.
    """

    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...] = ()
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: Mapping[str, Any] | None = None
    on_invalid: Literal["raise", "return"] = "raise"
    max_repairs: int = 1
    finds_leaked_calls: bool = True


@dataclass(frozen=True)
class TokenLogprob:
    """The log probability of one generated token.

    Attributes:
        token: Its text; a token that is not valid UTF-8 by itself has replacement characters here.
        logprob: Natural logarithm of its probability.
        token_bytes: Its bytes, or None if the server did not send them.
        top: The likeliest tokens at this place, itself included, likeliest first.
    """

    token: str
    logprob: float
    token_bytes: tuple[int, ...] | None = None
    top: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True)
class Usage:
    """Token counts of one call.

    `prompt_tokens` includes `cached_tokens`; `completion_tokens` includes the thinking. The server does not count
    the thinking apart.

    Attributes:
        prompt_tokens: Tokens of the prompt, cached ones included.
        completion_tokens: Tokens generated.
        total_tokens: Their sum.
        cached_tokens: Tokens of the prompt that came from the KV cache.
        is_estimated: True where the numbers were not counted by llama.cpp.
    """

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cached_tokens: int = 0
    is_estimated: bool = False


@dataclass(frozen=True)
class Timings:
    """llama.cpp's own measurement of one call (`timings`); milliseconds and tokens per second.

    Attributes:
        cache_n: Prompt tokens taken from the KV cache.
        prompt_n: Prompt tokens that were processed.
        prompt_ms: Time for them.
        prompt_per_second: Prompt tokens per second.
        predicted_n: Tokens generated.
        predicted_ms: Time for them.
        predicted_per_second: Generated tokens per second.
        draft_n: Tokens that the draft model proposed, with speculative decoding.
        draft_n_accepted: How many of these were accepted.
    """

    cache_n: int = 0
    prompt_n: int = 0
    prompt_ms: float = 0.0
    prompt_per_second: float = 0.0
    predicted_n: int = 0
    predicted_ms: float = 0.0
    predicted_per_second: float = 0.0
    draft_n: int | None = None
    draft_n_accepted: int | None = None


@dataclass(frozen=True)
class PromptProgress:
    """How far the server is with the prompt (`prompt_progress`), in tokens.

    Attributes:
        total: Tokens of the prompt.
        cache: How many of them came from the KV cache.
        processed: How many are done, cached ones included.
        time_ms: Milliseconds since processing began.
    """

    total: int
    cache: int
    processed: int
    time_ms: float


@dataclass(frozen=True)
class ChatChunk:
    """One step of a streamed answer; most fields are empty in most chunks.

    Attributes:
        text: The next piece of the answer.
        reasoning: The next piece of the thinking.
        tool_calls: The next fragments of tool calls, at most one of each call.
        index: Which choice this belongs to, where `n` > 1.
        finish_reason: Set on the choice's last content chunk.
        usage: Set on exactly one chunk, the last.
        timings: On the chunk that has `usage`.
        logprobs: Log probabilities of the tokens of this chunk.
        progress: Where the server is with the prompt, before the first token.
        model: The model's name as the server reports it.
        id: The server's id of the completion.
        system_fingerprint: The server's build.
    """

    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()
    index: int = 0
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    timings: Timings | None = None
    logprobs: tuple[TokenLogprob, ...] = ()
    progress: PromptProgress | None = None
    model: str | None = None
    id: str | None = None
    system_fingerprint: str | None = None


@dataclass(frozen=True)
class ChatResult:
    """A whole answer.

    Attributes:
        text: The answer, without thinking.
        reasoning: The thinking, or "".
        tool_calls: Calls of tools.
        finish_reason: "stop", "length" (cut by `max_tokens` or a full window) or "tool_calls"; None if it broke off.
        usage: Token counts; None if the stream broke off before they came.
        timings: llama.cpp's measurement, if it came.
        logprobs: One entry for each token, where asked for.
        model: The model's name as the server reports it.
        id: The server's id of the completion.
        system_fingerprint: The server's build.
    """

    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    timings: Timings | None = None
    logprobs: tuple[TokenLogprob, ...] = ()
    model: str | None = None
    id: str | None = None
    system_fingerprint: str | None = None
