"""The core's answers become messages whose parts add up to the same message, streamed or not, v0 or v1."""

from __future__ import annotations

from functools import reduce
from operator import add

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGenerationChunk

from langchain_localllama import ChatLocalLlama
from langchain_localllama._output import to_chat_result, to_generation_chunk
from localllama import (
    ChatChunk,
    ChatResult,
    PromptProgress,
    Timings,
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
    Usage,
)

USAGE = Usage(prompt_tokens=7, completion_tokens=3, total_tokens=10, cached_tokens=2)
TIMINGS = Timings(cache_n=2, prompt_n=5, prompt_ms=1.5, predicted_n=3, predicted_ms=2.5, predicted_per_second=1200.0)
USAGE_METADATA = {
    "input_tokens": 7,
    "output_tokens": 3,
    "total_tokens": 10,
    "input_token_details": {"cache_read": 2},
}

# Thinking, text and a call in one chunk, then two calls whose fragments alternate with text: all that a server may send.
STREAM = (
    ChatChunk(progress=PromptProgress(total=7, cache=0, processed=3, time_ms=1.0)),
    ChatChunk(id="x", model="served"),
    ChatChunk(reasoning="Let me ", id="x", model="served"),
    ChatChunk(reasoning="see.", text="I ", id="x", model="served"),
    ChatChunk(text="look.", tool_calls=(ToolCallDelta(0, "c0", "weather", '{"ci'),), id="x", model="served"),
    ChatChunk(tool_calls=(ToolCallDelta(0, arguments='ty": "Rome"}'),), id="x", model="served"),
    ChatChunk(tool_calls=(ToolCallDelta(1, "c1", "time", ""),), id="x", model="served"),
    ChatChunk(finish_reason="tool_calls", id="x", model="served", system_fingerprint="b1"),
    ChatChunk(usage=USAGE, timings=TIMINGS, id="x", model="served"),
)
CALLS = [
    {"type": "tool_call", "name": "weather", "args": {"city": "Rome"}, "id": "c0"},
    {"type": "tool_call", "name": "time", "args": {}, "id": "c1"},
]
BLOCKS = [
    {"type": "reasoning", "reasoning": "Let me see."},
    {"type": "text", "text": "I look."},
    *CALLS,
]


def shown(chunks: tuple[ChatChunk, ...]) -> list[ChatGenerationChunk]:
    made = [to_generation_chunk(chunk, "ref") for chunk in chunks]
    return [chunk for chunk in made if chunk is not None]


def added(chunks: list[AIMessageChunk]) -> AIMessageChunk:
    return reduce(add, chunks)


def without_index(blocks: list) -> list:
    return [{name: value for name, value in block.items() if name != "index"} for block in blocks]


def test_a_whole_answer() -> None:
    result = ChatResult(
        text="I look.",
        reasoning="Let me see.",
        tool_calls=(ToolCall("c0", "weather", '{"city": "Rome"}'), ToolCall("c1", "time", "")),
        finish_reason="tool_calls",
        usage=USAGE,
        timings=TIMINGS,
        model="served",
        id="x",
        system_fingerprint="b1",
    )
    (generation,) = to_chat_result(result, "ref").generations
    message = generation.message
    assert isinstance(message, AIMessage)
    assert message.content == "I look."
    assert message.tool_calls == CALLS
    assert message.additional_kwargs == {"reasoning_content": "Let me see."}
    assert message.usage_metadata == USAGE_METADATA
    metadata = dict(message.response_metadata)
    timings = metadata.pop("timings")
    assert type(timings) is dict
    assert timings["predicted_per_second"] == 1200.0
    assert "draft_n" not in timings
    assert metadata == {
        "model_provider": "localllama",
        "model_name": "ref",
        "finish_reason": "tool_calls",
        "system_fingerprint": "b1",
        "id": "x",
    }
    assert message.content_blocks == BLOCKS


def test_the_name_is_the_servers_where_the_user_gave_none() -> None:
    message = to_chat_result(ChatResult(text="x", model="served"), None).generations[0].message
    assert message.response_metadata["model_name"] == "served"


