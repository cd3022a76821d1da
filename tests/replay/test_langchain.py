"""`ChatLocalLlama` over recorded HTTP of llama-server."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain_core import exceptions as langchain_errors
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.tools import tool
from pydantic import BaseModel

from langchain_localllama import ChatLocalLlama
from localllama import (
    AnswerParseError,
    ContextOverflowError,
    LocalLlamaError,
    ServerConnectionError,
    StreamInterruptedError,
)
from support.recording import StagedServer

from .families import (
    EACH_FAMILY,
    PARIS,
    THINKS_AND_ANSWERS,
    THOUGHT,
    TWO_CALLS,
    UNREADABLE,
    WEATHER,
    Family,
    is_weather,
)
from .ways import BASE_URL, GREEDY

pytestmark = [pytest.mark.vcr, pytest.mark.block_network]

QUESTION = "What is the capital of France?"
ASKS_WEATHER = "What is the weather in Paris?"
TOOL = {
    "type": "function",
    "function": {"name": WEATHER.name, "description": WEATHER.description, "parameters": WEATHER.parameters},
}


def new_llm(**changes: Any) -> ChatLocalLlama:
    return ChatLocalLlama(base_url=BASE_URL, **{**GREEDY, **changes})


def summed(chunks: list[AIMessageChunk]) -> AIMessageChunk:
    first, *rest = chunks
    for chunk in rest:
        first += chunk
    return first


def in_each_way(llm: Any, asked: Any) -> AIMessage:
    """The one answer of `invoke`, `stream` and their async twins."""

    async def asynchronous() -> list[AIMessage]:
        whole = await llm.ainvoke(asked)
        return [whole, summed([chunk async for chunk in llm.astream(asked)])]

    answers = [llm.invoke(asked), summed(list(llm.stream(asked))), *asyncio.run(asynchronous())]
    first = answers[0]
    for answer in answers:
        assert _without_index(answer.content) == _without_index(first.content)
        assert answer.additional_kwargs == first.additional_kwargs
        assert answer.usage_metadata == first.usage_metadata
        assert [(call["name"], call["args"]) for call in answer.tool_calls] == [
            (call["name"], call["args"]) for call in first.tool_calls
        ]
        assert answer.response_metadata["finish_reason"] == first.response_metadata["finish_reason"]
        assert answer.response_metadata["timings"] == first.response_metadata["timings"]
    return first


def _without_index(content: Any) -> Any:
    """LangChain numbers the blocks of chunks, so that they can be added up."""
    if isinstance(content, str):
        return content
    return [{key: value for key, value in block.items() if key != "index"} for block in content]


def test_chat() -> None:
    answer = in_each_way(new_llm(), QUESTION)
    assert len(answer.text.split()) > 3
    usage = answer.usage_metadata
    assert usage is not None
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    assert usage["output_tokens"] == answer.response_metadata["timings"]["predicted_n"]


def test_logprobs() -> None:
    answer = in_each_way(new_llm(top_logprobs=2, max_tokens=4), QUESTION)
    entries = answer.response_metadata["logprobs"]["content"]
    assert "".join(entry["token"] for entry in entries) == answer.text
    assert all(len(entry["top_logprobs"]) == 2 for entry in entries)


@THINKS_AND_ANSWERS
@pytest.mark.parametrize("version", ["v0", "v1"])
def test_thinking(version: str) -> None:
    answer = in_each_way(new_llm(output_version=version), QUESTION)
    assert [block["type"] for block in answer.content_blocks] == ["reasoning", "text"]
    assert answer.content_blocks[0]["reasoning"].strip() == THOUGHT
    assert answer.text.strip() == "It is Paris, naïve friend: 你好!"


@pytest.mark.parametrize("family", EACH_FAMILY)
def test_native_call(family: Family) -> None:
    answer = in_each_way(new_llm(max_tokens=200).bind_tools([TOOL]), ASKS_WEATHER)
    assert [(call["name"], call["args"]) for call in answer.tool_calls] == [("get_weather", PARIS)]
    assert answer.tool_calls[0]["id"]
    assert answer.invalid_tool_calls == []
    assert answer.response_metadata["finish_reason"] == "tool_calls"
    assert answer.text.strip() == ""
    # And back: what the model said goes into the next prompt, with the result of the tool.
    turns = [HumanMessage(ASKS_WEATHER), answer, ToolMessage("21 degrees", tool_call_id=answer.tool_calls[0]["id"])]
    assert new_llm(max_tokens=200).bind_tools([TOOL]).invoke(turns).tool_calls


@TWO_CALLS
def test_two_native_calls() -> None:
    answer = in_each_way(new_llm(max_tokens=200).bind_tools([TOOL], parallel_tool_calls=True), ASKS_WEATHER)
    assert [call["args"]["city"] for call in answer.tool_calls] == ["Paris", "Rome"]


def test_forced_call() -> None:
    answer = in_each_way(new_llm(max_tokens=200).bind_tools([TOOL], tool_choice="any"), ASKS_WEATHER)
    assert [call["name"] for call in answer.tool_calls] == ["get_weather"]
    assert is_weather(answer.tool_calls[0]["args"])


class Capital(BaseModel):
    """The capital of a country."""

    is_large: bool
    rank: int


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_structured_output(method: Any) -> None:
    llm = new_llm(max_tokens=200).with_structured_output(Capital, method=method)
    answer = llm.invoke(QUESTION)
    assert isinstance(answer, Capital)
    assert asyncio.run(llm.ainvoke(QUESTION)) == answer
    assert list(llm.stream(QUESTION))[-1] == answer


def test_a_tool_of_langchain_is_called_with_its_words() -> None:
    @tool
    def double(number: int) -> int:
        """Doubles a number."""
        return 2 * number

    answer = new_llm(max_tokens=100).bind_tools([double], tool_choice="double").invoke("Double 21")
    call = answer.tool_calls[0]
    assert double.invoke(call).content == str(2 * call["args"]["number"])


# -- failures -------------------------------------------------------------------------------------------------------


@pytest.mark.served(n_ctx=256)
def test_context_overflow() -> None:
    for ask in (lambda: new_llm().invoke("word " * 400), lambda: list(new_llm().stream("word " * 400))):
        with pytest.raises(langchain_errors.ContextOverflowError) as caught:
            ask()
        assert isinstance(caught.value, ContextOverflowError)


@pytest.mark.vcr(allow_playback_repeats=False)
@pytest.mark.served(is_caught_loading=True)
def test_loading_is_an_error_without_retries() -> None:
    with pytest.raises(LocalLlamaError) as caught:
        new_llm(max_retries=0).invoke(QUESTION)
    assert caught.value.is_retryable


@pytest.mark.served(breaks_after=6)
def test_a_broken_stream_is_no_answer() -> None:
    chunks = []
    with pytest.raises(StreamInterruptedError) as caught:
        for chunk in new_llm().stream(QUESTION):
            chunks.append(chunk)  # noqa: PERF402
    assert caught.value.partial is not None
    assert summed(chunks).text == caught.value.partial.text != ""
    with pytest.raises(StreamInterruptedError):
        new_llm().invoke(QUESTION)


@pytest.mark.vcr(allow_playback_repeats=False)
def test_a_server_that_is_gone(served: StagedServer | None) -> None:
    llm = new_llm(max_tokens=3, max_retries=0)
    assert llm.invoke(QUESTION).text
    if served is not None:
        served.end()
    with pytest.raises(ServerConnectionError):
        llm.invoke(QUESTION)


@UNREADABLE
def test_an_error_inside_the_stream() -> None:
    chunks = []
    with pytest.raises(AnswerParseError):
        for chunk in new_llm(max_tokens=100).bind_tools([TOOL]).stream(ASKS_WEATHER):
            chunks.append(chunk)  # noqa: PERF402
    assert summed(chunks).additional_kwargs["reasoning_content"].strip() == THOUGHT
