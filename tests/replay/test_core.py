"""The clients of the core over recorded HTTP of llama-server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest

from localllama import (
    AnswerParseError,
    AsyncLocalLlamaClient,
    ChatRequest,
    ChatStream,
    ContextOverflowError,
    LocalLlamaClient,
    LocalLlamaError,
    LocalLlamaWarning,
    Message,
    ServerConnectionError,
    StreamInterruptedError,
    ToolCall,
)
from support.recording import StagedServer

from .families import (
    ASKS_WEATHER,
    EACH_FAMILY,
    EACH_TEMPLATE,
    PARIS,
    THINKS_AND_ANSWERS,
    THOUGHT,
    TWO_CALLS,
    UNREADABLE,
    WEATHER,
    Family,
    is_weather,
)
from .ways import in_each_way, new_client, sampling, settings, streamed

pytestmark = [pytest.mark.vcr, pytest.mark.block_network]

QUESTION = ChatRequest((Message("user", "What is the capital of France?"),))


def test_chat() -> None:
    result = in_each_way(QUESTION)
    assert len(result.text.split()) > 3
    assert (result.reasoning, result.tool_calls) == ("", ())
    assert result.usage is not None
    assert result.timings is not None
    assert result.usage.total_tokens == result.usage.prompt_tokens + result.usage.completion_tokens
    assert result.usage.completion_tokens == result.timings.predicted_n
    assert result.usage.prompt_tokens == result.timings.prompt_n
    assert result.model == "smollm2"


def test_one_token_is_one_chunk() -> None:
    chunks, result = streamed(QUESTION, max_tokens=7)
    assert result.finish_reason == "length"
    assert sum(bool(chunk.text) for chunk in chunks) > 3
    assert [chunk.finish_reason for chunk in chunks if chunk.finish_reason] == ["length"]


def test_stop_strings() -> None:
    words = in_each_way(QUESTION, max_tokens=20).text
    end = words.split()[2]
    result = in_each_way(QUESTION, max_tokens=20, stop=[end])
    assert result.text == words[: words.index(end)]
    assert result.finish_reason == "stop"


def test_logprobs() -> None:
    result = in_each_way(QUESTION, top_logprobs=3, max_tokens=5)
    assert len(result.logprobs) == 5
    assert b"".join(entry.token.encode() for entry in result.logprobs).decode() == result.text
    for entry in result.logprobs:
        assert len(entry.top) == 3
        assert entry.logprob == max(other.logprob for other in entry.top) <= 0


@pytest.mark.vcr(allow_playback_repeats=False)
def test_usage_tells_what_came_from_the_cache() -> None:
    with new_client(max_tokens=4) as client:
        first, second = (client.chat(QUESTION).usage for _ in range(2))
    assert first is not None
    assert second is not None
    assert first.cached_tokens == 0
    assert 0 < second.cached_tokens < second.prompt_tokens == first.prompt_tokens


@pytest.mark.served(model="micro", template="llama-cpp-deepseek-r1")
def test_thinking_that_does_not_end_is_no_text() -> None:
    result = in_each_way(QUESTION, max_tokens=12)
    assert result.reasoning
    assert result.text == ""
    assert result.finish_reason == "length"


@THINKS_AND_ANSWERS
def test_thinking_and_an_answer() -> None:
    result = in_each_way(QUESTION)
    assert result.reasoning.strip() == THOUGHT
    assert result.text.strip() == "It is Paris, naïve friend: 你好!"
    assert result.finish_reason == "stop"


# -- tools ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", EACH_FAMILY)
def test_native_call(family: Family) -> None:
    result = in_each_way(ASKS_WEATHER, max_tokens=200)
    assert [call.name for call in result.tool_calls] == ["get_weather"]
    assert json.loads(result.tool_calls[0].arguments) == PARIS
    assert result.tool_calls[0].id
    assert result.finish_reason == "tool_calls"
    assert result.text.strip() == ""
    assert result.reasoning.strip() == (THOUGHT if family.is_thinking else "")


@pytest.mark.parametrize("family", EACH_FAMILY)
def test_native_call_comes_in_pieces(family: Family) -> None:
    chunks, result = streamed(ASKS_WEATHER, max_tokens=200)
    deltas = [delta for chunk in chunks for delta in chunk.tool_calls]
    assert "".join(delta.arguments for delta in deltas) == result.tool_calls[0].arguments
    assert [delta.name for delta in deltas if delta.name] == ["get_weather"]
    assert {delta.index for delta in deltas} == {0}
    assert len(deltas) > 2


@TWO_CALLS
def test_two_native_calls() -> None:
    request = ChatRequest(ASKS_WEATHER.messages, tools=(WEATHER,), parallel_tool_calls=True)
    result = in_each_way(request, max_tokens=200)
    assert [json.loads(call.arguments)["city"] for call in result.tool_calls] == ["Paris", "Rome"]
    assert len({call.id for call in result.tool_calls}) == 2


@pytest.mark.parametrize("family", EACH_TEMPLATE)
def test_forced_call(family: Family) -> None:
    request = ChatRequest(ASKS_WEATHER.messages, tools=(WEATHER,), tool_choice="get_weather")
    result = in_each_way(request, costs_alike=False, max_tokens=400)
    assert [call.name for call in result.tool_calls] == ["get_weather"]
    assert is_weather(result.tool_calls[0].arguments)
    assert (result.text, result.finish_reason) == ("", "tool_calls")


@pytest.mark.parametrize("family", EACH_FAMILY)
def test_history_with_a_result(family: Family) -> None:
    call = ToolCall("abcdefghi", "get_weather", json.dumps(PARIS))
    turns = (
        *ASKS_WEATHER.messages,
        Message("assistant", "", tool_calls=(call,)),
        Message("tool", "21 degrees and sunny", tool_call_id=call.id, name=call.name),
    )
    with new_client() as client:
        prompt = client.render_prompt(ChatRequest(turns, tools=(WEATHER,)))
    assert "21 degrees and sunny" in prompt
    assert prompt.count("What is the weather in Paris?") == 1
    assert prompt.index("get_weather") < prompt.index("21 degrees")


def test_forced_call_without_a_tool_template() -> None:
    request = ChatRequest(ASKS_WEATHER.messages, tools=(WEATHER,), tool_choice="required")
    result = in_each_way(request, max_tokens=200)
    assert [call.name for call in result.tool_calls] == ["get_weather"]
    assert is_weather(result.tool_calls[0].arguments)


def test_structured_output() -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"enum": ["Paris", "Rome"]}, "sure": {"type": "boolean"}},
        "required": ["city", "sure"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    result = in_each_way(ChatRequest(QUESTION.messages, response_format=form), max_tokens=100)
    values = json.loads(result.text)
    assert set(values) == {"city", "sure"}
    assert values["city"] in ("Paris", "Rome")
    assert values["sure"] in (True, False)


def test_completion_and_questions() -> None:
    with new_client(max_tokens=6) as client:
        result = client.complete("The capital of France is")
        assert "Paris" in result.text
        tokens = client.tokenize("Hello there")
        assert client.detokenize(tokens) == "Hello there"
        usage = client.chat(QUESTION).usage
        assert usage is not None
        assert client.count_tokens(QUESTION) == usage.prompt_tokens
        assert "capital of France" in client.render_prompt(QUESTION)


# -- failures -------------------------------------------------------------------------------------------------------


@pytest.mark.served(n_ctx=256)
def test_context_overflow() -> None:
    long = ChatRequest((Message("user", "word " * 400),))
    with new_client() as client, pytest.raises(ContextOverflowError) as caught:
        client.chat(long)
    assert caught.value.n_ctx == 256
    assert caught.value.n_prompt_tokens is not None
    assert caught.value.n_prompt_tokens > 400

    async def run() -> None:
        async with AsyncLocalLlamaClient(settings(), sampling=sampling()) as client:
            async for _ in client.stream_chat(long):
                raise AssertionError("it answers")

    with pytest.raises(ContextOverflowError):
        asyncio.run(run())


@pytest.mark.vcr(allow_playback_repeats=False)
@pytest.mark.served(is_caught_loading=True)
def test_loading_is_waited_for() -> None:
    with LocalLlamaClient(settings(), sampling=sampling(max_tokens=3), max_retries=9) as client:
        assert client.chat(QUESTION).text


@pytest.mark.vcr(allow_playback_repeats=False)
@pytest.mark.served(is_caught_loading=True)
def test_loading_is_an_error_without_retries() -> None:
    with LocalLlamaClient(settings(), sampling=sampling(), max_retries=0) as client:
        with pytest.raises(LocalLlamaError) as caught:
            client.chat(QUESTION)
    assert caught.value.is_retryable
    assert "load" in caught.value.message.lower()


@pytest.mark.served(breaks_after=6)
def test_a_broken_stream_keeps_what_came() -> None:
    seen: list[str] = []
    with new_client() as client, client.stream_chat(QUESTION) as stream:
        with pytest.raises(StreamInterruptedError) as caught:
            for text in _texts(stream):
                seen.append(text)  # noqa: PERF402  # what came before the error is what counts
    assert caught.value.partial is not None
    assert caught.value.partial.text == "".join(seen) != ""


def _texts(stream: ChatStream) -> Iterator[str]:
    for chunk in stream:
        yield chunk.text


@pytest.mark.vcr(allow_playback_repeats=False)
def test_a_server_that_is_gone(served: StagedServer | None) -> None:
    with LocalLlamaClient(settings(), sampling=sampling(max_tokens=3), max_retries=0) as client:
        assert client.chat(QUESTION).text
        if served is not None:
            served.end()
        with pytest.raises(ServerConnectionError) as caught:
            client.chat(QUESTION)
    assert caught.value.hint


@UNREADABLE
def test_an_error_inside_the_stream() -> None:
    """llama-server cannot read what its model wrote, and says so after the thinking was streamed."""
    seen = ""
    with new_client(max_tokens=100) as client, client.stream_chat(ASKS_WEATHER) as stream:
        with pytest.raises(AnswerParseError) as caught:
            for chunk in stream:
                seen += chunk.reasoning
    assert seen.strip() == THOUGHT
    assert caught.value.hint
    # Nobody has seen anything of a whole answer: it is generated once more, without the parser that failed.
    with new_client(max_tokens=100) as client:
        assert "nonsense" in client.chat(ASKS_WEATHER).text
    with new_client(max_tokens=100) as client, pytest.warns(LocalLlamaWarning, match="as the model writes it"):
        assert client.chat(QUESTION).text
