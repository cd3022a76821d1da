"""Any history through the mapper of messages, and any answer through LangChain's messages and back: nothing is lost."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, SystemMessage, ToolMessage

from langchain_localllama._messages import to_core_messages
from langchain_localllama._output import to_chat_result, to_generation_chunk
from localllama import ChatResult, Usage
from support.made_answers import CALLS, TEXTS, assert_same, in_pieces, made_calls


@given(TEXTS | st.just(""), TEXTS | st.just(""), CALLS)
def test_an_answer_goes_into_the_next_prompt_as_it_came(
    text: str, reasoning: str, calls: list[tuple[str, dict[str, object]]]
) -> None:
    result = ChatResult(text=text, reasoning=reasoning, tool_calls=made_calls(calls))
    message = to_chat_result(result, "m").generations[0].message
    assert isinstance(message, AIMessage)
    (back,) = to_core_messages([message])
    assert_same(back, text=text, reasoning=reasoning, calls=result.tool_calls)
    # And as LangChain keeps it: as JSON, and as standard blocks.
    (stored,) = to_core_messages([AIMessage.model_validate_json(message.model_dump_json())])
    assert_same(stored, text=text, reasoning=reasoning, calls=result.tool_calls)
    (in_blocks,) = to_core_messages([AIMessage(content=message.content_blocks)])  # type: ignore[arg-type]
    assert_same(in_blocks, text=text, reasoning=reasoning, calls=result.tool_calls)


@given(st.lists(TEXTS, max_size=3), st.lists(TEXTS, max_size=3), CALLS, st.integers(1, 5), st.integers(0, 99))
def test_a_streamed_answer_adds_up_to_the_whole_one(
    texts: list[str], thoughts: list[str], calls: list[tuple[str, dict[str, object]]], size: int, n_tokens: int
) -> None:
    made = made_calls(calls)
    usage = Usage(7, n_tokens, 7 + n_tokens, cached_tokens=3)
    chunks = in_pieces(texts, thoughts, made, size=size, usage=usage)
    shown = [to_generation_chunk(chunk, "m") for chunk in chunks]
    added = AIMessageChunk("")
    for one in shown:
        assert one is not None
        added = added + one.message  # type: ignore[assignment]
    (back,) = to_core_messages([added])
    assert_same(back, text="".join(texts), reasoning="".join(thoughts), calls=made)
    assert added.usage_metadata is not None
    counts = added.usage_metadata
    assert (counts["input_tokens"], counts["output_tokens"], counts["total_tokens"]) == (7, n_tokens, 7 + n_tokens)
    assert added.response_metadata["finish_reason"] == "stop"


@st.composite
def turns(draw: st.DrawFn) -> list[BaseMessage]:
    messages: list[BaseMessage] = []
    for _ in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(["human", "system", "ai", "tool", "blocks"]))
        text = draw(TEXTS)
        if kind == "human":
            messages.append(HumanMessage(text))
        elif kind == "system":
            messages.append(SystemMessage(text))
        elif kind == "tool":
            messages.append(ToolMessage(text, tool_call_id=draw(TEXTS)))
        elif kind == "blocks":
            messages.append(HumanMessage([{"type": "text", "text": text}, draw(TEXTS)]))
        else:
            calls = [{"name": c.name, "args": json.loads(c.arguments), "id": c.id} for c in made_calls(draw(CALLS))]
            messages.append(AIMessage(text, tool_calls=calls))
    return messages


@given(turns())
def test_no_turn_and_no_word_is_lost(messages: list[BaseMessage]) -> None:
    made = to_core_messages(messages)
    roles = {"human": "user", "system": "system", "ai": "assistant", "tool": "tool"}
    assert [one.role for one in made] == [roles[message.type] for message in messages]
    for message, one in zip(messages, made, strict=True):
        texts = [message.content] if isinstance(message.content, str) else message.content
        words = [block if isinstance(block, str) else block["text"] for block in texts]
        assert one.text == "\n".join(words)
        if isinstance(message, AIMessage):
            assert [(c.id, c.name, json.loads(c.arguments)) for c in one.tool_calls] == [
                (c["id"], c["name"], c["args"]) for c in message.tool_calls
            ]
        if isinstance(message, ToolMessage):
            assert one.tool_call_id == message.tool_call_id
