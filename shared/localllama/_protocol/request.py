"""Builds the bodies of requests: what llama-server's schema takes, and nothing that it would misread in silence.

`stream` is always on for generation. A request that is not streamed keeps its slot for up to a second or, while other
requests produce results, for ever after its caller has left (`recv_with_timeout` in llama.cpp's
tools/server/server-queue.cpp waits anew after each notification).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from localllama.errors import ConfigurationError
from localllama.settings import SamplingSettings
from localllama.types import AudioPart, ChatRequest, ContentPart, ImagePart, Message, TextPart, ToolCall, ToolSpec

from .gbnf import grammar_of
from .schemas import parse_json, prepare_schema

__all__ = ["MALFORMED_KEY", "build_chat_body", "build_completion_body", "encode_body", "wire_messages", "wire_tools"]

MALFORMED_KEY = "malformed_arguments"
"""Under this key stands the text of arguments in the history that were no JSON object."""

# Fields whose wire name or value differs, or that only one of the two endpoints has; all others go out as they are named.
_MAPPED_FIELDS = frozenset(
    {
        "max_tokens",
        "logprobs",
        "top_logprobs",
        "chat_template_kwargs",
        "reasoning",
        "reasoning_budget",
        "extra_body",
    }
)
_CHAT_OWN_KEYS = ("messages", "stream")
_COMPLETION_OWN_KEYS = ("prompt", "stream")


def build_chat_body(request: ChatRequest, sampling: SamplingSettings, *, stream: bool = True) -> dict[str, Any]:
    """The body for `/v1/chat/completions`; with `stream=False` that for `/apply-template` and `.../input_tokens`.

    Args:
        request: The conversation and the tools.
        sampling: The sampling settings; a field that is None is not sent. `extra_body` comes last and wins.
        stream: Ask for an event stream with usage and prompt progress.

    Raises:
        ConfigurationError: No messages, text that is not Unicode, a tool choice without its tool, or an `extra_body` that
            sets what this package must set itself.
    """
    if not request.messages:
        raise ConfigurationError("the conversation is empty", hint="Give at least one message.")
    body: dict[str, Any] = {"messages": wire_messages(request.messages)}
    body.update(_tool_fields(request))
    if request.response_format is not None:
        body["response_format"] = dict(request.response_format)
    body.update(_plain_sampling_fields(sampling))
    if sampling.max_tokens is not None:
        body["max_tokens"] = sampling.max_tokens
    body.update(_logprob_fields(sampling))
    body.update(_reasoning_fields(sampling))
    if stream:
        # Progress events are signs of life of a long prefill; a build that does not know the field ignores it.
        body.update(stream=True, stream_options={"include_usage": True}, return_progress=True)
    return _with_extra(body, sampling.extra_body, own_keys=_CHAT_OWN_KEYS)


def build_completion_body(prompt: str, sampling: SamplingSettings) -> dict[str, Any]:
    """The body for the native `/completion`: a raw prompt, no chat template, streamed.

    Settings that only a chat template gives a meaning (`chat_template_kwargs`, `reasoning`, `reasoning_budget`) are not
    sent. A JSON Schema goes out as the grammar that it stands for; see `gbnf`.

    Args:
        prompt: Sent as it is; special tokens in it are recognised by the server.
        sampling: The sampling settings; a field that is None is not sent. `extra_body` comes last and wins.

    Raises:
        ConfigurationError: The prompt is not Unicode text, an `extra_body` that sets what this package must set itself, or a
            schema that cannot be used.
    """
    _check_text(prompt, "the prompt")
    body: dict[str, Any] = {"prompt": prompt, "stream": True, "return_progress": True}
    body.update(_plain_sampling_fields(sampling))
    schema = body.pop("json_schema", None)
    if schema is not None:
        body["grammar"] = grammar_of(prepare_schema(schema).for_server)
    if sampling.max_tokens is not None:
        body["n_predict"] = sampling.max_tokens
    if sampling.top_logprobs is not None and sampling.logprobs is not False:
        body["n_probs"] = max(sampling.top_logprobs, 1)
    elif sampling.logprobs:
        body["n_probs"] = 1
    return _with_extra(body, sampling.extra_body, own_keys=_COMPLETION_OWN_KEYS)


def encode_body(body: Mapping[str, Any]) -> bytes:
    """The bytes of a JSON body.

    Raises:
        ConfigurationError: A value in it is not JSON: a lone surrogate, NaN, an object of some class.
    """
    try:
        return json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        # Not str(error): a UnicodeEncodeError quotes the whole text.
        reason = "it holds a lone surrogate" if isinstance(error, UnicodeError) else str(error)
        raise ConfigurationError(
            f"the request cannot be written as JSON: {reason}",
            hint="Check extra_body, tool schemas and tool arguments for values that are not plain JSON.",
        ) from error


def wire_messages(messages: Iterable[Message]) -> list[dict[str, Any]]:
    """Messages as llama-server takes them.

    Raises:
        ConfigurationError: A message holds text that is not Unicode; the error names its index.
    """
    return [_wire_message(message, index) for index, message in enumerate(messages)]


def wire_tools(tools: Iterable[ToolSpec]) -> list[dict[str, Any]]:
    """Tools in the shape of the OpenAI API."""
    return [
        {
            "type": "function",
            "function": {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)},
        }
        for tool in tools
    ]


def _tool_fields(request: ChatRequest) -> dict[str, Any]:
    """The one place that decides how tools are offered and a choice among them is made.

    llama-server takes the strings "auto", "none" and "required" only; the object form of the OpenAI API would silently
    become "auto", so a named tool is offered alone. "none" leaves the tools out, because the server would still render
    them into the prompt. "required" is a strong wish and no guarantee there: the model may write text before a call, and
    `max_tokens` may end it (llama.cpp pull request 22654, issue 27217).
    """
    choice = request.tool_choice
    if choice == "none" or (not request.tools and choice in (None, "auto")):
        return {}
    if not request.tools:
        raise ConfigurationError(f"tool_choice={choice!r}, but there are no tools", hint="Give tools, or leave it out.")
    tools = request.tools
    fields: dict[str, Any] = {}
    if choice in ("auto", "required"):
        fields["tool_choice"] = choice
    elif choice is not None:
        tools = tuple(tool for tool in tools if tool.name == choice)
        if not tools:
            names = ", ".join(repr(tool.name) for tool in request.tools)
            raise ConfigurationError(f"tool_choice={choice!r} is none of the tools {names}")
        fields["tool_choice"] = "required"
    fields["tools"] = wire_tools(tools)
    if request.parallel_tool_calls is not None:
        fields["parallel_tool_calls"] = request.parallel_tool_calls
    return fields


def _plain_sampling_fields(sampling: SamplingSettings) -> dict[str, Any]:
    fields = {}
    for name in type(sampling).model_fields:
        value = getattr(sampling, name)
        if value is not None and name not in _MAPPED_FIELDS:
            fields[name] = list(value) if isinstance(value, tuple) else value
    return fields


def _logprob_fields(sampling: SamplingSettings) -> dict[str, Any]:
    if sampling.logprobs is False or (sampling.logprobs is None and sampling.top_logprobs is None):
        return {}
    # llama-server gives 20 alternatives where the number is missing, and no probabilities at all where it is 0.
    return {"logprobs": True, "top_logprobs": max(sampling.top_logprobs or 0, 1)}


def _reasoning_fields(sampling: SamplingSettings) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    template_kwargs: dict[str, Any] = {}
    if sampling.reasoning in ("on", "off"):
        template_kwargs["enable_thinking"] = sampling.reasoning == "on"
    template_kwargs.update(sampling.chat_template_kwargs or {})
    if template_kwargs:
        fields["chat_template_kwargs"] = template_kwargs
    if sampling.reasoning_budget is not None:
        # Two names of one field; which of them a build reads depends on its age, and the other is ignored.
        fields["reasoning_budget_tokens"] = sampling.reasoning_budget
        fields["thinking_budget_tokens"] = sampling.reasoning_budget
    return fields


def _with_extra(body: dict[str, Any], extra: Mapping[str, Any] | None, *, own_keys: tuple[str, ...]) -> dict[str, Any]:
    for key in own_keys:
        if extra is not None and key in extra:
            raise ConfigurationError(
                f"extra_body must not set {key!r}", hint="It is for fields that have no name of their own."
            )
    if extra:
        # A null counts as absent for llama-server, so None here means: send nothing under this name.
        body.update(extra)
        body = {key: value for key, value in body.items() if value is not None}
    return body


def _wire_message(message: Message, index: int) -> dict[str, Any]:
    where = f"message {index} (role {message.role!r})"
    wire: dict[str, Any] = {"role": message.role, "content": _wire_content(message.content, where)}
    if message.name is not None:
        _check_text(message.name, where)
        wire["name"] = message.name
    if message.reasoning:
        _check_text(message.reasoning, where)
        wire["reasoning_content"] = message.reasoning
    if message.tool_calls:
        wire["tool_calls"] = [_wire_tool_call(call, where) for call in message.tool_calls]
    if message.tool_call_id is not None:
        wire["tool_call_id"] = message.tool_call_id
    return wire


def _wire_content(content: str | tuple[ContentPart, ...], where: str) -> str | list[dict[str, Any]]:
    if isinstance(content, str):
        _check_text(content, where)
        return content
    # No parts is "" and never null: templates add strings to it.
    return [_wire_part(part, where) for part in content] or ""


def _wire_part(part: ContentPart, where: str) -> dict[str, Any]:
    if isinstance(part, TextPart):
        _check_text(part.text, where)
        return {"type": "text", "text": part.text}
    if isinstance(part, ImagePart):
        return {"type": "image_url", "image_url": {"url": f"data:{part.mime_type};base64,{part.data}"}}
    if isinstance(part, AudioPart):
        return {"type": "input_audio", "input_audio": {"data": part.data, "format": part.format}}
    raise ConfigurationError(f"{where}: a {type(part).__name__} is not a part of a message")


def _wire_tool_call(call: ToolCall, where: str) -> dict[str, Any]:
    _check_text(call.arguments, where)
    _check_text(call.name, where)
    return {
        "id": call.id,
        "type": "function",
        "function": {"name": call.name, "arguments": _object_text(call.arguments)},
    }


def _object_text(arguments: str) -> str:
    """The arguments as the text of a JSON object, which is all that llama-server's templates take.

    Any other text in a history is its error 500. It is quoted instead, so that the model sees what it once wrote.
    """
    try:
        value = parse_json(arguments or "{}")
    except ValueError:
        value = None
    if isinstance(value, dict):
        return arguments or "{}"
    return json.dumps({MALFORMED_KEY: arguments}, ensure_ascii=False)


def _check_text(text: str, where: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ConfigurationError(
            f"{where} holds a lone surrogate (U+{ord(text[error.start]):04X} at character {error.start}), "
            "which is not text and cannot be sent",
            hint="Repair it where it was read: text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace').",
        ) from None