@pytest.mark.parametrize("arguments", ["{", '["a"]', '"a"', "1", "nonsense"])
def test_malformed_calls_are_kept_as_invalid(arguments: str) -> None:
    result = ChatResult(tool_calls=(ToolCall("c", "t", arguments), ToolCall("d", "t", '{"a": 1}')))
    message = to_chat_result(result, None).generations[0].message
    assert isinstance(message, AIMessage)
    (invalid,) = message.invalid_tool_calls
    assert (invalid["name"], invalid["args"], invalid["id"]) == ("t", arguments, "c")
    assert invalid["error"]
    assert [call["id"] for call in message.tool_calls] == ["d"]


def test_chunks_add_up_to_the_whole_message() -> None:
    message = added([chunk.message for chunk in shown(STREAM)])
    assert message.content == "I look."
    assert message.additional_kwargs == {"reasoning_content": "Let me see."}
    assert message.tool_calls == CALLS
    assert message.usage_metadata == USAGE_METADATA
    assert message.response_metadata["model_name"] == "ref"
    assert message.response_metadata["finish_reason"] == "tool_calls"
    assert message.response_metadata["system_fingerprint"] == "b1"
    assert message.response_metadata["timings"]["predicted_n"] == 3
    assert message.chunk_position == "last"
    assert without_index(message.content_blocks) == BLOCKS


def test_what_shows_nothing_is_no_chunk_and_counts_stand_on_one() -> None:
    messages = [chunk.message for chunk in shown(STREAM)]
    assert len(messages) == len(STREAM) - 2
    assert [message.usage_metadata for message in messages].count(None) == len(messages) - 1
    for name in ("model_name", "finish_reason", "system_fingerprint", "timings", "id"):
        assert sum(name in message.response_metadata for message in messages) == 1, name
    assert {message.response_metadata["model_provider"] for message in messages} == {"localllama"}
    assert [message.chunk_position for message in messages] == [None] * (len(messages) - 1) + ["last"]


def test_timings_of_every_token_do_not_pile_up() -> None:
    steps = [ChatChunk(text="a", timings=Timings(predicted_n=n, predicted_ms=n * 0.7)) for n in (1, 2)]
    message = added([chunk.message for chunk in shown((*steps, ChatChunk(usage=USAGE, timings=TIMINGS)))])
    assert message.response_metadata["timings"]["predicted_n"] == 3


def test_logprobs_add_up() -> None:
    entry = TokenLogprob("a", -0.5, (97,), top=(TokenLogprob("a", -0.5), TokenLogprob("b", -1.5)))
    message = added([chunk.message for chunk in shown((ChatChunk(text="a", logprobs=(entry,)),) * 2)])
    content = message.response_metadata["logprobs"]["content"]
    assert [one["token"] for one in content] == ["a", "a"]
    assert content[0]["bytes"] == [97]
    assert [other["logprob"] for other in content[0]["top_logprobs"]] == [-0.5, -1.5]
    whole = to_chat_result(ChatResult(text="aa", logprobs=(entry, entry)), None).generations[0].message
    assert whole.response_metadata["logprobs"] == message.response_metadata["logprobs"]


@pytest.mark.parametrize("version", ["v0", "v1"])
async def test_streams_have_one_block_for_each_thing(script, version: str) -> None:
    script.chunks = STREAM
    llm = ChatLocalLlama(model="m.gguf", output_version=version)
    streamed = [chunk async for chunk in llm.astream("hi")]
    for chunks in (streamed, list(llm.stream("hi"))):
        assert len({chunk.id for chunk in chunks}) == 1
        message = added(chunks)
        assert without_index(message.content_blocks) == BLOCKS
        assert message.tool_calls == CALLS
        assert message.usage_metadata == USAGE_METADATA
        assert (message.content == "I look.") == (version == "v0")


@pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning")
def test_the_event_stream_has_one_block_for_each_thing(script) -> None:
    script.chunks = STREAM
    message = ChatLocalLlama(model="m.gguf").stream_events("hi", version="v3").output
    assert without_index(message.content) == BLOCKS
    assert message.usage_metadata["input_token_details"] == {"cache_read": 2}


def test_v1_answers_hold_blocks_and_can_be_sent_back(script) -> None:
    llm = ChatLocalLlama(model="m.gguf", output_version="v1")
    message = llm.invoke("hi")
    assert message.content == [{"type": "text", "text": "Hello"}]
    llm.invoke([("user", "hi"), message, ("user", "and?")])
    assert [turn.content for turn in script.last.request.messages] == ["hi", "Hello", "and?"]
