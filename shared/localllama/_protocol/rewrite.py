"""Ways to write one history differently, so that a chat template that refuses or drops a part of it takes all of it.

Every function is pure and deterministic: equal histories give equal messages, so the KV cache of the server is reused from
turn to turn. Nothing is thrown away; what cannot keep its form becomes text.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from localllama.types import ContentPart, Message, TextPart, ToolCall

__all__ = ["AS_IS", "Rewriting", "apply_rewriting", "call_text"]

_BLANK_LINE = "\n\n"
_SHORT_ID_LENGTH = 9


@dataclass(frozen=True)
class Rewriting:
    """What is done to a history, in this order; all False is the history as it is.

    Attributes:
        joins_text_parts: Contents that are lists of text parts become one string.
        shortens_ids: Ids of tool calls become nine letters and digits, the only form that Mistral's templates take.
        splits_parallel_calls: A turn with several calls becomes one turn for each call, followed by its result.
        writes_tools_as_text: Calls become JSON text in the assistant's turn, as our tool prompt asks for them; results become
            user turns.
        hoists_system: All system messages become one, in front.
        folds_system: The same, and it goes to the top of the first user turn, for templates without a system role.
        opens_with_user: An empty user turn goes before a conversation that the assistant opens.
        merges_adjacent: Neighbours of one role become one turn, with a blank line between their texts.
    """

    joins_text_parts: bool = False
    shortens_ids: bool = False
    splits_parallel_calls: bool = False
    writes_tools_as_text: bool = False
    hoists_system: bool = False
    folds_system: bool = False
    opens_with_user: bool = False
    merges_adjacent: bool = False


AS_IS = Rewriting()


def apply_rewriting(rewriting: Rewriting, messages: Sequence[Message]) -> tuple[Message, ...]:
    """The messages, written as the rewriting says."""
    steps: tuple[tuple[bool, Callable[[tuple[Message, ...]], tuple[Message, ...]]], ...] = (
        (rewriting.joins_text_parts, _with_joined_text),
        (rewriting.shortens_ids, _with_short_ids),
        (rewriting.splits_parallel_calls, _with_single_calls),
        (rewriting.writes_tools_as_text, _with_tools_as_text),
        (rewriting.hoists_system or rewriting.folds_system, _with_system_in_front),
        (rewriting.folds_system, _with_system_in_user_turn),
        (rewriting.opens_with_user, _opened_by_user),
        (rewriting.merges_adjacent, _with_neighbours_merged),
    )
    result = tuple(messages)
    for is_wanted, step in steps:
        if is_wanted:
            result = step(result)
    return result


def _with_joined_text(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    return tuple(
        replace(message, content=message.text)
        if not isinstance(message.content, str) and all(isinstance(part, TextPart) for part in message.content)
        else message
        for message in messages
    )


def _with_short_ids(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    return tuple(
        replace(
            message,
            tool_calls=tuple(replace(call, id=_short_id(call.id)) for call in message.tool_calls),
            tool_call_id=None if message.tool_call_id is None else _short_id(message.tool_call_id),
        )
        for message in messages
    )


def _short_id(long_id: str) -> str:
    if len(long_id) == _SHORT_ID_LENGTH and long_id.isascii() and long_id.isalnum():
        return long_id
    return hashlib.sha256(long_id.encode(errors="surrogatepass")).hexdigest()[:_SHORT_ID_LENGTH]


def _with_single_calls(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    result: list[Message] = []
    index = 0
    while index < len(messages):
        message = messages[index]
        index += 1
        if len(message.tool_calls) <= 1:
            result.append(message)
            continue
        answers = []
        while index < len(messages) and messages[index].role == "tool":
            answers.append(messages[index])
            index += 1
        for place, call in enumerate(message.tool_calls):
            result.append(
                replace(message, tool_calls=(call,))
                if place == 0
                else replace(message, content="", reasoning=None, tool_calls=(call,))
            )
            result += [answer for answer in answers if answer.tool_call_id == call.id]
        ids = {call.id for call in message.tool_calls}
        result += [answer for answer in answers if answer.tool_call_id not in ids]
    return tuple(result)


def _with_tools_as_text(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """Calls in the form that our own tool prompt asks for, so that the model sees its earlier calls as it made them."""
    names = {call.id: call.name for message in messages for call in message.tool_calls}
    unclear = _unclear_ids(messages)
    result = []
    for message in messages:
        if message.tool_calls:
            text = "\n".join(call_text(call, is_unclear=call.id in unclear) for call in message.tool_calls)
            result.append(replace(message, content=_joined(message.content, text), tool_calls=()))
        elif message.role == "tool":
            result.append(_result_turn(message, names, unclear))
        else:
            result.append(message)
    return tuple(result)


def _unclear_ids(messages: tuple[Message, ...]) -> frozenset[str]:
    """Ids of calls that the name of the tool does not tell apart: several of one tool in one turn."""
    ids: set[str] = set()
    for message in messages:
        counts = Counter(call.name for call in message.tool_calls)
        ids.update(call.id for call in message.tool_calls if counts[call.name] > 1)
    return frozenset(ids)


def call_text(call: ToolCall, *, is_unclear: bool = False) -> str:
    """A call as JSON text, the way an envelope has it; with its id where its name alone does not say which it is."""
    try:
        arguments: Any = json.loads(call.arguments or "{}")
    except (ValueError, RecursionError):
        arguments = call.arguments  # quoted as it is: the history is told, not judged
    written = {"name": call.name, "arguments": arguments}
    return json.dumps({"id": call.id, **written} if is_unclear else written, ensure_ascii=False)


def _result_turn(message: Message, names: dict[str, str], unclear: frozenset[str]) -> Message:
    call_id = message.tool_call_id or ""
    name = message.name or names.get(call_id, "")
    which = f" of {name}" if name else " of a tool"
    is_stray = bool(call_id) and call_id not in names
    head = f"Result{which} (call {call_id}):" if call_id in unclear or is_stray else f"Result{which}:"
    if isinstance(message.content, str):
        return Message("user", f"{head}\n{message.content}")
    return Message("user", (TextPart(head), *message.content))


def _with_system_in_front(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    system = [message for message in messages if message.role == "system"]
    if not system:
        return messages
    first = system[0]
    for message in system[1:]:
        first = replace(first, content=_joined(first.content, message.content))
    return (first, *(message for message in messages if message.role != "system"))


def _with_system_in_user_turn(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    if messages[0].role != "system":
        return messages
    system, rest = messages[0], list(messages[1:])
    for index, message in enumerate(rest):
        if message.role == "user":
            rest[index] = replace(message, content=_joined(system.content, message.content))
            return tuple(rest)
    return (Message("user", system.content), *rest)


def _opened_by_user(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    # An empty turn is the least that a template which demands one can be given: it says nothing in the user's name.
    place = 1 if messages[0].role == "system" else 0
    if len(messages) > place and messages[place].role == "user":
        return messages
    return (*messages[:place], Message("user", ""), *messages[place:])


def _with_neighbours_merged(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    result: list[Message] = []
    for message in messages:
        # Results of tools stay apart: each answers a call of its own.
        if result and message.role != "tool" and result[-1].role == message.role:
            result[-1] = _merged(result[-1], message)
        else:
            result.append(message)
    return tuple(result)


def _merged(first: Message, second: Message) -> Message:
    reasoning = _BLANK_LINE.join(text for text in (first.reasoning, second.reasoning) if text)
    return replace(
        first,
        content=_joined(first.content, second.content),
        name=first.name if first.name == second.name else None,
        tool_calls=first.tool_calls + second.tool_calls,
        reasoning=reasoning or None,
    )


def _joined(
    first: str | tuple[ContentPart, ...], second: str | tuple[ContentPart, ...]
) -> str | tuple[ContentPart, ...]:
    if not first or not second:
        return first or second
    if isinstance(first, str) and isinstance(second, str):
        return first + _BLANK_LINE + second
    return _parts(first) + _parts(second)


def _parts(content: str | tuple[ContentPart, ...]) -> tuple[ContentPart, ...]:
    return (TextPart(content),) if isinstance(content, str) else content
