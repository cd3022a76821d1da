"""Answers that hypothesis makes up, whole and in pieces, and what must be left of them on the way through a wrapper and back."""

from __future__ import annotations

import json

from hypothesis import strategies as st

from localllama import ChatChunk, Message, ToolCall, ToolCallDelta, Usage

TEXTS = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=12)
ARGUMENTS = st.dictionaries(
    TEXTS, TEXTS | st.integers() | st.booleans() | st.none() | st.lists(TEXTS, max_size=2), max_size=3
)
CALLS = st.lists(st.tuples(TEXTS, ARGUMENTS), max_size=3)


def made_calls(calls: list[tuple[str, dict[str, object]]]) -> tuple[ToolCall, ...]:
    return tuple(
        ToolCall(f"id{n}", name, json.dumps(arguments, ensure_ascii=False)) for n, (name, arguments) in enumerate(calls)
    )


def in_pieces(
    texts: list[str], thoughts: list[str], calls: tuple[ToolCall, ...], *, size: int, usage: Usage
) -> list[ChatChunk]:
    """The chunks of an answer, its arguments cut every `size` characters."""
    chunks = [ChatChunk(reasoning=thought, id="a") for thought in thoughts]
    chunks += [ChatChunk(text=text, id="a") for text in texts]
    for index, call in enumerate(calls):
        chunks.append(ChatChunk(tool_calls=(ToolCallDelta(index, call.id, call.name),)))
        chunks += [
            ChatChunk(tool_calls=(ToolCallDelta(index, arguments=call.arguments[start : start + size]),))
            for start in range(0, len(call.arguments), size)
        ]
    return [*chunks, ChatChunk(finish_reason="stop"), ChatChunk(usage=usage)]


def assert_same(made: Message, *, text: str, reasoning: str, calls: tuple[ToolCall, ...]) -> None:
    assert made.role == "assistant"
    assert made.text == text
    assert (made.reasoning or "") == reasoning
    assert [(call.id, call.name, json.loads(call.arguments)) for call in made.tool_calls] == [
        (call.id, call.name, json.loads(call.arguments)) for call in calls
    ]
