"""LangChain's messages as the core's messages. Nothing is dropped in silence: what has no place is refused by name."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)

from localllama import ConfigurationError, ContentPart, Message, Role, TextPart, ToolCall, nearest_name_hint

from ._content import block_type, to_part

_CHAT_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "ai": "assistant",
}
_CALL_BLOCKS = frozenset({"tool_call", "tool_use", "tool_call_chunk", "invalid_tool_call", "function_call"})
_THINKING_BLOCKS = frozenset({"reasoning", "thinking"})
# What another vendor's model thought, encrypted: no other model can read it.
_UNREADABLE_BLOCKS = frozenset({"redacted_thinking"})


def to_core_messages(messages: Sequence[BaseMessage]) -> tuple[Message, ...]:
    """The conversation as the core takes it, turn by turn.

    Raises:
        ConfigurationError: There is no message, or one of a kind or role that a model cannot be told.
        UnsupportedFeatureError: A content block that llama-server cannot take.
    """
    if not messages:
        raise ConfigurationError("the list of messages is empty", hint="Pass at least one message.")
    return tuple(
        made
        for message in messages
        for made in (_user(message) if isinstance(message, HumanMessage) else (_to_core_message(message),))
    )


def _to_core_message(message: BaseMessage) -> Message:
    if isinstance(message, AIMessage):
        return _assistant(message)
    if isinstance(message, ToolMessage):
        return _tool_result(
            message.content, message.tool_call_id, is_error=message.status == "error", name=message.name
        )
    content = _content(_parts(message.content))
    if isinstance(message, SystemMessage):
        return Message("system", content, name=message.name)
    if isinstance(message, FunctionMessage):
        return Message("tool", content, name=message.name, tool_call_id=_function_call_id(message.name))
    if isinstance(message, ChatMessage):
        return Message(_role(message.role), content, name=message.name)
    raise ConfigurationError(
        f"a {type(message).__name__} cannot be sent to a model", hint="Remove it from the messages of the call."
    )


def _role(role: str) -> Role:
    if role.lower() not in _CHAT_ROLES:
        near = nearest_name_hint(role.lower(), _CHAT_ROLES)
        raise ConfigurationError(
            f"ChatMessage(role={role!r}): chat templates know no such role",
            hint=f"Did you mean {near!r}?" if near else f"The roles are: {', '.join(_CHAT_ROLES)}.",
        )
    return _CHAT_ROLES[role.lower()]


def _parts(content: str | Sequence[str | Mapping[str, Any]]) -> tuple[ContentPart, ...]:
    if isinstance(content, str):
        return (TextPart(content),)
    return tuple(to_part(block) for block in content)


def _content(parts: tuple[ContentPart, ...]) -> str | tuple[ContentPart, ...]:
    if not parts:
        return ""
    if len(parts) == 1 and isinstance(parts[0], TextPart):
        return parts[0].text
    return parts


def _user(message: HumanMessage) -> Iterator[Message]:
    """A turn of the user's; in Anthropic's API it is where the results of tools stand, which are turns of their own here."""
    blocks: Sequence[str | Mapping[str, Any]] = (
        [message.content] if isinstance(message.content, str) else message.content
    )
    said: list[ContentPart] = []
    has_results = False
    for block in blocks:
        if isinstance(block, str) or block_type(block) != "tool_result":
            said.append(to_part(block))
            continue
        if said:
            yield Message("user", _content(tuple(said)), name=message.name)
            said.clear()
        has_results = True
        is_error = block.get("is_error") is True
        yield _tool_result(block.get("content") or "", str(block.get("tool_use_id") or ""), is_error=is_error)
    if said or not has_results:
        yield Message("user", _content(tuple(said)), name=message.name)


def _tool_result(
    content: str | Sequence[str | Mapping[str, Any]], call_id: str, *, is_error: bool, name: str | None = None
) -> Message:
    parts = _parts(content)
    if is_error:
        # Templates have no field for it; without the word a short text reads to the model like a result.
        text, rest = (parts[0].text, parts[1:]) if parts and isinstance(parts[0], TextPart) else ("", parts)
        if not text.lower().startswith("error"):
            parts = (TextPart(f"Error: {text}".rstrip()), *rest)
    return Message("tool", _content(parts), name=name, tool_call_id=call_id)


def _assistant(message: AIMessage) -> Message:
    blocks: Sequence[str | Mapping[str, Any]] = (
        [message.content] if isinstance(message.content, str) else message.content
    )
    parts: list[ContentPart] = []
    thinking: list[str] = []
    call_blocks: list[Mapping[str, Any]] = []
    for block in blocks:
        kind = "text" if isinstance(block, str) else block_type(block)
        if isinstance(block, str) or kind not in _CALL_BLOCKS | _THINKING_BLOCKS | _UNREADABLE_BLOCKS:
            parts.append(to_part(block))
        elif kind in _CALL_BLOCKS:
            call_blocks.append(block)
        elif kind in _THINKING_BLOCKS:
            thinking.append(_thinking(block))
    reasoning = "".join(thinking) or message.additional_kwargs.get("reasoning_content")
    return Message(
        "assistant",
        _content(tuple(parts)),
        name=message.name,
        tool_calls=_tool_calls(message, call_blocks),
        reasoning=reasoning if isinstance(reasoning, str) and reasoning else None,
    )


def _thinking(block: Mapping[str, Any]) -> str:
    text = block.get("reasoning") or block.get("thinking")
    if text is None:  # OpenAI's Responses API
        text = "\n".join(part.get("text", "") for part in block.get("summary") or ())
    return str(text)


def _tool_calls(message: AIMessage, blocks: Sequence[Mapping[str, Any]]) -> tuple[ToolCall, ...]:
    calls = [*message.tool_calls, *message.invalid_tool_calls]
    ids = {call["id"] for call in calls}
    # The same call stands in `tool_calls` and in the content of v1 and Anthropic messages; a call that stands in the
    # content alone was put there by hand.
    found: list[Mapping[str, Any]] = [
        *cast("list[Mapping[str, Any]]", calls),
        *(block for block in blocks if _call_id(block) not in ids),
    ]
    made = [_tool_call(call, position) for position, call in enumerate(found)]
    function_call = message.additional_kwargs.get("function_call")
    if function_call and not made:  # the form of 2023, answered by a FunctionMessage
        name = str(function_call["name"])
        made.append(ToolCall(_function_call_id(name), name, str(function_call["arguments"])))
    return tuple(made)


def _tool_call(call: Mapping[str, Any], position: int) -> ToolCall:
    name = str(call.get("name") or "")
    arguments: Any = next((call[key] for key in ("args", "input", "arguments") if call.get(key)), {})
    if not isinstance(arguments, str):
        try:
            arguments = json.dumps(arguments, ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(
                f"the arguments of the call of {name!r} in the messages are not JSON: {error}",
                hint="Give plain values: strings, numbers, booleans, None, lists and dicts.",
            ) from error
    return ToolCall(str(_call_id(call) or f"call_{position}"), name, arguments)


def _call_id(call: Mapping[str, Any]) -> Any:
    # In OpenAI's Responses API `id` is the item's own, and the result answers `call_id`.
    return call.get("call_id") or call.get("id")


def _function_call_id(name: str) -> str:
    return f"call_{name}"
