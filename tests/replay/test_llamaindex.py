"""`LocalLlama` over recorded HTTP of llama-server, and the contract of LlamaIndex's LLMs with it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, ThinkingBlock
from llama_index.core.tools import FunctionTool
from pydantic import BaseModel

from llamaindex.contract import LLMContract
from llamaindex_localllama import LocalLlama
from localllama import (
    AnswerParseError,
    ContextOverflowError,
    LocalLlamaError,
    ServerConnectionError,
    StreamInterruptedError,
)
from support.recording import StagedServer

from .families import EACH_FAMILY, PARIS, THINKS_AND_ANSWERS, THOUGHT, TWO_CALLS, UNREADABLE, Family
from .ways import BASE_URL, GREEDY

pytestmark = [pytest.mark.vcr, pytest.mark.block_network]

QUESTION = [ChatMessage("What is the capital of France?", role="user")]
ASKS_WEATHER = "What is the weather in Paris?"


def get_weather(city: str, unit: str) -> str:
    """The weather in a city."""
    return f"21 degrees {unit} in {city}"


WEATHER = FunctionTool.from_defaults(get_weather)


def new_llm(**changes: Any) -> LocalLlama:
    return LocalLlama(base_url=BASE_URL, **{**GREEDY, **changes})


def in_each_way(llm: LocalLlama, messages: list[ChatMessage], **arguments: Any) -> ChatResponse:
    """The one answer of `chat`, `stream_chat` and their async twins."""

    async def asynchronous() -> list[ChatResponse]:
        whole = await llm.achat(messages, **arguments)
        return [whole, [part async for part in await llm.astream_chat(messages, **arguments)][-1]]

    parts = list(llm.stream_chat(messages, **arguments))
    answers = [llm.chat(messages, **arguments), parts[-1], *asyncio.run(asynchronous())]
    assert "".join(part.delta or "" for part in parts) == (answers[0].message.content or "")
    for answer in answers[1:]:
        assert answer.message.blocks == answers[0].message.blocks
        assert answer.raw is not None
        assert answers[0].raw is not None
        assert answer.raw["usage"] == answers[0].raw["usage"]
    return answers[0]


def test_chat() -> None:
    answer = in_each_way(new_llm(), QUESTION)
    assert answer.message.content
    assert answer.raw is not None
    usage = answer.raw["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def test_logprobs() -> None:
    answer = in_each_way(new_llm(top_logprobs=2, max_tokens=4), QUESTION)
    assert answer.logprobs is not None
    assert len(answer.logprobs) == 4
    assert all(len(entries) == 2 for entries in answer.logprobs)


@THINKS_AND_ANSWERS
def test_thinking() -> None:
    answer = in_each_way(new_llm(), QUESTION)
    thoughts = [block.content for block in answer.message.blocks if isinstance(block, ThinkingBlock)]
    assert [str(thought).strip() for thought in thoughts] == [THOUGHT]
    assert str(answer.message.content).strip() == "It is Paris, naïve friend: 你好!"


@pytest.mark.parametrize("family", EACH_FAMILY)
def test_native_call(family: Family) -> None:
    llm = new_llm(max_tokens=200)
    answer = llm.chat_with_tools([WEATHER], user_msg=ASKS_WEATHER)
    calls = llm.get_tool_calls_from_response(answer)
    assert [(call.tool_name, call.tool_kwargs) for call in calls] == [("get_weather", PARIS)]
    last = list(llm.stream_chat_with_tools([WEATHER], user_msg=ASKS_WEATHER))[-1]
    assert [call.tool_kwargs for call in llm.get_tool_calls_from_response(last)] == [PARIS]
    asynchronous = asyncio.run(llm.achat_with_tools([WEATHER], user_msg=ASKS_WEATHER))
    assert [call.tool_kwargs for call in llm.get_tool_calls_from_response(asynchronous)] == [PARIS]
    assert WEATHER(**calls[0].tool_kwargs).content == "21 degrees celsius in Paris"


@TWO_CALLS
def test_two_native_calls() -> None:
    llm = new_llm(max_tokens=200)
    answer = llm.chat_with_tools([WEATHER], user_msg=ASKS_WEATHER, allow_parallel_tool_calls=True)
    assert [call.tool_kwargs["city"] for call in llm.get_tool_calls_from_response(answer)] == ["Paris", "Rome"]


def test_forced_call() -> None:
    llm = new_llm(max_tokens=200)
    answer = llm.chat_with_tools([WEATHER], user_msg=ASKS_WEATHER, tool_required=True)
    calls = llm.get_tool_calls_from_response(answer)
    assert [call.tool_name for call in calls] == ["get_weather"]
    assert set(calls[0].tool_kwargs) == {"city", "unit"}


class Capital(BaseModel):
    """The capital of a country."""

    is_large: bool
    rank: int


def test_structured_output() -> None:
    llm = new_llm(max_tokens=200).as_structured_llm(Capital)
    answer = llm.chat(QUESTION)
    assert isinstance(answer.raw, Capital)
    assert asyncio.run(llm.achat(QUESTION)).raw == answer.raw
    assert json.loads(str(answer.message.content)) == answer.raw.model_dump()


# -- failures -------------------------------------------------------------------------------------------------------


@pytest.mark.served(n_ctx=256)
def test_context_overflow() -> None:
    long = [ChatMessage("word " * 400, role="user")]
    with pytest.raises(ContextOverflowError):
        new_llm().chat(long)
    with pytest.raises(ContextOverflowError):
        list(new_llm().stream_chat(long))


@pytest.mark.vcr(allow_playback_repeats=False)
@pytest.mark.served(is_caught_loading=True)
def test_loading_is_an_error_without_retries() -> None:
    with pytest.raises(LocalLlamaError) as caught:
        new_llm(max_retries=0).chat(QUESTION)
    assert caught.value.is_retryable


@pytest.mark.served(breaks_after=6)
def test_a_broken_stream_is_no_answer() -> None:
    seen = ""
    with pytest.raises(StreamInterruptedError) as caught:
        for part in new_llm().stream_chat(QUESTION):
            seen += part.delta or ""
    assert caught.value.partial is not None
    assert caught.value.partial.text == seen != ""
    with pytest.raises(StreamInterruptedError):
        new_llm().chat(QUESTION)


@pytest.mark.vcr(allow_playback_repeats=False)
def test_a_server_that_is_gone(served: StagedServer | None) -> None:
    llm = new_llm(max_tokens=3, max_retries=0)
    assert llm.chat(QUESTION).message.content
    if served is not None:
        served.end()
    with pytest.raises(ServerConnectionError):
        llm.chat(QUESTION)


@UNREADABLE
def test_an_error_inside_the_stream() -> None:
    with pytest.raises(AnswerParseError):
        list(new_llm(max_tokens=100).stream_chat_with_tools([WEATHER], user_msg=ASKS_WEATHER))


@pytest.mark.served(model="micro")
class TestContract(LLMContract):
    """The contract that any LLM of LlamaIndex can inherit, without a server."""

    @pytest.fixture
    def llm(self) -> LocalLlama:
        return new_llm(max_tokens=24)
